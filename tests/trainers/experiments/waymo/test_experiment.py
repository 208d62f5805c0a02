import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from data import prepared, streams
from data.lidar import sets
from launch import command, evaluate, export, predict
from tests.data.lidar import frames
from tests.trainers import small_runs
from tests.trainers.models.pointpillars import cases
from trainers import errors, files
from trainers.experiments import registry
from trainers.experiments.waymo import experiment as waymo
from trainers.experiments.waymo import frames as waymo_frames
from trainers.models.pointpillars import losses, network, presets
from trainers.reporting import report
from trainers.runs import execution
from trainers.training.logs import read_csv

_METHOD = "graddrop(sync_replicas=False)"
_BOXES = [
    [4.5, 0.5, 0.5, 4.0, 2.0, 1.5, 0.0],
    [11.5, 3.5, 0.5, 4.0, 2.0, 1.5, 1.57],
]


@pytest.fixture(scope="module", autouse=True)
def tiny():
    preset = dataclasses.replace(cases.ROOMY, num_point_features=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", preset)
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    examples = [frames.example(n, _BOXES[: n % 3]) for n in range(5)]
    return frames.prepare(
        tmp_path_factory.mktemp("lidar"), train=examples, test=examples[2:]
    )


def _run(data_dir, directory, method=_METHOD, **values):
    return small_runs.small_run(
        "waymo",
        directory,
        method,
        seed=3,
        data_dir=data_dir,
        strategy="one",
        **values,
    )


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    run = _run(data_dir, tmp_path_factory.mktemp("runs") / "whole")
    return small_runs.finish(run)


def test_a_run_reports_ap_of_its_last_step(whole):
    assert whole.status == "finished"
    rows = read_csv(whole.directory / "metrics.csv")
    assert [row["step"] for row in rows] == [2, 4]
    metrics = whole.results["metrics"]
    for name in ("ap_3d", "aph_3d", "ap_bev", "aph_bev", "ap_3d_iou_50"):
        assert metrics[name] == pytest.approx(100 * rows[-1][f"val_{name}"])
    for name in losses.LOSS_NAMES:
        assert np.isfinite(rows[-1][f"val_{name}_loss"])


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class CountExamples(keras.layers.Layer):
    """Counts the examples that pass outside of training."""

    def build(self, input_shape):
        self.count = self.add_weight(
            dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, inputs, training=False):
        if not training:
            self.count.assign_add(tf.shape(inputs)[0])
        return inputs


def test_an_evaluation_runs_the_network_once_for_each_frame(
    data_dir, tmp_path, monkeypatch
):
    counter = CountExamples()
    make_trunk = network.make_trunk

    def make_counting_trunk(preset):
        trunk = make_trunk(preset)
        return keras.Model(trunk.input, counter(trunk.output), name=trunk.name)

    monkeypatch.setattr(network, "make_trunk", make_counting_trunk)
    record = small_runs.finish(_run(data_dir, tmp_path))
    rows = len(read_csv(record.directory / "metrics.csv"))
    # Three test frames in each epoch, and one that is drawn at the end.
    assert int(counter.count) == 3 * rows + 1


def test_a_run_leaves_points_to_boxes(data_dir, tmp_path, monkeypatch):
    """A SavedModel that finds what the run's evaluation finds."""
    preset = dataclasses.replace(
        presets.PRESETS["tiny"], score_threshold=0.0, max_detections=5
    )
    monkeypatch.setitem(presets.PRESETS, "tiny", preset)
    run = _run(data_dir, tmp_path / "run")
    record = small_runs.finish(run)
    assert record.results["model"] == {
        "file": "model",
        "format": "saved_model",
        "step": 4,
        "measure": None,
    }
    trained = tf.saved_model.load(str(run.directory / "model"))
    examples = waymo_frames.open_set(run).frames("test")
    with np.load(run.directory / "frame.npz") as saved:
        expected = saved["predicted_boxes"], saved["scores"]
    points = sets.vehicles(next(iter(examples)))["points"]
    found = trained.serve(points)
    assert len(expected[0]) == 5
    np.testing.assert_allclose(found["boxes"], expected[0], atol=1e-5)
    np.testing.assert_allclose(found["scores"], expected[1], atol=1e-6)
    # Of any number of points.
    assert trained.serve(points[:0])["boxes"].shape[1] == 7
    again = tmp_path / "again"
    arguments = [f"--run_dir={run.directory}", f"--out={again}"]
    assert command.guarded(export.main, arguments) == 0
    found = tf.saved_model.load(str(again)).signatures["serve"](points=points)
    np.testing.assert_allclose(found["boxes"], expected[0], atol=1e-5)
    check_predictions(run, trained, points.numpy(), tmp_path)


def check_predictions(run, trained, points, folder):
    """Boxes in scans of KITTI, which have four columns."""
    scan = points[:, :4] * [1.0, 1.0, 1.0, 0.5]
    (folder / "scans").mkdir()
    for name, number in (("a", 100), ("b", 60)):
        scan[:number].astype(np.float32).tofile(
            folder / "scans" / f"{name}.bin"
        )
    out = folder / "boxes.csv"
    arguments = [f"--run_dir={run.directory}", f"--scans={folder / 'scans'}"]
    assert command.guarded(predict.main, [*arguments, f"--out={out}"]) == 0
    with open(out, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:3] == ["frame", "score", "x"]
    assert [row[0] for row in rows[1:]] == ["a"] * 5 + ["b"] * 5
    found = trained.serve(np.pad(scan[:60], ((0, 0), (0, 1))).astype("f4"))
    boxes = np.array(rows[6:])[:, 1:].astype(float)
    np.testing.assert_allclose(boxes[:, 0], found["scores"], rtol=1e-4)
    np.testing.assert_allclose(boxes[:, 1:], found["boxes"], rtol=1e-4)
    assert (folder / "boxes_0.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "boxes_1.png").exists()


@pytest.mark.parametrize(
    ("places", "parts"),
    [
        ([], ["got 0 of them"]),
        (["--images=x", "--scans=x"], ["got 2 of them"]),
        (["--images=x"], ["takes lidar frames"]),
        (["--scans=nothing.bin"], ["nothing.bin", "cannot be read"]),
        (["--segments=nothing"], ["nothing"]),
    ],
)
def test_places_that_a_detector_does_not_take(
    whole, tmp_path, places, parts, refused
):
    out = f"--out={tmp_path / 'out.csv'}"
    arguments = [f"--run_dir={whole.directory}", out, *places]
    refused(predict.main, arguments, parts)
    assert not list(tmp_path.iterdir())


def test_a_detector_has_one_format(whole, tmp_path, refused):
    arguments = [f"--run_dir={whole.directory}", f"--out={tmp_path / 'out'}"]
    refused(
        export.main,
        [*arguments, "--format=onnx"],
        ["--format: got onnx", "expected saved_model"],
    )
    assert not list(tmp_path.iterdir())


def test_the_losses_of_an_evaluation_are_those_of_keras(data_dir, tmp_path):
    """Of three frames in batches of two: the last batch is smaller."""
    run = _run(data_dir, tmp_path, batch_size=2)
    trainer = waymo.Waymo()
    model = trainer.make_model(run)
    logs = trainer.evaluator(run, model)()
    examples = waymo_frames.open_set(run).frames("test")
    batches = waymo_frames.evaluation_batches(
        examples, run.config.detector_preset, 2
    )
    expected = model.evaluate(
        batches.map(lambda pair, _: pair), verbose=0, return_dict=True
    )
    assert len(expected) == 10
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-6), name


def test_training_frames_are_a_function_of_step_and_seed(data_dir, tmp_path):
    run = _run(data_dir, tmp_path, pasted_objects=2, batch_size=4)
    trainer = waymo.Waymo()

    def take(start, count, shard=None):
        data = trainer.training_data(
            run, streams.Reading(4, 3, start, shard or streams.Shard())
        )
        return list(data.take(count).as_numpy_iterator())

    def assert_same(left, right):
        tf.nest.map_structure(np.testing.assert_array_equal, left, right)

    batches = take(0, 4)
    assert_same(batches[2:], take(2, 2))
    halves = [take(3, 1, streams.Shard(index, 2)) for index in range(2)]
    assert_same(
        batches[3:],
        tf.nest.map_structure(lambda *t: np.concatenate(t), *halves),
    )
    # Five frames, but in every epoch they are changed otherwise.
    clouds = np.concatenate([inputs["points"] for inputs, _ in batches])
    clouds = [cloud.tobytes() for cloud in clouds if cloud.any()]
    assert len({*clouds}) == len(clouds) > 5


def test_without_augmentation_frames_stay(data_dir, tmp_path):
    run = _run(data_dir, tmp_path, augmented=False, pasted_objects=0)
    trainer = waymo.Waymo()
    data = trainer.training_data(run, streams.Reading(2, 3)).take(1)
    ((inputs, targets),) = data.as_numpy_iterator()
    for points, found in zip(inputs["points"], targets["class"]):
        number = round(points[:, 3].max())
        expected = frames.example(number, _BOXES[: number % 3])
        kept = {tuple(p) for p in points if p.any()}
        assert kept == {tuple(p) for p in expected["points"]}
        assert bool(np.nansum(found)) == bool(number % 3)


def test_the_rate_rises_then_falls_as_a_cosine(data_dir, tmp_path):
    run = _run(
        data_dir, tmp_path, "baseline", steps=1_280_000, ramp_steps=1_000
    )
    model = waymo.Waymo().build(run)
    halfway = 1_000 + (1_280_000 - 1_000) / 2
    expected = {0: 0, 500: 0.00075, 1_000: 0.0015, halfway: 0.00075}
    for step, value in {**expected, 1_280_000: 0}.items():
        model.optimizer.iterations.assign(round(step))
        rate = float(model.optimizer.learning_rate)
        assert rate == pytest.approx(value, abs=1e-8)
    assert model.optimizer.beta_1 == 0.9
    assert model.optimizer.beta_2 == 0.999


@pytest.mark.parametrize(
    ("method", "norm"), [("graddrop", 1.0), ("graddrop+clip(0.3)", 0.3)]
)
def test_every_run_clips(method, norm, data_dir, tmp_path):
    run = _run(data_dir, tmp_path, method)
    model = waymo.Waymo().build(run)
    assert model.recipe.global_clipnorm == norm


@pytest.mark.parametrize(
    "values",
    [
        {"preset": "large"},
        {"ap_rule": "2021"},
        {"ramp_steps": 4},
        {"pasted_objects": -1},
        {"loss_chunk_size": -1},
        {"batch_norm_momentum": 1.0},
        {"clip_norm": 0.0},
    ],
)
def test_values_that_make_no_sense_are_refused(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"{name}: got"):
        small_runs.small_config("waymo", **values)


def test_what_cannot_be_run_is_said_in_a_line(data_dir, tmp_path):
    with pytest.raises(prepared.DataError, match="there is no split 'valid'"):
        execution.check(_run(data_dir, tmp_path, evaluation_split="valid"))
    with pytest.raises(prepared.DataError, match="launch.prepare_waymo"):
        execution.check(_run(data_dir, tmp_path, dataset="waymo_lidar"))
    run = _run(data_dir, tmp_path / "none", training_split="train[:1]")
    with pytest.raises(errors.UserError, match="no box with 6 points"):
        small_runs.finish(run)


def test_damaged_data_are_named(data_dir, tmp_path):
    copy = tmp_path / "data"
    for path in data_dir.glob(f"{frames.NAME}/1.0.0/*"):
        target = copy / path.relative_to(data_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        if "-train." in path.name:
            # In the last record.
            content = content[:-40] + bytes(20) + content[-20:]
        target.write_bytes(content)
    with pytest.raises(prepared.DataError, match=r"train.*: record 4 cannot"):
        waymo.Waymo().check_data(_run(copy, tmp_path / "run"))


def test_the_papers_methods_are_written_as_recipes_are_shown():
    for column in waymo.Waymo.table[:4]:
        assert len(column.paper) == 8
        for method in column.paper:
            assert str(gd.Recipe.parse(method)) == method


@pytest.mark.parametrize(
    ("changes", "published"),
    [
        ({"ap_rule": "2020"}, True),
        ({}, False),
        ({"ap_rule": "2020", "preset": "small"}, False),
        ({"ap_rule": "2020", "dataset": "kitti_lidar"}, False),
    ],
)
def test_the_papers_numbers_are_of_its_data_and_rule(changes, published):
    config = dataclasses.asdict(waymo.Waymo.defaults) | changes
    assert waymo.Waymo().is_published(config) is published


def test_the_report_shows_curves_and_a_frame(whole):
    root = whole.directory.parent
    assert "3D AP, IoU 0.5" in report.create(root, registry.EXPERIMENTS)
    for name in ("ap_3d", "ap_3d_iou_50", "final", "frame_0"):
        assert (root / "plots" / f"waymo_{name}.png").exists()


def _evaluate(capsys, *arguments):
    code = command.guarded(evaluate.main, arguments)
    return code, capsys.readouterr()


def test_a_run_is_evaluated_and_drawn(whole, data_dir, tmp_path, capsys):
    numbers = tmp_path / "numbers.json"
    code, printed = _evaluate(
        capsys,
        f"--run_dir={whole.directory}",
        f"--data_dir={data_dir}",
        f"--json={numbers}",
        f"--plots={tmp_path / 'plots'}",
        "--draw=2",
    )
    assert code == 0
    lines = printed.out.splitlines()
    assert lines[0] == f"{whole.directory}: step 4"
    # Of the three test frames the first and the last have boxes.
    assert lines[1].startswith("3 frames, ")
    assert ", 3 ground-truth boxes (0 more hold no lidar point)" in lines[1]
    rows = [line.split()[0] for line in lines if "_TYPE_" in line]
    # The boxes are near: two levels, and their nearest range.
    assert len(rows) == 4 and all("_VEHICLE_" in row for row in rows)
    assert "VEHICLE LEVEL_1: nothing found (" in printed.out
    for index in range(2):
        picture = tmp_path / "plots" / f"frame_{index}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "plots" / "frame_2.png").exists()
    found = json.loads(numbers.read_text())
    for name, level in (("ap_3d", 1), ("ap_3d_level_2", 2)):
        expected = whole.results["metrics"][name] / 100
        row = found[f"OBJECT_TYPE_TYPE_VEHICLE_LEVEL_{level}"]
        assert row["ap"] == pytest.approx(expected, abs=1e-6)


def test_levels_may_follow_the_number_of_points(
    whole, data_dir, tmp_path, capsys
):
    arguments = [f"--run_dir={whole.directory}", f"--data_dir={data_dir}"]
    _, printed = _evaluate(capsys, *arguments, "--min_points=9")
    assert "VEHICLE LEVEL_1" in printed.out
    (line,) = (
        text
        for text in printed.out.splitlines()
        if text.startswith("VEHICLE LEVEL_1")
    )
    # All boxes hold eight points.
    assert ", 0 missed)" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run_dir={tmp}"], "holds no run of the experiment waymo"),
        (["--run_dir={tmp}", "--predictions=a.npz"], "does not go with"),
        (
            ["--predictions=a.npz", "--ground_truths=a.npz", "--draw=1"],
            "--draw: belongs to --run_dir",
        ),
        (["--run_dir={run}", "--data_dir={tmp}"], "is not prepared in"),
        (
            ["--run_dir={run}", "--data_dir={data}", "--split=val"],
            "there is no split 'val'",
        ),
        (
            ["--run_dir={run}", "--vehicle_iou=0.5", "--official_python=p"],
            "--vehicle_iou: got 0.5",
        ),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments, message, whole, data_dir, tmp_path, refused
):
    places = {"tmp": tmp_path, "run": whole.directory, "data": data_dir}
    texts = [text.format(**places) for text in arguments]
    refused(evaluate.main, texts, [message])


def test_a_run_without_a_checkpoint_is_told(whole, data_dir, tmp_path, refused):
    files.write_json(
        tmp_path / "config.json",
        json.loads((whole.directory / "config.json").read_text()),
    )
    arguments = [f"--run_dir={tmp_path}", f"--data_dir={data_dir}"]
    refused(evaluate.main, arguments, ["holds no checkpoint"])
