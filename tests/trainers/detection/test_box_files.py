import sys

import numpy as np
import pytest

from tests.trainers.detection import waymo
from trainers import errors
from trainers.detection import box_files

_BOX = dict(
    center_x=1.0, center_y=2.0, center_z=3.0,
    length=4.0, width=5.0, height=6.0, heading=0.5,
)  # fmt: skip
_SCENE = waymo.ORACLE / "all_types.npz"


def _write(path, *records):
    """Writes an `Objects` file; records are fields of objects and labels."""
    message = waymo.messages().Objects()
    for record in records:
        added = message.objects.add(**record.get("object", {}))
        for name, value in record.get("label", {}).items():
            setattr(added.object, name, value)
        for name, value in record.get("box", _BOX).items():
            setattr(added.object.box, name, value)
    path.write_bytes(message.SerializeToString())
    return path


def test_reads_objects_as_the_official_tool_does(tmp_path):
    first = dict(context_name="a", frame_timestamp_micros=7)
    predictions = _write(
        tmp_path / "predictions.bin",
        dict(
            object=dict(score=0.25, overlap_with_nlz=True, **first),
            label=dict(type=2),
        ),
        dict(
            object=dict(score=0.75, context_name="b", frame_timestamp_micros=7),
            label=dict(type=1),
        ),
    )
    points = "num_lidar_points_in_box"
    level = "detection_difficulty_level"
    truths = _write(
        tmp_path / "truths.bin",
        dict(label={"type": 1, points: 0}, object=first),
        dict(label={"type": 1, points: 5}, object=first),
        dict(label={"type": 2, points: 6}, object=first),
        dict(label={"type": 3, points: 1, level: 1}, object=first),
        dict(label={"type": 4, points: 9, level: 2}, object=first),
        dict(label={"type": 1}, object=first),
        dict(
            label={"type": 1, points: 9},
            object=dict(context_name="a", frame_timestamp_micros=8),
        ),
    )
    found = box_files.read(predictions, truths)
    assert found.num_left_out == 2
    assert found.predictions.type.tolist() == [2, 1]
    assert found.predictions.score.tolist() == [0.25, 0.75]
    assert found.predictions.overlap_nlz.tolist() == [True, False]
    np.testing.assert_array_equal(
        found.predictions.bbox[1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5]
    )
    assert found.ground_truths.type.tolist() == [1, 2, 3, 4, 1]
    assert found.ground_truths.difficulty.tolist() == [2, 1, 1, 2, 1]
    frames = {
        kind: [found.frames[frame] for frame in values.frame_id]
        for kind, values in found._asdict().items()
        if kind in ("predictions", "ground_truths")
    }
    assert frames["predictions"] == [("a", 7, 0), ("b", 7, 0)]
    assert frames["ground_truths"] == [("a", 7, 0)] * 4 + [("a", 8, 0)]


def test_cameras_are_frames_of_their_own(tmp_path):
    path = _write(
        tmp_path / "x.bin",
        dict(object=dict(camera_name=1)),
        dict(object=dict(camera_name=2)),
    )
    assert len(set(box_files.read(path, _SCENE).predictions.frame_id)) == 2


def test_reads_the_arguments_of_the_official_op():
    predictions, ground_truths, _ = waymo.load("all_types")
    found = box_files.read(_SCENE, _SCENE)
    for values, expected in (
        (found.predictions, predictions),
        (found.ground_truths, ground_truths),
    ):
        for field in values._fields[1:]:
            np.testing.assert_array_equal(
                getattr(values, field), getattr(expected, field)
            )
        stamps = [
            found.frames[i].frame_timestamp_micros for i in values.frame_id
        ]
        np.testing.assert_array_equal(stamps, expected.frame_id)
    assert len(found.frames) == len(set(found.frames)) == 8
    assert found.num_left_out == 0


def test_predictions_return_from_both_kinds_of_files(tmp_path):
    waymo.messages()
    found = box_files.read(_SCENE, _SCENE)
    box_files.write_predictions(
        tmp_path / "a.bin", found.predictions, found.frames
    )
    box_files.write_arguments(
        tmp_path / "a.npz", found.predictions, found.ground_truths
    )
    for name in ("a.bin", "a.npz"):
        again = box_files.read(tmp_path / name, _SCENE)
        expected = [found.frames[i] for i in found.predictions.frame_id]
        assert [again.frames[i] for i in again.predictions.frame_id] == (
            expected if name == "a.bin" else _numbered(found)
        )
        for field in again.predictions._fields[1:]:
            np.testing.assert_array_equal(
                getattr(again.predictions, field),
                getattr(found.predictions, field),
            )
    assert not list(tmp_path.glob("*.tmp"))


def _numbered(scenes):
    return [box_files.Frame("", i) for i in scenes.predictions.frame_id]


def test_flat_boxes_are_written_flat(tmp_path):
    messages = waymo.messages()
    predictions = waymo.predictions([[1.0, 2.0, 3.0, 4.0, 0.5]], 0.5)
    path = tmp_path / "flat.bin"
    box_files.write_predictions(path, predictions, [box_files.Frame("a", 5)])
    (found,) = messages.Objects.FromString(path.read_bytes()).objects
    assert (found.context_name, found.frame_timestamp_micros) == ("a", 5)
    box = found.object.box
    assert not box.HasField("center_z")
    assert not box.HasField("height")
    assert (box.center_x, box.center_y) == (1.0, 2.0)
    assert (box.length, box.width, box.heading) == (3.0, 4.0, 0.5)


def test_the_official_op_is_given_no_neighbours(tmp_path):
    found = box_files.read(_SCENE, _SCENE)
    types = found.ground_truths.type.copy()
    types[:3] = -1
    path = tmp_path / "a.npz"
    box_files.write_arguments(
        path, found.predictions, found.ground_truths._replace(type=types)
    )
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["ground_truth_type"], types[3:])
        assert len(archive["ground_truth_bbox"]) == len(types) - 3


def test_arguments_have_the_dtypes_of_the_official_op(tmp_path):
    found = box_files.read(_SCENE, _SCENE)
    path = tmp_path / "a.npz"
    box_files.write_arguments(path, found.predictions, found.ground_truths)
    with np.load(path) as archive:
        assert {name: values.dtype for name, values in archive.items()} == {
            "prediction_frame_id": np.int64,
            "prediction_bbox": np.float32,
            "prediction_type": np.uint8,
            "prediction_score": np.float32,
            "prediction_overlap_nlz": np.bool_,
            "ground_truth_frame_id": np.int64,
            "ground_truth_bbox": np.float32,
            "ground_truth_type": np.uint8,
            "ground_truth_difficulty": np.uint8,
        }


def _cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def _damage(kind, path):
    with np.load(_SCENE) as archive:
        arrays = {name: archive[name] for name in archive if name[0] == "p"}
    if kind == "incomplete":
        del arrays["prediction_score"], arrays["prediction_type"]
    elif kind == "nan":
        arrays["prediction_bbox"][17, 6] = np.nan
    elif kind == "shape":
        arrays["prediction_bbox"] = arrays["prediction_bbox"][:, :6]
    np.savez(path, **arrays)
    if kind == "cut":
        _cut(path, 0.6)
    elif kind == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif kind == "text":
        path.write_text("frame,score\n")
    elif kind in ("missing", "folder"):
        path.unlink()
    if kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("cut", ["is a damaged .npz file", "copy it again"]),
        ("text", ["is a damaged .npz file"]),
        ("flipped", ["is a damaged .npz file"]),
        ("incomplete", ["got no prediction_type, prediction_score"]),
        ("nan", ["prediction_bbox[17]: got [", "nan]", "finite"]),
        ("shape", ["prediction_bbox: got shape (355, 6)", "(355, 7)"]),
        ("missing", ["No such file"]),
        ("folder", ["Is a directory"]),
    ],
)
def test_damaged_arguments_are_named(kind, parts, tmp_path):
    path = tmp_path / "damaged.npz"
    _damage(kind, path)
    with pytest.raises(errors.UserError) as raised:
        box_files.read(path, _SCENE)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("records", "parts"),
    [
        (None, ["is a damaged `Objects` message", "copy it again"]),
        ([], ["holds no objects"]),
        ([{}, {}, {"box": {}}], ["objects[2]: got no box"]),
        (
            [{}, {"box": {**_BOX, "width": float("nan")}}],
            ["ground_truth_bbox[1]: got [1.0, 2.0, 3.0, 4.0, nan, 6.0, 0.5]"],
        ),
    ],
)
def test_damaged_objects_are_named(records, parts, tmp_path):
    path = _write(
        tmp_path / "damaged.bin", *([{}, {}] if records is None else records)
    )
    if records is None:
        _cut(path, 0.7)
    with pytest.raises(errors.UserError) as raised:
        box_files.read(_SCENE, path)
    assert str(raised.value).startswith(f"{path}: ")
    for part in parts:
        assert part in str(raised.value)


def test_a_detector_may_have_found_nothing(tmp_path):
    found = box_files.read(_write(tmp_path / "nothing.bin"), _SCENE)
    assert found.predictions.bbox.shape == (0, 7)
    assert len(found.ground_truths.type) > 0


def test_other_endings_are_refused(tmp_path):
    path = tmp_path / "predictions.json"
    with pytest.raises(errors.UserError, match=r"\.bin .* or \.npz"):
        box_files.read(path, _SCENE)


def test_without_the_official_package_one_line_says_so(tmp_path, monkeypatch):
    # None in `sys.modules` makes the import fail.
    monkeypatch.setitem(sys.modules, "waymo_open_dataset.protos", None)
    path = tmp_path / "x.bin"
    path.write_bytes(b"")
    with pytest.raises(errors.UserError, match=r"make setup.*\.npz"):
        box_files.read(path, _SCENE)
    box_files.read(_SCENE, _SCENE)
