import shutil

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data import prepared
from tests.data import image_sets

_NAMES = ["hat", "beard"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    splits = {
        "train": image_sets.with_attributes(7, _NAMES),
        "test": image_sets.with_attributes(3, _NAMES, seed=1),
    }
    image_sets.prepare_with_attributes(
        directory, "faces", _NAMES, splits, num_shards=2
    )
    return directory


@pytest.fixture
def damaged(data_dir, tmp_path):
    """A copy that a test may damage, and its training files."""
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "faces" / "1.0.0"
    return tmp_path, sorted(folder.glob("faces-train.tfrecord*"))


def _first_pixels(dataset, records):
    return sorted(
        int(dataset.parse(record)["image"][0, 0, 0]) for record in records
    )


def test_records_are_those_of_the_split(data_dir):
    dataset = prepared.open_set("faces", data_dir)
    expected = [
        int(example["image"][0, 0, 0])
        for example in image_sets.with_attributes(7, _NAMES)
    ]
    assert _first_pixels(dataset, dataset.records("train")) == sorted(expected)
    assert dataset.num_examples("train") == 7
    assert dataset.num_examples("train[:4]") == 4
    parts = [
        _first_pixels(dataset, dataset.records(f"train[{part}]"))
        for part in (":3", "3:")
    ]
    assert sorted(parts[0] + parts[1]) == sorted(expected)
    dataset.check("train")


def test_the_newest_version_is_read(data_dir, damaged):
    root, _ = damaged
    for version in ("1.0.9", "1.0.10"):
        folder = root / "faces" / version
        shutil.copytree(root / "faces" / "1.0.0", folder)
        info = folder / "dataset_info.json"
        info.write_text(info.read_text().replace("1.0.0", version))
    found = prepared.open_set("faces", root).builder.info.version
    assert str(found) == "1.0.10"


def test_what_is_not_there_is_said_in_one_line(data_dir, monkeypatch):
    dataset = prepared.open_set("faces", data_dir)
    with pytest.raises(prepared.DataError, match="no split 'valid', expected"):
        dataset.num_examples("valid")
    with pytest.raises(prepared.DataError, match="'train.:0.' holds no exam"):
        dataset.records("train[:0]")

    def refuse(name, **options):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(tfds, "builder", refuse)
    with pytest.raises(prepared.DataError) as caught:
        prepared.open_set("celeb_a", data_dir)
    text = str(caught.value)
    assert f"celeb_a is not prepared in {data_dir}" in text
    assert "no network" in text and "\n" not in text


@pytest.mark.parametrize("spoil", ["cut", "flip", "shorten", "remove"])
def test_a_damaged_file_is_named(damaged, spoil):
    root, files = damaged
    content = files[1].read_bytes()
    if spoil == "cut":
        files[1].write_bytes(content[:-5])
    elif spoil == "flip":
        middle = len(content) // 2
        files[1].write_bytes(
            content[:middle]
            + bytes([content[middle] ^ 1])
            + content[middle + 1 :]
        )
    elif spoil == "shorten":
        # A record is its length (8), checksum (4), data, checksum (4).
        length = 16 + int.from_bytes(content[:8], "little")
        files[1].write_bytes(content[:length])
    else:
        files[1].unlink()
    dataset = prepared.open_set("faces", root)
    with pytest.raises(prepared.DataError) as caught:
        dataset.check("train")
    text = str(caught.value)
    assert str(files[1]) in text and "\n" not in text
    assert {
        "cut": "record 2",
        "flip": "record 1",
        "shorten": "got 1 records, expected 3",
        "remove": "is missing",
    }[spoil] in text


def test_a_file_cut_between_records_stops_the_reading(damaged):
    root, files = damaged
    content = files[0].read_bytes()
    files[0].write_bytes(content[: 16 + int.from_bytes(content[:8], "little")])
    dataset = prepared.open_set("faces", root)
    with pytest.raises(tf.errors.FailedPreconditionError, match="only 4"):
        list(dataset.records("train"))


@pytest.mark.parametrize("spoil", ["features.json", "dataset_info.json"])
def test_damaged_metadata_are_said_in_one_line(damaged, spoil):
    root, _ = damaged
    (root / "faces" / "1.0.0" / spoil).write_text("{")
    with pytest.raises(prepared.DataError, match="holds no data set that can"):
        prepared.open_set("faces", root)


def test_a_file_in_place_of_a_folder_is_said_in_one_line(tmp_path):
    (tmp_path / "faces").write_text("")
    with pytest.raises(prepared.DataError, match="faces"):
        prepared.open_set("faces", tmp_path)
