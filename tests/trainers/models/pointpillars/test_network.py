"""The network, and its two ways to train."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.trainers.models.pointpillars import cases
from tests.trainers.models.pointpillars.cases import TINY
from trainers.models.pointpillars import losses, network, pillars, presets


def layer_form(preset=TINY, **options):
    trunk = network.make_trunk(preset)
    heads = network.make_heads(trunk.output)
    graddrop = gd.GradDrop(num_losses=9, seed=5, **options)
    branches = graddrop(trunk.output)
    outputs = {}
    for name, branch in zip(losses.LOSS_NAMES, branches, strict=True):
        if name == "direction":
            branch = heads.get_layer("direction_logits")(branch)
        outputs[name] = heads.get_layer(name)(branch)
    return keras.Model(trunk.input, outputs)


def recipe_form(recipe, preset=TINY):
    trunk = network.make_trunk(preset)
    return gd.MultiLossModel(
        trunk, network.make_heads(trunk.output), recipe=recipe
    )


def compiled(model, **options):
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=losses.make_losses(),
        loss_weights=losses.LOSS_WEIGHTS,
        **options,
    )
    return model


@pytest.fixture(scope="module")
def batch():
    return cases.encode_batch([cases.random_frame(0), cases.random_frame(1)])


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("graddrop2020", (None, 512, 512, 384)),
        ("kitti", (None, 248, 216, 384)),
        ("small", (None, 128, 128, 192)),
    ],
)
def test_the_shared_map(name, want):
    trunk = network.make_trunk(presets.PRESETS[name])
    assert trunk.output.shape == want
    kernels = [w.shape[-1] for w in trunk.weights if len(w.shape) == 4]
    assert len(kernels) == (4 + 1) + (6 + 1) + (6 + 1)


def test_pillar_features_by_loops():
    layer = network.PillarFeatures(TINY.grid, 4)
    inputs = cases.encode_batch([cases.random_frame(0), cases.random_frame(1)])
    names = ("points", "pillars", "cells")
    points, ids, cells = (inputs[0][name] for name in names)
    found = layer(points, ids, cells, training=True).numpy()
    described = pillars.describe_points(points, ids, cells, TINY.grid)
    features = described.numpy() @ layer.linear.kernel.numpy()
    valid = ids.numpy() >= 0
    assert 0 < valid.sum() < valid.size
    mean, variance = features[valid].mean(0), features[valid].var(0)
    features = (features - mean) / np.sqrt(variance + 1e-3)
    for example in range(2):
        for pillar in range(TINY.max_pillars):
            own = features[example][ids[example] == pillar]
            want = own.max(axis=0, initial=0.0)
            np.testing.assert_allclose(
                found[example, pillar], want, rtol=1e-4, atol=1e-5
            )
    np.testing.assert_allclose(
        layer.normalization.moving_mean, 0.01 * mean, rtol=1e-4, atol=1e-6
    )


def test_half_precision_keeps_coordinates():
    """At 70 m half a number is 6 cm wide: offsets come from the full one."""
    preset = presets.KITTI
    points = np.float32([[60.01, 0.01, 0, 0], [60.03, 0.01, 0, 0]])
    inputs = pillars.pillarize(points, preset, (0, 0))
    inputs = [inputs[k][None] for k in ("points", "pillars", "cells")]
    full = network.PillarFeatures(preset.grid, 3)
    half = network.PillarFeatures(preset.grid, 3, dtype="mixed_float16")
    want = full(*inputs)
    half.build(*(x.shape for x in inputs))
    for layer in (full, half):
        layer.linear.kernel.assign(np.eye(9, 3, -4, np.float32) * 20)
    want, found = full(*inputs), half(*inputs)
    assert found.dtype == "float16"
    # The largest offset to the mean, 1 cm, times 20.
    np.testing.assert_allclose(want[0, 0, 0], 0.2, rtol=1e-2)
    np.testing.assert_allclose(found, want, atol=2e-3)


def test_padding_changes_nothing():
    """The same frame in larger caps: same outputs, same statistics."""
    roomy = dataclasses.replace(TINY, max_points=90, max_pillars=50)
    few = [cases.random_frame(0, 10), cases.random_frame(1, 8)]
    outputs, statistics = [], []
    for preset in (TINY, roomy):
        keras.utils.set_random_seed(0)
        trunk = network.make_trunk(preset)
        inputs, _ = cases.encode_batch(few, preset)
        outputs.append(trunk(inputs, training=True).numpy())
        statistics.append([w.numpy() for w in trunk.non_trainable_weights])
    np.testing.assert_allclose(*outputs, atol=1e-5)
    for first, second in zip(*statistics):
        np.testing.assert_allclose(first, second, atol=1e-6)
    assert outputs[0].any()


def test_both_forms_train_the_same_weights(batch):
    x, y = batch
    layered = layer_form(leak=0.2)
    composed = recipe_form(gd.Recipe(combiners=[gd.GradDrop(leak=0.2, seed=5)]))
    assert composed.output_names == sorted(losses.LOSS_NAMES)
    # A trace takes longer than these steps.
    compiled(layered, run_eagerly=True)
    compiled(composed, run_eagerly=True)
    twins = {w.path: w for w in composed.trunk.weights}
    twins |= {w.path: w for w in composed.heads.weights}
    pairs = [(w, twins.pop(w.path, None)) for w in layered.weights]
    pairs = [(weight, twin) for weight, twin in pairs if twin is not None]
    assert not twins
    for weight, twin in pairs:
        twin.assign(weight)
    start = [weight.numpy() for weight, _ in pairs]
    logs = []
    for _ in range(3):
        logs.append(layered.train_on_batch(x, y, return_dict=True))
        again = composed.train_on_batch(x, y, return_dict=True)
        assert again.keys() == logs[-1].keys()
        for name, value in logs[-1].items():
            np.testing.assert_allclose(again[name], value, rtol=1e-4)
    assert {f"{name}_loss" for name in losses.LOSS_NAMES} < again.keys()
    for (weight, twin), before in zip(pairs, start):
        np.testing.assert_allclose(weight, twin, rtol=1e-3, atol=2e-5)
        assert (weight.numpy() != before).any()


def test_plain_fit_lowers_the_loss(batch):
    model = compiled(layer_form(), jit_compile=False)
    dataset = tf.data.Dataset.from_tensors(batch).repeat(12)
    log = model.fit(dataset, epochs=2, verbose=0).history["loss"]
    assert log[1] < 0.7 * log[0]


def test_losses_are_weighted_and_summed(batch):
    x, y = batch
    model = compiled(recipe_form(None), run_eagerly=True)
    log = model.evaluate(x, y, return_dict=True, verbose=0)
    total = sum(
        weight * log[f"{name}_loss"]
        for name, weight in losses.LOSS_WEIGHTS.items()
    )
    np.testing.assert_allclose(log["loss"], total, rtol=1e-5)
    # One anchor in 100 is believed to be a vehicle.
    p = tf.sigmoid(model(x, training=False)["class"])
    np.testing.assert_allclose(np.median(p), 0.01, rtol=0.5)


@pytest.mark.parametrize("kept", ["points", "boxes", "nothing"])
def test_gradients_of_empty_frames_are_finite(kept):
    frame, empty = cases.random_frame(0), cases.empty_frame()
    if kept != "points":
        frame["points"] = empty["points"]
    if kept != "boxes":
        frame |= {k: empty[k] for k in ("boxes", "num_points")}
    x, y = cases.encode_batch([frame, frame])
    model = layer_form()
    made = losses.make_losses()
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = sum(made[name](y[name], outputs[name]) for name in made)
    assert np.isfinite(loss) and loss > 0
    variables = [v.value for v in model.trainable_variables]
    for gradient in tape.gradient(loss, variables):
        assert np.isfinite(gradient).all()
    for weight in model.non_trainable_variables:
        assert np.isfinite(weight).all()


def test_saving_and_loading(tmp_path, batch):
    x, _ = batch
    for model in (layer_form(), recipe_form(gd.Recipe.parse("graddrop"))):
        compiled(model)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        want, found = model(x, training=False), loaded(x, training=False)
        assert found.keys() == {*losses.LOSS_NAMES}
        for name in want:
            np.testing.assert_array_equal(found[name], want[name])
