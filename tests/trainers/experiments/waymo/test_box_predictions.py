import csv
import dataclasses
import shutil

import numpy as np
import pytest

from data.lidar.kitti import builder
from launch import command, predict
from tests.data.lidar import frames
from tests.trainers import small_runs
from tests.trainers.models.pointpillars import cases
from trainers.experiments.waymo import trained
from trainers.models.pointpillars import presets

# The camera looks ahead and sees about half of the ground ahead of the lidar.
_CALIBRATION = """P2: 700 0 600 0 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0
"""
_LABEL = "Car 0 0 0 1 2 3 4 1.5 2.0 4.0 0.0 -0.5 8.0 -1.570796\n"


def _write_kitti(directory):
    """Writes three frames; in each, many points lie beside the image."""
    for number in range(3):
        example = frames.example(number, [[8, 0, 0.5, 4, 2, 1.5, 0]])
        points = example["points"][:, :4]
        points[:, 3] = 0.5
        for name, content in {
            f"velodyne/{number:06}.bin": points.tobytes(),
            f"label_2/{number:06}.txt": _LABEL.encode(),
            f"calib/{number:06}.txt": _CALIBRATION.encode(),
        }.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Returns KITTI's folder and a run on it, which finds boxes everywhere."""
    preset = dataclasses.replace(
        cases.ROOMY, num_point_features=5, score_threshold=0.0
    )
    root = tmp_path_factory.mktemp("kitti")
    _write_kitti(root / "training")
    builder.prepare(root / "training", root / "sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", preset)
        run = small_runs.small_run(
            "waymo",
            root / "run",
            seed=3,
            data_dir=root / "sets",
            strategy="one",
            dataset="kitti_lidar",
            evaluation_split="train",
            pasted_objects=0,
        )
        small_runs.finish(run)
        yield root / "training", run


def _predict(run, scans, out):
    arguments = [f"--run_dir={run.directory}", f"--scans={scans}"]
    arguments += [f"--out={out}", "--draw=0"]
    assert command.guarded(predict.main, arguments) == 0
    with open(out, newline="") as file:
        return np.array(list(csv.reader(file))[1:]).astype(float)


def test_scans_of_kitti_have_the_boxes_of_the_evaluation(
    places, tmp_path, capsys, monkeypatch
):
    directory, run = places
    detector = trained.TrainedDetector(run.directory, run.data_dir)
    expected = detector.evaluate(report=lambda line: None)[0].predictions
    found = _predict(run, directory / "velodyne", tmp_path / "boxes.csv")
    assert "camera" not in capsys.readouterr().out
    assert len(found) == len(expected.score) > 3
    np.testing.assert_array_equal(found[:, 0], expected.frame_id)
    np.testing.assert_allclose(found[:, 1], expected.score, rtol=1e-4)
    np.testing.assert_allclose(
        found[:, 2:], expected.bbox, rtol=1e-4, atol=1e-4
    )
    monkeypatch.chdir(directory / "velodyne")
    again = _predict(run, "000001.bin", tmp_path / "one.csv")
    np.testing.assert_array_equal(again, found[found[:, 0] == 1])


def test_scans_without_a_calibration_keep_all_points(places, tmp_path, capsys):
    directory, run = places
    shutil.copytree(directory / "velodyne", tmp_path / "velodyne")
    found = _predict(run, tmp_path / "velodyne", tmp_path / "boxes.csv")
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if "camera" in line
    )
    assert line.startswith("3 of 3 scans: no ../calib/NAME.txt")
    seen = _predict(run, directory / "velodyne", tmp_path / "seen.csv")
    assert found.shape != seen.shape or not np.allclose(found, seen)
