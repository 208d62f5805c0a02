"""Tables of labels, with what users write in them."""

import re

import pytest

from data import prepared
from data.photos import csv_files
from data.photos.table import Split
from tests.data.photos.drawn import draw_several, write_csv

NAMES = ["a.png", "b.png", "sub/c.png", "d.png"]


@pytest.fixture
def images(tmp_path):
    draw_several(tmp_path / "photos", NAMES)
    return tmp_path / "photos"


def read(images, *lines, split=None, **options):
    path = write_csv(images.parent / "labels.csv", *lines)
    return csv_files.read(path, images, split or Split(), **options)


def labels(table):
    return {photo.name: photo.labels for photo in table.photos}


def test_attributes_in_every_spelling(images):
    table = read(
        images,
        "file,red,big",
        "a.png,1,-1",
        "b.png,0,",
        "sub/c.png,TRUE,false",
        "d.png, yes ,No",
    )
    assert table.attributes == ("red", "big")
    assert table.classes == ()
    assert labels(table) == {
        "a.png": (1, 0),
        "b.png": (0, -1),
        "sub/c.png": (1, 0),
        "d.png": (1, 0),
    }
    assert table.photos[2].path == images / "sub" / "c.png"
    assert table.bad == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_the_mark_of_a_spreadsheet(images, delimiter):
    lines = ["\ufefffile,red", "a.png,1", "", "b.png,0"]
    table = read(images, *(line.replace(",", delimiter) for line in lines))
    assert labels(table) == {"a.png": (1,), "b.png": (0,)}


def test_some_columns_alone(images):
    lines = ["file,red,age,big", "a.png,1,33,0", "b.png,0,41,1"]
    table = read(images, *lines, attributes=["big"])
    assert labels(table) == {"a.png": (0,), "b.png": (1,)}
    with pytest.raises(
        prepared.DataError, match="row 2: the column 'age' is no .* got '33'"
    ):
        read(images, *lines)


def test_a_single_column_of_words_is_a_class(images):
    table = read(images, "file,kind", "a.png,dog", "b.png,cat", "d.png,dog")
    assert table.classes == ("cat", "dog")
    assert table.attributes == ()
    assert labels(table) == {"a.png": (1,), "b.png": (0,), "d.png": (1,)}


def test_a_class_can_be_named(images):
    table = read(
        images,
        "file,red,kind",
        "a.png,1,0",
        "b.png,0,1",
        class_column="kind",
    )
    assert table.classes == ("0", "1")


def test_the_split_is_a_column(images):
    table = read(
        images,
        "file,red,part",
        "a.png,1,train",
        "b.png,0,Test",
        "d.png,0,train",
        split=Split("part"),
    )
    assert [photo.split for photo in table.photos] == ["train", "test", "train"]
    assert table.attributes == ("red",)


def test_the_split_is_drawn(images):
    lines = ["file,red", *(f"{name},1" for name in NAMES), "x.png,0"]
    splits = [
        [photo.split for photo in read(images, *lines, split=split).photos]
        for split in (Split(seed=0), Split(seed=0), Split(test_share=0.5))
    ]
    assert splits[0] == splits[1]
    assert splits[0].count("test") == 1
    assert splits[2].count("test") == 2
    drawn = {
        tuple(
            photo.split
            for photo in read(images, *lines, split=Split(seed=seed)).photos
        )
        for seed in range(20)
    }
    assert len(drawn) == len(NAMES)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x.png,1,0,train", "row 3: there is no file .*x.png"),
        (",1,0,train", "row 3: there is no file"),
        ("sub,1,0,train", "row 3: there is no file"),
        ("a.png,1,0,train", "row 3: a.png was named before, in .*row 2"),
        ("d.png,1,2,train", "row 3: big: got '2', expected 0, 1"),
        ("d.png,1,0", "row 3: got 3 cells, expected 4"),
        ("d.png,1,0,train,5", "row 3: got 5 cells, expected 4"),
        ("d.png,1,0,", "row 3: part: got '', expected the name of a split"),
        ("d.png,1,0,1", "row 3: part: got '1', expected the name"),
    ],
)
def test_a_bad_row_is_named(images, row, message):
    table = read(
        images,
        "file,red,big,part",
        "a.png,1,0,train",
        row,
        "b.png,0,1,test",
        split=Split("part"),
    )
    assert [photo.name for photo in table.photos] == ["a.png", "b.png"]
    (bad,) = table.bad
    assert re.search(message, bad)


def test_a_row_without_a_class_is_bad(images):
    table = read(images, "file,kind", "a.png,dog", "b.png,", "d.png,cat")
    assert table.bad == (
        f"{images.parent / 'labels.csv'}: row 3: kind: got nothing, expected "
        "a class.",
    )


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["file,red"], {}, "expected a line with the names"),
        (["file", "a.png"], {}, "expected a line with the names"),
        (["file,red,red", "a.png,1,0"], {}, "row 1: .*different name"),
        (["file,red,", "a.png,1,0"], {}, "row 1: .*different name"),
        (["file,red", "a.png,"], {}, "'red' is empty"),
        (["file,a/b,c", "a.png,1,0"], {}, "without a slash"),
        (["file,kind", "a.png,dog", "b.png,dog"], {}, "names 1 classes"),
        (["file,red", "a.png,1"], {"attributes": ["blue"]}, "no column 'blue'"),
        (["file,red", "a.png,1"], {"class_column": "x"}, "no column 'x'"),
        (["file,red", "a.png,1"], {"split": Split("x")}, "no column 'x'"),
        (["file,x", "a.png,1"], {"split": Split("x")}, "no column with labels"),
        (["file,red", "a.png,1"], {}, "got 1 photos"),
        (["file,red", 'a.png,"1'], {}, "cannot be read as a CSV file"),
    ],
)
def test_a_table_that_cannot_be_used(images, lines, options, message):
    with pytest.raises(prepared.DataError, match=message) as caught:
        read(images, *lines, **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_table(images):
    with pytest.raises(prepared.DataError, match="cannot be read as a CSV"):
        csv_files.read(images / "a.png", images, Split())
    with pytest.raises(prepared.DataError, match="No such file"):
        csv_files.read(images / "nothing.csv", images, Split())
