"""A folder for each class, with splits or without."""

import pytest

from data import prepared
from data.photos import folders
from data.photos.table import Split
from tests.data.photos.drawn import draw_several


def test_each_folder_is_a_class(tmp_path):
    draw_several(tmp_path, ["dog/a.png", "dog/more/b.JPG", "cat/c.png"])
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "cat" / ".hidden.png").write_text("")
    (tmp_path / ".git").mkdir()
    table = folders.read(tmp_path, Split(test_share=0.4))
    assert table.classes == ("cat", "dog")
    assert {p.name: p.labels for p in table.photos} == {
        "cat/c.png": (0,),
        "dog/a.png": (1,),
        "dog/more/b.JPG": (1,),
    }
    assert sorted(p.split for p in table.photos) == ["test", "train", "train"]
    assert table.ignored == ("cat/notes.txt",)


def test_folders_of_splits(tmp_path):
    draw_several(
        tmp_path,
        [
            "train/dog/a.png",
            "train/cat/b.png",
            "val/dog/c.png",
            "test/cat/d.png",
        ],
    )
    table = folders.read(tmp_path, Split())
    assert table.classes == ("cat", "dog")
    assert {(p.name, p.labels, p.split) for p in table.photos} == {
        ("train/dog/a.png", (1,), "train"),
        ("train/cat/b.png", (0,), "train"),
        ("val/dog/c.png", (1,), "validation"),
        ("test/cat/d.png", (0,), "test"),
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got 0 folders"),
        (["a.png"], "got 0 folders"),
        (["dog/a.png", "b.png"], "got 1 folders"),
        (["dog/a.png", "cat/b.png", "cow/notes.txt"], "no photos in cow"),
    ],
)
def test_too_few_classes(tmp_path, names, message):
    draw_several(tmp_path, [n for n in names if n.endswith(".png")])
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(prepared.DataError, match=message):
        folders.read(tmp_path, Split())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(prepared.DataError, match="No such file"):
        folders.read(tmp_path / "nothing", Split())
