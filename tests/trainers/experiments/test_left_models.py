"""Runs leave models that predict as the runs were evaluated.

The models are loaded by a process that cannot import this repository's code.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from data import digits as digits_data
from launch import export, predict
from tests.data import image_sets
from tests.trainers import small_runs

_NAMES = ["beard", "hat"]
_SHAPE = (8, 8, 3)
_PREDICT = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("graddrop_tf", "trainers", "data"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import keras
import numpy as np

for folder in sys.argv[1:]:
    model = keras.models.load_model(folder + "/model.keras", compile=False)
    found = model.predict(np.load(folder + "/raw.npy"), verbose=0)
    np.savez(folder + "/found.npz", **found)
"""


def celeba(directory):
    """Images that are cut and resized as they are read, one label missing."""
    test = image_sets.with_attributes(9, _NAMES, 1)
    splits = {"train": image_sets.with_attributes(21, _NAMES), "test": test}
    image_sets.prepare_with_attributes(
        directory / "sets", "celeb_a", _NAMES, splits
    )
    record = small_runs.finish(
        small_runs.small_run(
            "celeba",
            directory / "run",
            data_dir=directory / "sets",
            crop=11,
            height=9,
        )
    )
    labels = {
        name: [example["attributes"][name] for example in test]
        for name in _NAMES
    }
    return record, [example["image"] for example in test], labels


def digits(directory):
    run = small_runs.small_run("digits", directory / "run", test_pairs=50)
    record = small_runs.finish(run)
    _, scans = digits_data.split_scans(run.config.split_seed)
    images, labels = digits_data.draw_pairs(
        scans, 50, run.config.canvas, run.config.split_seed
    )
    return record, 255.0 * images, labels


def transfer(directory):
    target = image_sets.with_labels(10, _SHAPE, 3, 1)
    for name, test in (("cifar100", target), ("imagenet2012", None)):
        train = image_sets.with_labels(12, _SHAPE, 3, 2)
        splits = {"train": train, "test": test or train}
        image_sets.prepare_with_labels(
            directory / "sets", name, splits, _SHAPE, 3
        )
    record = small_runs.finish(
        small_runs.small_run(
            "transfer", directory / "run", data_dir=directory / "sets"
        )
    )
    images, labels = target
    return record, images, {"": labels}


def toy(directory):
    """Its inputs are the numbers of the starts."""
    record = small_runs.finish(small_runs.small_run("toy", directory / "run"))
    curves = np.load(record.directory / "curves.npz")
    return record, np.arange(curves["starts"].size), curves


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The record of each run, its labels, and what its model predicts."""
    made = {}
    for name, make in (
        ("celeba", celeba),
        ("digits", digits),
        ("toy", toy),
        ("transfer", transfer),
    ):
        record, images, labels = make(tmp_path_factory.mktemp(name))
        np.save(record.directory / "raw.npy", np.asarray(images, np.float32))
        made[name] = record, labels
    folders = [str(record.directory) for record, _ in made.values()]
    subprocess.run(
        [sys.executable, "-c", _PREDICT, *folders],
        check=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return {
        name: (record, labels, dict(np.load(record.directory / "found.npz")))
        for name, (record, labels) in made.items()
    }


def cross_entropy(probabilities, labels):
    rows = np.arange(len(labels))
    return -np.log(probabilities.astype(np.float64)[rows, labels]).mean()


def test_attributes(left):
    record, labels, found = left["celeba"]
    loss, wrong = 0.0, []
    for name in _NAMES:
        truth = np.array(labels[name])
        share = found[name].astype(np.float64)
        assert share.shape == truth.shape
        loss -= np.log(np.where(truth, share, 1.0 - share)).mean()
        wrong.append(np.mean((share > 0.5) != truth))
    metrics = record.results["metrics"]
    assert metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["error"] == pytest.approx(100.0 * np.mean(wrong))
    known = record.results["model"]
    assert known["file"] == "model.keras"
    assert known["step"] == metrics["best_step"]
    assert known["measure"] == "val_error_rate"


def test_two_digits(left):
    record, labels, found = left["digits"]
    loss = sum(cross_entropy(found[name], labels[name]) for name in labels)
    assert record.results["metrics"]["test_loss"] == pytest.approx(
        loss, rel=1e-5
    )
    assert record.results["model"] == {
        "file": "model.keras",
        "format": "keras",
        "step": 4,
        "measure": None,
    }


def test_classes_of_the_target(left):
    record, labels, found = left["transfer"]
    assert list(found) == ["0", "1", "2"]
    probabilities = np.stack(list(found.values()), axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    loss = cross_entropy(probabilities, labels[""])
    metrics = record.results["metrics"]
    assert metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    wrong = np.mean(np.argmax(probabilities, axis=1) != labels[""])
    assert metrics["error"] == pytest.approx(100.0 * wrong)


def test_weights_and_losses_of_the_toy(left):
    record, curves, found = left["toy"]
    np.testing.assert_array_equal(found.pop("weight"), curves["final_weights"])
    assert list(found) == [f"loss_{i}" for i in range(1, 6)]
    assert sum(found.values()).mean() == pytest.approx(
        record.results["metrics"]["mean_loss"], rel=1e-5
    )
    assert record.results["model"]["step"] == 20


def test_the_toy_takes_neither_images_nor_checkpoints(left, tmp_path, refused):
    place = f"--run_dir={left['toy'][0].directory}"
    out = tmp_path / "out.csv"
    arguments = [place, f"--images={tmp_path}", f"--out={out}"]
    refused(predict.main, arguments, ["takes neither images nor lidar frames"])
    refused(export.main, [place, "--step=3"], ["a model only at its end"])


def test_results_say_which_model_it_is(left):
    for record, _, _ in left.values():
        text = (record.directory / "results.json").read_text()
        assert json.loads(text)["model"]["file"] == "model.keras"
        names = {path.name for path in record.directory.iterdir()}
        assert not any(".tmp" in name for name in names)
