import csv
import dataclasses
import shutil

import numpy as np
import pytest

from data import prepared
from tests.data import image_sets
from tests.trainers import small_runs
from trainers.experiments import celeba
from trainers.reporting import report
from trainers.runs import execution
from trainers.training.callbacks import SaveCheckpoints
from trainers.training.logs import read_csv

_NAMES = [f"attribute_{index:02d}" for index in range(4)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    splits = {
        split: image_sets.with_attributes(count, _NAMES, seed)
        for seed, (split, count) in enumerate([("train", 21), ("test", 9)])
    }
    image_sets.prepare_with_attributes(directory, "celeb_a", _NAMES, splits)
    return directory


def _run(data_dir, directory, method="graddrop", **values):
    return small_runs.small_run(
        "celeba", directory, method, seed=3, data_dir=data_dir, **values
    )


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """A run that was never stopped."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    return small_runs.finish(_run(data_dir, directory))


def _rate(optimizer, step):
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


def test_the_learning_rate_falls_in_steps(data_dir, tmp_path):
    def rate(method, step):
        run = _run(data_dir, tmp_path, method, decay_steps=2_400)
        model = celeba.Celeba().build(run)
        return _rate(model.optimizer, step)

    for step, expected in [
        (0, 1e-3), (2399, 1e-3), (2400, 9.6e-4), (4800, 9.216e-4)
    ]:  # fmt: skip
        assert rate("graddrop", step) == pytest.approx(expected, rel=1e-6)
    assert rate("mgda", 2400) == pytest.approx(9.6e-6, rel=1e-6)
    assert rate("mgda+graddrop", 0) == pytest.approx(1e-5, rel=1e-6)


def test_the_losses_are_means_over_the_batch_and_add_up(data_dir, tmp_path):
    model = celeba.Celeba().build(_run(data_dir, tmp_path, "baseline"))
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    labels = np.array([[0, 1, 0, 1], [1, 1, 0, 0]], np.float32)
    logits = model.predict(images, verbose=0)
    signed = np.where(labels > 0, -logits, logits).astype(np.float64)
    losses = np.log1p(np.exp(signed)).mean(axis=0)
    logs = model.evaluate(images, labels, return_dict=True, verbose=0)
    for name, loss in zip(_NAMES, losses, strict=True):
        assert logs[f"{name}_loss"] == pytest.approx(loss, rel=1e-6)
    assert logs["loss"] == pytest.approx(losses.sum(), rel=1e-6)


def test_a_run_reports_its_best_step(whole):
    rows = read_csv(whole.directory / "metrics.csv")
    best = min(rows, key=lambda row: row["val_error_rate"])
    metrics = whole.results["metrics"]
    assert metrics["best_step"] == best["step"]
    assert metrics["error"] == pytest.approx(100.0 * best["val_error_rate"])
    assert metrics["max_f1"] == pytest.approx(100.0 * best["val_max_f1"])
    with open(whole.directory / "attributes.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["attribute"] for row in table] == _NAMES
    for name, metric in (("error_rate", "error"), ("max_f1", "max_f1")):
        mean = 100.0 * np.mean([float(row[name]) for row in table])
        assert mean == pytest.approx(metrics[metric], abs=1e-3)
    rates = np.mean(
        [
            [example["attributes"][name] for name in _NAMES]
            for example in image_sets.with_attributes(9, _NAMES, seed=1)
        ],
        axis=0,
    )
    np.testing.assert_allclose(
        [float(row["frequency"]) for row in table], rates, atol=1e-6
    )
    assert metrics["majority_error"] == pytest.approx(
        100.0 * np.minimum(rates, 1.0 - rates).mean()
    )


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    whole, data_dir, tmp_path, monkeypatch
):
    run = _run(data_dir, tmp_path / "run")
    original = SaveCheckpoints.on_epoch_begin

    def fail_in_second(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 1:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(SaveCheckpoints, "on_epoch_begin", fail_in_second)
        with pytest.raises(ZeroDivisionError):
            small_runs.finish(run)
    small_runs.finish(run)
    for name in ("step-000000006.npz", "best.npz"):
        expected, resumed = (
            np.load(directory / "checkpoints" / name)
            for directory in (whole.directory, run.directory)
        )
        assert expected.files == resumed.files
        for key in expected.files:
            np.testing.assert_array_equal(resumed[key], expected[key])


def test_damage_is_said_in_one_line_and_can_be_mended(data_dir, tmp_path):
    folder = data_dir / "celeb_a" / "1.0.0"
    (path,) = folder.glob("*-train.tfrecord*")
    content = path.read_bytes()
    run = _run(data_dir, tmp_path / "run", steps=2)
    path.write_bytes(content[:-7])
    try:
        with pytest.raises(prepared.DataError) as caught:
            small_runs.finish(run)
    finally:
        path.write_bytes(content)
    text = str(caught.value)
    assert str(path) in text and "record 20" in text and "\n" not in text
    assert small_runs.finish(run).status == "finished"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "nowhere"}, "nowhere is not prepared"),
        ({"labels": "hair"}, "no feature 'hair'"),
        ({"training_split": "valid"}, "no split 'valid'"),
        ({"evaluation_split": "validation"}, "no split 'validation'"),
        ({"crop": 13}, "square of 13"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_starts(
    data_dir, tmp_path, values, message
):
    run = _run(data_dir, tmp_path / "run", **values)
    with pytest.raises(prepared.DataError, match=message):
        execution.check(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 7}, "7 x .*, expected at least 8 x 8"),
        ({"crop": -1}, "crop: got -1"),
        ({"learning_rate_factors": "sgd=1"}, "got 'sgd=1', expected METHOD="),
        ({"learning_rate_factors": "mgda=x"}, "got 'mgda=x'"),
        ({"learning_rate_factors": "mgda=0"}, "got 'mgda=0'"),
        ({"decay_steps": 0}, "decay_steps: got 0"),
    ],
)
def test_values_that_cannot_be_trained_with_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        celeba.CelebaConfig(**values)


def test_the_report_sets_the_papers_numbers_beside(whole, tmp_path):
    for method in ("graddrop", "graddrop(marginalize_batch=False)"):
        directory = tmp_path / method[-6:]
        shutil.copytree(whole.directory, directory)
        for name in ("config.json", "results.json"):
            text = (directory / name).read_text()
            text = text.replace('"method": "graddrop"', f'"method": "{method}"')
            (directory / name).write_text(text)
    text = report.create(tmp_path, {"celeba": celeba.Celeba()})
    line = next(x for x in text.splitlines() if x.startswith("graddrop "))
    assert " 8.52 " in line and " 29.57 " in line
    assert (tmp_path / "plots" / "celeba_max_f1.png").exists()
    assert (tmp_path / "plots" / "celeba_marginalization.png").exists()
    assert (tmp_path / "plots" / "celeba_kept.png").exists()
    kept = (whole.directory / "gradients.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in kept] == ["step", "2", "4", "6"]
    config = dataclasses.asdict(celeba.CelebaConfig(dataset="cmu_faces"))
    assert not celeba.Celeba().is_published(config)
