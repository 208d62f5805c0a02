import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from data import mixed_batches, prepared, streams
from tests import reference
from tests.data import image_sets
from tests.trainers import small_runs
from trainers import errors, files
from trainers.experiments import registry, transfer
from trainers.models import densenet, domain_normalization
from trainers.reporting import report
from trainers.runs import execution
from trainers.training.logs import read_csv

_SHAPE = (8, 8, 3)
_NAMES = ("source", "target")
_CLASSES = {"source": 5, "target": 3}
_GRADDROP = "graddrop(leak=[1, 0], k=0.25, seed=5)"


def _network(growth_rate=2, names=_NAMES):
    keras.utils.set_random_seed(3)
    trunk = densenet.make_trunk(
        _SHAPE, names, depth=10, growth_rate=growth_rate
    )
    classes = {name: _CLASSES[name] for name in names}
    return trunk, densenet.make_heads(trunk.output, classes)


def _compile(model, optimizer=None, names=_NAMES, **options):
    loss = keras.losses.SparseCategoricalCrossentropy
    model.compile(
        optimizer or keras.optimizers.SGD(1.0),
        loss={name: loss(from_logits=True) for name in names},
        **options,
    )
    return model


def _model(method=_GRADDROP, optimizer=None, names=_NAMES, **options):
    model = gd.MultiLossModel(
        *_network(names=names),
        recipe=gd.Recipe.parse(method),
        separate=True,
    )
    return _compile(model, optimizer, names, **options)


def _batch(seed=0, names=_NAMES, **sizes):
    generator = np.random.default_rng(seed)
    images, labels = {}, {}
    for name in names:
        size = sizes.get(name, 4)
        images[name] = generator.random((size, *_SHAPE), np.float32)
        labels[name] = generator.integers(0, _CLASSES[name], size)
    return images, labels


def _stream(*batches):
    """A data set of batches whose sizes TensorFlow does not know."""
    images, labels = (
        {name: tf.TensorSpec([None, *example], dtype) for name in batches[0][0]}
        for example, dtype in ((_SHAPE, tf.float32), ((), tf.int64))
    )
    return tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=(images, labels)
    )


@pytest.fixture
def eager():
    """Spares the tests the tracing."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def _step(model, batch):
    x, y = tf.nest.map_structure(tf.constant, batch)
    return model.train_step((x, y))


# The network once more in NumPy: for each data set on its own, and for
# complex weights, as f(w + ih) = f(w) + ih f'(w) gives exact derivatives.


def _convolved(x, kernel):
    size = len(kernel)
    pad = size // 2
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    height, width = (n - 2 * pad for n in x.shape[1:3])
    return sum(
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def _activated(x, gamma, beta):
    mean = x.mean(axis=(0, 1, 2))
    variance = ((x - mean) ** 2).mean(axis=(0, 1, 2))
    y = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    return np.where(y.real > 0, y, 0)


def _features(x, kernels, norms):
    """DenseNet-BC of depth 10: a layer of two convolutions in each block."""
    kernels, norms = iter(kernels), iter(norms)
    x = _convolved(x, next(kernels))
    for block in range(3):
        if block:
            x = _convolved(_activated(x, *next(norms)), next(kernels))
            n, height, width, channels = x.shape
            x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
            x = x.mean(axis=(2, 4))
        new = _convolved(_activated(x, *next(norms)), next(kernels))
        new = _convolved(_activated(new, *next(norms)), next(kernels))
        x = np.concatenate([x, new], axis=-1)
    return _activated(x, *next(norms)).mean(axis=(1, 2))


def _weights(trunk):
    kernels = [
        layer.kernel.numpy().astype(complex)
        for layer in trunk.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    norms = [
        np.stack([layer.gamma, layer.beta]).astype(complex)
        for layer in trunk.layers
        if isinstance(layer, domain_normalization.DomainBatchNormalization)
    ]
    return kernels, norms


def _softmax_error(logits, labels):
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True) - np.eye(len(logits[0]))[labels]


def test_the_step_of_the_trunk_is_that_of_numpy():
    model = _model()
    images, labels = batch = _batch(source=4, target=3)
    for layer in model.trunk.layers:
        if isinstance(layer, domain_normalization.DomainBatchNormalization):
            for variable in (layer.gamma, layer.beta):
                noise = np.random.default_rng(1).normal(size=variable.shape)
                variable.assign_add(0.2 * noise)
    kernels, norms = _weights(model.trunk)

    def run():
        return [
            _features(images[name], kernels, [norm[:, d] for norm in norms])
            for d, name in enumerate(_NAMES)
        ]

    # Per-loss gradients at the features, and Algorithm 1 on them.
    features = [f.real for f in run()]
    incoming, head_gradients = [], {}
    for name, f in zip(_NAMES, features, strict=True):
        head = model.heads.get_layer(name)
        kernel, bias = head.kernel.numpy(), head.bias.numpy()
        error = _softmax_error(f @ kernel + bias, labels[name]) / len(f)
        incoming.append(error @ kernel.T)
        head_gradients[name] = f.T @ error
    with gd.random.drawing(tf.constant(0, tf.int64)):
        uniform = gd.random.uniform([features[0].shape[1]], 5).numpy()
    masked = reference.graddrop(
        incoming, features, uniform, [1.0, 0.0], reference.clip_transform(0.25)
    )
    np.testing.assert_allclose(masked[0], incoming[0])
    kept = (masked[1] != 0).mean()
    assert 0.0 < kept < 1.0

    def slope(array, index):
        array[index] += 1e-30j
        value = sum(
            np.sum(m * f.imag) for m, f in zip(masked, run(), strict=True)
        )
        array[index] = array[index].real
        return value / 1e-30

    expected = [
        np.array([slope(w, i) for i in np.ndindex(w.shape)]).reshape(w.shape)
        for w in (*kernels, *norms)
    ]
    before = [w.real for w in (*kernels, *norms)]
    heads = {n: model.heads.get_layer(n).kernel.numpy() for n in _NAMES}
    _step(model, batch)
    after = [w.real for part in _weights(model.trunk) for w in part]
    # SGD with rate 1: what was taken off is the gradient.
    for old, new, gradient in zip(before, after, expected, strict=True):
        assert np.abs(gradient).max() > 1e-4
        np.testing.assert_allclose(old - new, gradient, atol=1e-5)
    for name, old in heads.items():
        np.testing.assert_allclose(
            old - model.heads.get_layer(name).kernel.numpy(),
            head_gradients[name],
            atol=1e-5,
        )


def _assert_same(left, right, **tolerance):
    for a, b in zip(left.variables, right.variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(a),
            keras.ops.convert_to_numpy(b),
            err_msg=a.path,
            **tolerance,
        )


def test_the_layer_under_fit_gives_the_weights_of_the_model(eager):
    """With 8 + 4 images, of 5 and 3 classes."""
    batches = [_batch(seed, source=8, target=4) for seed in range(2)]
    trunk, heads = _network()
    dropped = gd.GradDrop(leak=[1.0, 0.0], k=0.25, seed=5)(trunk.output)
    layered = _compile(keras.Model(trunk.input, heads(dropped)))
    layered.fit(_stream(*batches), verbose=0)
    model = _model()
    for batch in batches:
        _step(model, batch)
    _assert_same(trunk, model.trunk, atol=1e-5)
    _assert_same(heads, model.heads, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        "clip(1.0)",
        "penalty(0.1)",
        "mgda",
        "gradnorm+graddrop(leak=[1, 0], k=0.25)",
    ],
)
def test_every_method_takes_a_step(method):
    model = _model(method, keras.optimizers.Adam(0.01))
    before = _weights(model.trunk)[0]
    loss = _step(model, _batch(source=2, target=1))["loss"]
    assert np.isfinite(loss)
    for old, new in zip(before, _weights(model.trunk)[0], strict=True):
        # Adam's first step is about as long as its rate, in every direction.
        np.testing.assert_allclose(np.abs(old - new).max(), 0.01, rtol=0.01)


def test_what_one_data_set_owns_stays_when_only_the_other_is_seen():
    model = _model()
    norms = [
        layer
        for layer in model.trunk.layers
        if isinstance(layer, domain_normalization.DomainBatchNormalization)
    ]
    step = tf.function(
        lambda x, y: model.train_step((x, y)),
        input_signature=_stream(_batch()).element_spec,
        autograph=False,
    )
    for index, absent in enumerate(_NAMES):
        rows = [[v.numpy() for v in layer.variables] for layer in norms]
        kernels = _weights(model.trunk)[0]
        step(*_batch(seed=index, **{absent: 0}))
        for layer, old in zip(norms, rows, strict=True):
            for variable, before in zip(layer.variables, old, strict=True):
                moved = variable.numpy() != before
                assert not moved[index].any()
                assert moved[1 - index].any(), variable.path
        for old, new in zip(kernels, _weights(model.trunk)[0], strict=True):
            assert (old != new).any()


def test_each_data_set_is_tested_by_its_own_statistics():
    metric = keras.metrics.SparseCategoricalCrossentropy
    model = _model(
        metrics={name: [metric("here", from_logits=True)] for name in _NAMES}
    )
    (images, labels), nothing = _batch(), _batch(source=0, target=0)

    def evaluate(*present):
        batch = tuple(
            {name: (part if name in present else none)[name] for name in _NAMES}
            for part, none in zip((images, labels), nothing, strict=True)
        )
        logs = model.evaluate(_stream(batch), return_dict=True, verbose=0)
        return {name: logs[f"{name}_here"] for name in present}

    generator = np.random.default_rng(2)

    def draw_statistics(domain):
        for layer in model.trunk.layers:
            if isinstance(layer, domain_normalization.DomainBatchNormalization):
                for variable, low in (
                    (layer.moving_mean, -1.0),
                    (layer.moving_variance, 1.0),
                ):
                    value = variable.numpy()
                    value[domain] = low + 0.9 * generator.random(value[0].shape)
                    variable.assign(value)

    for domain in range(2):
        draw_statistics(domain)
    before = evaluate(*_NAMES)
    for name in _NAMES:
        assert evaluate(name)[name] == pytest.approx(before[name], rel=1e-5)
    for domain, name in enumerate(_NAMES):
        draw_statistics(domain)
        after = evaluate(*_NAMES)
        for other in _NAMES:
            same = after[other] == pytest.approx(before[other], rel=1e-5)
            assert same == (other != name)
        before = after


# Whole runs, on data sets with the names and splits of the real ones.


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")

    def prepare(name, num_classes, shape, seed, **counts):
        splits = {
            split: image_sets.with_labels(count, shape, num_classes, seed + i)
            for i, (split, count) in enumerate(counts.items())
        }
        image_sets.prepare_with_labels(
            directory, name, splits, shape, num_classes
        )

    prepare("cifar100", 3, _SHAPE, 0, train=3, test=10)
    prepare("imagenet2012", 5, _SHAPE, 2, train=7, validation=6)
    prepare("larger", 5, (16, 16, 3), 4, train=2, validation=2)
    return str(directory)


def _run(data_dir, directory, method=_GRADDROP, strategy="one", **values):
    return small_runs.small_run(
        "transfer",
        directory,
        method,
        data_dir=data_dir,
        strategy=strategy,
        logical_cpus=2 if strategy == "mirrored" else 1,
        **values,
    )


def _final_variables(record):
    newest = max((record.directory / "checkpoints").glob("step-*.npz"))
    with np.load(newest) as archive:
        return {
            name: archive[name] for name in archive.files if name != "paths"
        }


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """A run that was never stopped."""
    tf.config.run_functions_eagerly(True)
    directory = tmp_path_factory.mktemp("whole") / "run"
    record = small_runs.finish(_run(data_dir, directory))
    tf.config.run_functions_eagerly(False)
    return record


def test_a_run_reports_its_last_step(whole):
    rows = read_csv(whole.directory / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2]
    last = rows[-1]
    assert whole.results["metrics"] == {
        "error": pytest.approx(100 - 100 * last["val_target_accuracy"]),
        "test_loss": last["val_target_cross_entropy"],
        "source_error": pytest.approx(100 - 100 * last["val_source_accuracy"]),
    }
    # 10 test images of the target, 6 of the source.
    assert last["val_target_accuracy"] * 10 % 1 == pytest.approx(0, abs=1e-5)
    assert last["val_source_accuracy"] * 6 % 1 == pytest.approx(0, abs=1e-5)


class _KilledError(Exception):
    pass


class _Kill(keras.callbacks.Callback):
    """Ends the process, as it were, in the second step."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 1:
            raise _KilledError


def test_killed_and_started_again_both_streams_go_on(
    data_dir, tmp_path, whole, monkeypatch, eager
):
    run = _run(data_dir, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(
            transfer.Transfer, "callbacks", lambda self, run, model: [_Kill()]
        )
        with pytest.raises(_KilledError):
            small_runs.finish(run)
    record = small_runs.finish(run)
    assert record.results["resumed"]
    logs = [read_csv(r.directory / "metrics.csv") for r in (record, whole)]
    assert logs[0] == logs[1]
    got, expected = _final_variables(record), _final_variables(whole)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name])


def test_two_replicas_give_the_weights_of_one(data_dir, tmp_path, whole, eager):
    run = _run(data_dir, tmp_path / "run", strategy="mirrored")
    record = small_runs.finish(run)
    assert record.results["num_replicas"] == 2
    got, expected = _final_variables(record), _final_variables(whole)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)
    for name, value in whole.results["metrics"].items():
        assert record.results["metrics"][name] == pytest.approx(value, rel=1e-4)


def test_without_a_source_there_is_one_loss(data_dir, tmp_path, eager):
    run = _run(data_dir, tmp_path / "run", "baseline", target_only=True)
    record = small_runs.finish(run)
    assert {*record.results["metrics"]} == {"error", "test_loss"}
    last = read_csv(record.directory / "metrics.csv")[-1]
    assert not any("source" in name for name in last)
    expected = 100 - 100 * last["val_accuracy"]
    assert record.results["metrics"]["error"] == pytest.approx(expected)
    found = registry.EXPERIMENTS["transfer"]
    assert np.isnan(found.samples(record)["source_error"]).all()
    model = found.build(run)
    assert not any("source" in v.path for v in model.variables)
    text = report.create(tmp_path, registry.EXPERIMENTS)
    assert "target_only: False / True" in text and "nan" not in text


def test_the_rate_is_constant_then_falls_in_stairs(data_dir, tmp_path):
    model = registry.EXPERIMENTS["transfer"].build(
        _run(data_dir, tmp_path, "baseline")
    )
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.9, 0.999)
    config = optimizer.get_config()
    copy = keras.optimizers.Adam.from_config(config)
    for step, expected in [
        (0, 1e-3), (100_000, 1e-3), (101_999, 1e-3), (102_000, 9.4e-4),
        (104_000, 8.836e-4), (250_000, 1e-3 * 0.94**75),
    ]:  # fmt: skip
        for adam in (optimizer, copy):
            adam.iterations.assign(step)
            assert float(adam.learning_rate) == pytest.approx(
                expected, rel=1e-5
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "larger"}, r"larger has images of shape \(16, 16, 3\), but "
         r"cifar100 of \(8, 8, 3\)"),
        ({"training_split": "train[:4]"}, "cifar100: there is no split"),
        ({"strategy": "mirrored", "source_batch_size": 3},
         "source_batch_size: got 3, expected a multiple of the 2 replicas"),
        ({"strategy": "mirrored", "batch_size": 3}, "batch_size: got 3"),
        ({"method": "graddrop(leak=[1, 0])", "target_only": True},
         "2 values for 1 losses"),
        ({"method": "graddrop(leak=[1, 0, 0])"}, "3 values for 2 losses"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said_in_a_line(
    data_dir, tmp_path, options, message
):
    with pytest.raises(
        (errors.UserError, prepared.DataError), match=message
    ) as caught:
        execution.check(_run(data_dir, tmp_path / "run", **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"depth": 11}, {"source_batch_size": 0}, {"decay_start": -1},
        {"decay_steps": 0}, {"growth_rate": 0}, {"learning_rate": 0.0},
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"{name}: got {values[name]}"):
        transfer.TransferConfig(**values)


def test_both_data_sets_are_checked(data_dir, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(
        mixed_batches.ImageSet,
        "check",
        lambda images: checked.append(images.prepared.name),
    )
    registry.EXPERIMENTS["transfer"].check_data(_run(data_dir, tmp_path))
    assert checked == ["imagenet2012", "cifar100"]


def test_workers_get_their_parts(data_dir, tmp_path):
    found = registry.EXPERIMENTS["transfer"]
    run = _run(data_dir, tmp_path)
    spec, _ = found.training_data(
        run, streams.Reading(2, 0, shard=streams.Shard(1, 2))
    ).element_spec
    assert spec["source"].shape == (2, *_SHAPE)
    assert spec["target"].shape == (1, *_SHAPE)


# Reports, from run directories written by hand.


def _write(root, method, seed, error, loss, **values):
    config = dataclasses.replace(transfer.TransferConfig(), **values)
    identity = {
        "experiment": "transfer",
        "method": method,
        "seed": seed,
        "config": dataclasses.asdict(config),
    }
    directory = root / f"{method}-{seed}"
    files.write_json(directory / "config.json", identity)
    files.write_text(
        directory / "metrics.csv",
        "step,val_target_accuracy,val_target_cross_entropy\n"
        f"10,0.1,{2 * loss}\n20,{1 - error / 100},{loss}\n",
    )
    results = {
        "status": "finished",
        "reason": None,
        "metrics": {"error": error, "test_loss": loss, "source_error": 70.0},
        "wall_seconds": 1.0,
        "resumed": False,
    }
    files.write_json(directory / "results.json", {**identity, **results})


def test_the_papers_numbers_and_both_sweeps_are_shown(tmp_path):
    leaks = {"[0, 1]": 31.0, "[0.5, 0.5]": 29.0, "[1, 0]": 28.0}
    for seed in range(2):
        _write(tmp_path, "baseline", seed, 30.0 + seed, 1.2)
        for leak, error in leaks.items():
            method = f"gradnorm+graddrop(leak={leak}, k=0.25)"
            _write(tmp_path, method, seed, error + seed, 1.1)
        for k in (0, 1):
            method = f"graddrop(leak=[1, 0], k={k})"
            _write(tmp_path, method, seed, 29.0, 1.1)
    text = report.create(tmp_path, registry.EXPERIMENTS)
    (line,) = [x for x in text.splitlines() if "leak=[0, 1]" in x][:1]
    cells = line.split()
    assert "31.50" in cells and "30.5" in cells and "1.23" in cells
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {
        "transfer_error",
        "transfer_loss",
        "transfer_final",
        "transfer_leak_error",
        "transfer_leak_test_loss",
        "transfer_k_error",
        "transfer_k_test_loss",
    }


def test_without_a_sweep_there_is_no_plot_of_one(tmp_path):
    _write(tmp_path, "baseline", 0, 30.0, 1.2, target="cifar10")
    _write(tmp_path, "graddrop(leak=[1, 0])", 0, 30.0, 1.2, target="cifar10")
    records, _ = report.collect(tmp_path)
    found = registry.EXPERIMENTS["transfer"]
    by_method = {record.method: [record] for record in records}
    drawn = [draw(found, by_method) for draw in found.figures]
    assert [figure.name for figures in drawn for figure in figures] == [
        "transfer_error",
        "transfer_loss",
        "transfer_final",
    ]


def test_the_papers_methods_are_written_as_recipes_are_shown():
    for column in registry.EXPERIMENTS["transfer"].table:
        for method in column.paper:
            assert str(gd.Recipe.parse(method)) == method


@pytest.mark.parametrize(
    ("config", "published"),
    [
        ({}, True),
        ({"source": "imagenet_resized/32x32"}, True),
        ({"target": "cifar10"}, False),
        ({"source": "tiny_imagenet_32"}, False),
        ({"target_only": True}, False),
    ],
)
def test_the_papers_numbers_are_of_its_data(config, published):
    values = dataclasses.asdict(transfer.TransferConfig(**config))
    assert registry.EXPERIMENTS["transfer"].is_published(values) is published
