import json
import os
import pathlib

import pytest
import tensorflow_datasets as tfds

from data import prepared
from data.lidar.kitti import builder
from data.lidar.kitti import frames as kitti
from launch import command, prepare_kitti
from tests.data.lidar import cases
from tests.data.lidar.kitti import test_frames

directory = test_frames.directory


def _second_frame(directory):
    for path in directory.glob("*/000007.*"):
        os.link(path, path.with_stem("000009"))


def test_frames_are_those_of_the_folders(directory, tmp_path, capsys):
    _second_frame(directory)
    arguments = [f"--kitti_dir={directory}", f"--data_dir={tmp_path / 'out'}"]
    for _ in range(2):
        assert command.guarded(prepare_kitti.main, arguments) == 0
        target = tmp_path / "out" / "kitti_lidar" / "1.1.0"
        printed = capsys.readouterr()
        # The car alone holds points, in each frame.
        assert printed.out.splitlines() == [
            "frames: 2, boxes: 8, without a lidar point: 6",
            "Most boxes hold no lidar point: do calib and velodyne belong to "
            "the same drives?",
            f"Prepared: {target}",
        ]
        assert printed.err == ""
    frames = tfds.builder_from_directory(target).as_dataset(split="train")
    examples = list(frames.as_numpy_iterator())
    assert [e["frame"] for e in examples] == [b"000007", b"000009"]
    for example in examples:
        name = example["frame"].decode()
        cases.assert_same(example, kitti.read_frame(directory, name))


def test_boxes_with_points_are_not_doubted(directory, tmp_path, capsys):
    label = directory / "label_2" / "000007.txt"
    label.write_text(label.read_text().splitlines()[0] + "\n")
    arguments = [f"--kitti_dir={directory}", f"--data_dir={tmp_path / 'out'}"]
    assert command.guarded(prepare_kitti.main, arguments) == 0
    first, _ = capsys.readouterr().out.splitlines()
    assert first == "frames: 1, boxes: 1, without a lidar point: 0"


def test_a_set_without_counts_is_taken_as_it_is(directory, tmp_path, capsys):
    target = pathlib.Path(builder.prepare(directory, tmp_path / "out").data_dir)
    path = target / "metadata.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({"frames": known["frames"]}))
    arguments = [f"--kitti_dir={directory}", f"--data_dir={tmp_path / 'out'}"]
    assert command.guarded(prepare_kitti.main, arguments) == 0
    assert capsys.readouterr().out == f"Prepared: {target}\n"


def test_other_frames_are_refused(directory, tmp_path):
    builder.prepare(directory, tmp_path / "out")
    _second_frame(directory)
    with pytest.raises(prepared.DataError, match="holds other frames than"):
        builder.prepare(directory, tmp_path / "out")


def test_a_damaged_data_set_is_refused(directory, tmp_path, capsys, refused):
    arguments = [f"--kitti_dir={directory}", f"--data_dir={tmp_path / 'out'}"]
    target = pathlib.Path(builder.prepare(directory, tmp_path / "out").data_dir)
    (target / "dataset_info.json").write_text("{")
    capsys.readouterr()
    parts = [f"{target} holds no data set that can be read"]
    refused(prepare_kitti.main, arguments, parts)


def test_a_damaged_frame_leaves_nothing(directory, tmp_path, capsys):
    scan = directory / "velodyne" / "000007.bin"
    scan.write_bytes(scan.read_bytes()[:-3])
    arguments = [f"--kitti_dir={directory}", f"--data_dir={tmp_path / 'out'}"]
    assert command.guarded(prepare_kitti.main, arguments) == 2
    (line,) = (
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("error: ")
    )
    assert f"{scan}: got 93 bytes" in line
    assert not (tmp_path / "out" / "kitti_lidar" / "1.1.0").exists()
    assert not list((tmp_path / "out").glob("kitti_lidar/*incomplete*"))


def test_a_folder_without_frames_is_refused(tmp_path, capsys):
    arguments = [f"--kitti_dir={tmp_path}", f"--data_dir={tmp_path / 'out'}"]
    assert command.guarded(prepare_kitti.main, arguments) == 2
    assert "got no *.bin files" in capsys.readouterr().err
