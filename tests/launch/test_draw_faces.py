import io

import pytest
from PIL import Image

from data.drawn_faces import examples
from launch import command, draw_faces

_SMALL = ["--num_train=2", "--num_validation=1", "--num_test=1", "--seed=3"]


def test_faces_and_a_picture_of_them(tmp_path, capsys):
    picture = tmp_path / "pictures" / "grid.png"
    arguments = [*_SMALL, f"--data_dir={tmp_path}/data", f"--grid={picture}"]
    assert command.guarded(draw_faces.main, arguments) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "data" / "drawn_faces" / "1.0.0"
    assert f"{folder}: 2 train, 1 validation, 1 test faces of seed 3" in printed
    assert "ownload" not in printed
    assert [path.name for path in (tmp_path / "data").iterdir()] == [
        "drawn_faces"
    ]
    grid = Image.open(io.BytesIO(picture.read_bytes()))
    assert grid.format == "PNG"
    first = Image.fromarray(examples.draw_example(3, "train", 0)["image"])
    small = first.resize((10, 10), Image.Resampling.BOX)
    shown = (
        grid.convert("RGB")
        .crop((3, 3, 104, 127))
        .resize((10, 10), Image.Resampling.BOX)
    )
    for ours, theirs in zip(small.getdata(), shown.getdata()):
        assert all(abs(a - b) < 30 for a, b in zip(ours, theirs))


def test_another_size_is_one_line(tmp_path, capsys, refused):
    where = f"--data_dir={tmp_path}"
    assert command.guarded(draw_faces.main, [*_SMALL, where]) == 0
    capsys.readouterr()
    parts = ["holds 2 train", "expected 4,000 train"]
    refused(draw_faces.main, [where], parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--data_dir", "--help"]),
        (["--data_dir=x", "--num_train=0"], ["num_train", "0"]),
        (["--data_dir=x", "--seed=-1"], ["seed", "-1"]),
        (["--data_dir=x", "stray"], ["'stray'", "flags only"]),
        (["--data_dir=x", "--config.steps=1"], ["steps", "flags only"]),
    ],
)
def test_mistakes_are_one_line(arguments, parts, refused):
    refused(draw_faces.main, arguments, parts)


def test_help_tells_the_defaults(capsys):
    assert command.guarded(draw_faces.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "4000" in printed and "--grid" in printed
