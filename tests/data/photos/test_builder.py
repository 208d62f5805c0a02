"""The prepared data set, and what an interruption leaves of it."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import prepared
from data.photos import builder, csv_files, folders, pixels
from data.photos.table import Split
from tests.data.photos.drawn import draw, draw_several, write_csv

NAMES = [f"{i}.png" for i in range(11)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(builder, "PER_SHARD", 4)


@pytest.fixture
def images(tmp_path):
    draw_several(tmp_path / "photos", NAMES)
    return tmp_path / "photos"


def attributes_of(images, changes=()):
    """Rows `red`, `big` of each image: its number's last two bits."""
    values = {
        name: ["no,no", "no,", ",yes", "yes,yes"][i % 4]
        for i, name in enumerate(NAMES)
    } | dict(changes)
    lines = ["file,red,big", *(f"{n},{v}" for n, v in values.items())]
    path = write_csv(images.parent / "labels.csv", *lines)
    return csv_files.read(path, images, Split(test_share=0.2))


def prepare(images, tmp_path, reports=None, table=None, **options):
    return builder.prepare(
        table or attributes_of(images),
        tmp_path / "sets",
        "mine",
        report=(reports if reports is not None else []).append,
        **options,
    )


def examples(tmp_path, split):
    dataset = prepared.open_set("mine", tmp_path / "sets")
    found = dataset.records(split).map(dataset.parse)
    return {e["file"].decode(): e for e in found.as_numpy_iterator()}


def test_images_and_attributes_are_those_of_the_table(images, tmp_path):
    contents = prepare(images, tmp_path)
    assert contents.num_examples == {"test": 2, "train": 9}
    assert contents.directory == tmp_path / "sets" / "mine" / "1.0.0"
    found = examples(tmp_path, "train") | examples(tmp_path, "test")
    assert sorted(found) == sorted(NAMES)
    for i, name in enumerate(NAMES):
        expected = [(0, 0), (0, -1), (-1, 1), (1, 1)][i % 4]
        labels = found[name]["attributes"]
        assert (labels["red"], labels["big"]) == expected
        np.testing.assert_array_equal(
            found[name]["image"], pixels.decoded(images / name)
        )
    # Three shards of train, which TFDS reads as well.
    assert len(list(contents.directory.glob("*train*"))) == 3
    known = tfds.builder_from_directory(contents.directory)
    assert known.info.splits["train"].num_examples == 9
    assert [p.name for p in contents.directory.parent.iterdir()] == ["1.0.0"]


def test_classes_become_labels(tmp_path):
    draw_several(tmp_path / "photos", ["a/1.png", "a/2.jpg", "b/3.png"])
    table = folders.read(tmp_path / "photos", Split())
    prepare(None, tmp_path, table=table)
    features = prepared.open_set("mine", tmp_path / "sets").features
    assert features["label"].names == ["a", "b"]
    found = examples(tmp_path, "train") | examples(tmp_path, "test")
    labels = {name: int(example["label"]) for name, example in found.items()}
    assert labels == {"a/1.png": 0, "a/2.jpg": 0, "b/3.png": 1}


def test_what_cannot_be_read_is_named_or_left_out(images, tmp_path):
    (images / "3.png").write_text("no image")
    table = attributes_of(images, {"5.png": "yes,5", "x.png": "no,no"})
    reports = []
    with pytest.raises(prepared.DataError, match="3 of 12 .*by --skip_bad"):
        prepare(images, tmp_path, reports, table)
    labels = images.parent / "labels.csv"
    assert reports == [
        f"bad row: {labels}: row 7: big: got '5', expected 0, 1, -1, true, "
        "false, yes, no or nothing.",
        f"bad row: {labels}: row 13: there is no file {images / 'x.png'}.",
        f"bad file: {labels}: row 5: {images / '3.png'}: cannot be read as an "
        "image (in no known format).",
    ]
    assert not (tmp_path / "sets" / "mine" / "1.0.0").exists()
    contents = prepare(images, tmp_path, table=table, skip_bad=True)
    assert len(contents.bad) == 3
    found = examples(tmp_path, "train") | examples(tmp_path, "test")
    assert sorted(found) == sorted({*NAMES} - {"3.png", "5.png"})


def test_many_bad_files_are_not_all_listed(images, tmp_path):
    rows = {f"x{i}.png": "no,no" for i in range(30)}
    reports = []
    table = attributes_of(images, rows)
    prepare(images, tmp_path, reports, table, skip_bad=True)
    assert len(reports) == 21
    assert reports[-1] == "bad row: 10 more"


def test_a_mended_file_is_read_again(images, tmp_path):
    (images / "3.png").write_text("no image")
    with pytest.raises(prepared.DataError):
        prepare(images, tmp_path)
    draw(images / "3.png")
    assert sum(prepare(images, tmp_path).num_examples.values()) == len(NAMES)


@pytest.mark.parametrize("at", ["within", "after"])
def test_it_goes_on_where_it_was_interrupted(images, tmp_path, monkeypatch, at):
    read = []
    encoded = pixels.encoded

    def interrupted(path):
        read.append(path.name)
        if at == "within" and len(read) == 7:
            raise KeyboardInterrupt
        return encoded(path)

    def interrupted_rename(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "encoded", interrupted)
        if at == "after":
            patch.setattr(os, "rename", interrupted_rename)
        with pytest.raises(KeyboardInterrupt):
            prepare(images, tmp_path, num_threads=1)
    assert not (tmp_path / "sets" / "mine" / "1.0.0").exists()
    left = tmp_path / "sets" / "mine" / "unfinished-1.0.0"
    assert not list(left.rglob("*.tmp"))
    again = []
    monkeypatch.setattr(
        pixels, "encoded", lambda path: again.append(path.name) or encoded(path)
    )
    prepare(images, tmp_path, num_threads=1)
    # The shard of test has two images, the first of train three.
    assert len(again) == {"within": len(NAMES) - 2 - 3, "after": 0}[at]
    found = examples(tmp_path, "train") | examples(tmp_path, "test")
    assert sorted(found) == sorted(NAMES)


def test_it_is_there_already(images, tmp_path, monkeypatch):
    first = prepare(images, tmp_path)
    monkeypatch.setattr(pixels, "encoded", None)
    assert prepare(images, tmp_path) == first
    other = attributes_of(images, {"0.png": "yes,yes"})
    with pytest.raises(prepared.DataError, match="holds other photos"):
        prepare(images, tmp_path, table=other)


def test_two_at_a_time_are_refused(images, tmp_path, monkeypatch):
    encoded = pixels.encoded

    def second(path):
        with pytest.raises(prepared.DataError, match="another process"):
            prepare(images, tmp_path)
        return encoded(path)

    monkeypatch.setattr(pixels, "encoded", second)
    prepare(images, tmp_path, num_threads=1)


@pytest.mark.parametrize("name", ["Mine", "my-set", "1st", "", "a/b", "../x"])
def test_names_that_tfds_does_not_take(images, tmp_path, name):
    with pytest.raises(prepared.DataError, match="cannot be the name"):
        builder.prepare(attributes_of(images), tmp_path, name)


def test_a_folder_that_cannot_be_written(images, tmp_path):
    (tmp_path / "sets").write_text("a file")
    with pytest.raises(prepared.DataError, match="cannot be written"):
        prepare(images, tmp_path)
