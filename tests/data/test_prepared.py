import shutil

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data import prepared, streams
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


@pytest.fixture(scope="module")
def many_files(tmp_path_factory):
    """A data set of 33 examples in 11 files, more than are read at once."""
    directory = tmp_path_factory.mktemp("many")
    splits = {"train": image_sets.with_attributes(33, _NAMES)}
    image_sets.prepare_with_attributes(
        directory, "faces", _NAMES, splits, num_shards=11
    )
    return directory


def _bytes(records):
    return list(records.as_numpy_iterator())


@pytest.mark.parametrize("split", ["train", "train[4:30]"])
@pytest.mark.parametrize("seed", [None, [5, 1]])
def test_records_are_left_out_at_the_beginning(many_files, split, seed):
    dataset = prepared.open_set("faces", many_files)
    seed = seed and tf.constant(seed)
    whole = _bytes(dataset.records(split, seed))
    assert len(set(whole)) == len(whole) == dataset.num_examples(split)
    for skipped in range(len(whole)):
        rest = _bytes(dataset.records(split, seed, skipped))
        assert rest == whole[skipped:], skipped


@pytest.mark.parametrize("shuffle_buffer", [4, 40])
def test_the_stream_goes_on_at_any_step(many_files, shuffle_buffer):
    dataset = prepared.open_set("faces", many_files)

    def take(count, start=0, shard=None):
        reading = streams.Reading(6, 5, start, shard or streams.Shard())
        records = dataset.endless_records("train", reading, shuffle_buffer)
        return _bytes(records.take(count))

    # 16 steps of 6 are almost three epochs of 33.
    whole = take(96)
    assert len(set(whole[:33])) == len(set(whole[33:66])) == 33
    for start in 0, 1, 3, 4, 5, 7, 11, 13:
        assert take(18, start) == whole[6 * start : 6 * start + 18]
    for start in 1, 5:
        second = take(6, start, streams.Shard(1, 2))
        first = 6 * start
        assert (
            second
            == whole[first + 3 : first + 6] + whole[first + 9 : first + 12]
        )


@pytest.mark.parametrize("position", [24, 26, 29])
def test_files_before_the_position_are_not_opened(
    many_files, tmp_path, position
):
    shutil.copytree(many_files, tmp_path, dirs_exist_ok=True)
    dataset = prepared.open_set("faces", tmp_path)

    def take(start, count):
        reading = streams.Reading(1, 5, start)
        records = dataset.endless_records("train", reading, shuffle_buffer=4)
        return _bytes(records.take(count))

    whole = take(0, 33)
    before = set(whole[: position // 4 * 4])
    damaged = [
        path
        for path in (tmp_path / "faces" / "1.0.0").glob("*tfrecord*")
        if before.issuperset(_bytes(tf.data.TFRecordDataset(str(path))))
    ]
    # The eight that are read first, at once.
    assert len(damaged) == 8
    for path in damaged:
        path.write_bytes(b"damaged" * 9)
    assert take(position, 33 - position) == whole[position:]
    with pytest.raises(tf.errors.DataLossError):
        take(0, 1)


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
    """At once, without a look at the network."""
    dataset = prepared.open_set("faces", data_dir)
    with pytest.raises(prepared.DataError, match="no split 'valid', expected"):
        dataset.num_examples("valid")
    with pytest.raises(prepared.DataError, match="'train.:0.' holds no exam"):
        dataset.records("train[:0]")

    monkeypatch.setattr(tfds, "builder", None)
    for name, advice in (
        ("celeb_a", "--download"),
        ("imagenet_resized/32x32", "--download"),
        ("my_photos", "copy, or prepare it with launch.prepare_images."),
        ("drawn_faces", "copy, or prepare it with launch.draw_faces."),
        ("kitti_lidar", "copy, or prepare it with launch.prepare_kitti."),
        ("waymo_lidar", "launch.prepare_waymo, from segments of Waymo or of"),
        ("cmu_faces", "a prepared copy."),
        ("imagenet2012", f"archives into {data_dir}/downloads/manual by hand"),
    ):
        with pytest.raises(prepared.DataError) as caught:
            prepared.open_set(name, data_dir)
        text = str(caught.value)
        assert f"{name} is not prepared in {data_dir}" in text
        assert advice in text and "\n" not in text


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
