import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import attribute_sets, prepared, streams
from tests.data import image_sets

_NAMES = ["hat", "beard"]
_TRAIN = image_sets.with_attributes(7, _NAMES)
_TEST = image_sets.with_attributes(5, _NAMES, seed=1)
_SAME = attribute_sets.Shape(image_sets.HEIGHT, image_sets.WIDTH)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    splits = {"train": _TRAIN, "test": _TEST}
    image_sets.prepare_with_attributes(directory, "faces", _NAMES, splits)
    return directory


def _open(data_dir, *labels):
    return attribute_sets.AttributeSet("faces", labels, data_dir)


def _rows(batches, count=None):
    batches = batches if count is None else batches.take(count)
    parts = list(batches.as_numpy_iterator())
    return [np.concatenate(column) for column in zip(*parts)]


def test_attributes_of_every_kind_in_the_order_of_the_labels(data_dir):
    data = _open(data_dir, "pose", "attributes", "eyes", "smiling")
    assert data.names == (
        "pose_left", "pose_right", "pose_up",
        "beard", "hat", "eyes_shut", "smiling",
    )  # fmt: skip
    expected = [
        [
            *(float(example["pose"] == index) for index in range(3)),
            example["attributes"]["beard"],
            example["attributes"]["hat"],
            example["eyes"],
            example["smiling"],
        ]
        for example in _TEST
    ]
    np.testing.assert_array_equal(data.labels("test"), expected)
    _, labels = _rows(data.test_batches("test", _SAME, batch_size=2))
    np.testing.assert_array_equal(labels, expected)


def test_images_are_scaled_to_one(data_dir):
    data = _open(data_dir, "attributes")
    batches = data.test_batches("test", _SAME, batch_size=2)
    images, _ = _rows(batches)
    expected = np.array([example["image"] for example in _TEST]) / 255.0
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert images.dtype == np.float32 and data.channels == 3
    assert [len(x) for x, _ in batches] == [2, 2, 1]


def test_a_square_is_cut_out_of_the_middle_then_resized(data_dir):
    data = _open(data_dir, "attributes")
    shape = attribute_sets.Shape(4, 2, crop=8)
    images, _ = _rows(data.test_batches("test", shape, batch_size=5))
    assert images.shape == (5, 4, 2, 3)
    cut = attribute_sets.Shape(8, 8, crop=8)
    images, _ = _rows(data.test_batches("test", cut, batch_size=5))
    expected = np.array([example["image"][2:10, 4:12] for example in _TEST])
    np.testing.assert_allclose(images, expected / 255.0, atol=1e-6)
    with pytest.raises(prepared.DataError, match="square of 13 .* 12 x 16"):
        data.check_shape(attribute_sets.Shape(4, 4, crop=13))


def test_training_goes_on_at_any_step(data_dir):
    data = _open(data_dir, "attributes")

    def read(start, count, **options):
        batches = data.training_batches(
            "train", _SAME, streams.Reading(2, 5, start, **options)
        )
        return _rows(batches, count)

    images, labels = read(0, 14)
    # 14 batches of 2 are four epochs of 7.
    firsts = sorted(example["image"][0, 0, 0] for example in _TRAIN)
    np.testing.assert_array_equal(
        sorted(np.round(255.0 * images[:, 0, 0, 0])), np.repeat(firsts, 4)
    )
    later, later_labels = read(5, 9)
    np.testing.assert_array_equal(later, images[10:])
    np.testing.assert_array_equal(later_labels, labels[10:])
    second, _ = read(5, 9, shard=streams.Shard(1, 2))
    np.testing.assert_array_equal(second, images[11::2])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("hair", "no feature 'hair' .* eyes .ClassLabel., image .Image."),
        ("image", "no feature 'image'"),
        ("weight", "'weight' holds no attributes"),
    ],
)
def test_another_schema_is_refused(data_dir, label, message):
    with pytest.raises(prepared.DataError, match=message):
        _open(data_dir, label)


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    """Integers of every kind, with a value for each of four images."""
    directory = tmp_path_factory.mktemp("integers")
    columns = {
        "zero_one": [0, 1, 1, 0],
        "minus_one": [-1, 1, -1, 1],
        "three": [0, 1, -1, 1],
        "count": [0, 5, 1, 2],
        "vector": [[0, 1], [1, 1], [0, 0], [1, 0]],
    }
    known = {
        "known": [0, 1, -1, 1],
        "kind": [2, -1, 0, 1],
    }
    kinds = {
        "known": tfds.features.ClassLabel(names=["no", "yes"]),
        "kind": tfds.features.ClassLabel(names=["a", "b", "c"]),
    }
    vector = tfds.features.Tensor(shape=(2,), dtype=np.int64)
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3), encoding_format="png"),
        **dict.fromkeys(columns, np.int64),
        "vector": vector,
        "attributes": {"kind": kinds["kind"], "known": kinds["known"]},
        "pair": {"b": np.int64, "a": np.bool_},
    }
    examples = [
        {
            "image": np.zeros([4, 4, 3], np.uint8),
            **{name: values[i] for name, values in columns.items()},
            "attributes": {name: values[i] for name, values in known.items()},
            "pair": {"b": columns["minus_one"][i], "a": bool(i % 2)},
        }
        for i in range(4)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="integers",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"test": list(enumerate(examples))},
        data_dir=directory,
    )
    return directory


@pytest.mark.parametrize(
    ("label", "names", "expected"),
    [
        ("zero_one", ["zero_one"], [[0], [1], [1], [0]]),
        ("minus_one", ["minus_one"], [[0], [1], [0], [1]]),
        (
            "vector",
            ["vector_0", "vector_1"],
            [[0, 1], [1, 1], [0, 0], [1, 0]],
        ),
        ("pair", ["a", "b"], [[0, 0], [1, 1], [0, 0], [1, 1]]),
        (
            "attributes",
            ["kind_a", "kind_b", "kind_c", "known"],
            [[0, 0, 1, 0], [-1, -1, -1, 1], [1, 0, 0, -1], [0, 1, 0, 1]],
        ),
    ],
)
def test_integers_and_missing_labels(integers, label, names, expected):
    data = attribute_sets.AttributeSet("integers", [label], integers)
    data.check_labels("test")
    assert list(data.names) == names
    order = sorted(range(4), key=lambda i: expected[i])
    found = sorted(data.labels("test").tolist())
    assert found == [expected[i] for i in order]


@pytest.mark.parametrize(
    ("label", "values"), [("three", r"\[-1, 0, 1\]"), ("count", r"\[0, 1, 2")]
)
def test_other_integers_are_no_attributes(integers, label, values):
    data = attribute_sets.AttributeSet("integers", [label], integers)
    with pytest.raises(prepared.DataError, match=f"'{label}' holds .*{values}"):
        data.check_labels("test")
    with pytest.raises(prepared.DataError, match="no split 'train'"):
        data.check_labels("train")
