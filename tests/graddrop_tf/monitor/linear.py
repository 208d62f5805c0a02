"""A linear model whose gradients are known by hand, and its one sample."""

import csv
import math

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd

QUANTITIES = [
    "kept_share",
    "hypothetical_kept_share",
    "mean_purity",
    "mean_cosine",
    "conflict_rate",
    "norm_before",
    "norm_after",
]


# A linear model on x = A. Loss i is the mean of y_i w_i . A_b, so that
# dL_i/dA_b is y_i w_i / 2: (3, 0, -4) twice, and (-1, 2, 0), (-2, 4, 0).
X = np.float32([[1, 1, 1], [2, 2, -2]])


W = np.float32([[6, 0, -8], [-2, 4, 0]])


Y = np.float32([[1, 1], [1, 2]])


BY_HAND = {
    # The sums of sgn(A) G are (6, 0, 0) and (-3, 6, 0). P is 2/3 and 1; at the
    # third position no loss disagrees, and all passes. Kept are 2 (2/3) + 2 of
    # four values and 2 (1/3) + 2 of four.
    "kept_share": 6 / 8,
    "hypothetical_kept_share": 6 / 8,
    "mean_purity": (2 / 3 + 1) / 2,
    "mean_cosine": -9 / math.sqrt(50 * 25),
    "conflict_rate": 1.0,
    # (2, 2, -4) and (1, 4, -4).
    "norm_before": math.sqrt(57),
    "norm_after": math.sqrt(57),
}


def product(y_true, y_pred):
    return y_true * y_pred


def cut(features):
    """Cuts features in two tensors."""
    return [features[:, :1], features[:, 1:]]


def linear(form, recipe, W=W, **options):
    """A model whose weights stay as they are; it gives the labels too."""
    inputs = keras.Input([W.shape[1]])
    trunk = keras.layers.Dense(
        W.shape[1],
        use_bias=False,
        kernel_initializer="identity",
        name="trunk_dense",
    )
    heads = [
        keras.layers.Dense(1, use_bias=False, name=f"head_{i}")
        for i in range(len(W))
    ]
    y = [Y[:, i : i + 1] for i in range(len(W))]
    loss = [product] * len(W)
    if form in ("layer", "tensors in a layer"):
        chain = gd.Chain(
            [c.build() for c in gd.Recipe.parse(recipe).combiners],
            num_losses=len(W),
            separate=None if form == "layer" else False,
        )
        features = trunk(inputs)
        branches = chain(features if form == "layer" else cut(features))
        if form != "layer":
            branches = [keras.layers.Concatenate()(b) for b in branches]
        outputs = [h(b) for h, b in zip(heads, branches)]
        model = keras.Model(inputs, outputs)
    elif form == "plain":
        features = trunk(inputs)
        model = keras.Model(inputs, [h(features) for h in heads])
    elif form == "nested":
        features = keras.Input([W.shape[1]])
        (mask,) = [
            c.build(num_losses=2) for c in gd.Recipe.parse(recipe).combiners
        ]
        branches = keras.Model(features, mask(features))(trunk(inputs))
        outputs = [h(b) for h, b in zip(heads, branches)]
        model = keras.Model(inputs, outputs)
    else:
        features = trunk(inputs)
        shared = keras.Input([W.shape[1]])
        outputs = [h(shared) for h in heads]
        if form == "tensors":
            features = cut(features)
            shared = [keras.Input(f.shape[1:]) for f in features]
            outputs = [h(keras.layers.Concatenate()(shared)) for h in heads]
        if form == "vector":
            outputs = keras.layers.Concatenate()(outputs)
            y, loss = Y, gd.VectorLoss(product, names=["a", "b"])
        model = gd.MultiLossModel(
            keras.Model(inputs, features),
            keras.Model(shared, outputs),
            gd.Recipe.parse(recipe),
        )
    for head, w in zip(heads, W):
        head.kernel.assign(w[:, None])
    options = {
        "optimizer": keras.optimizers.SGD(0.0),
        "run_eagerly": True,
        **options,
    }
    model.compile(loss=loss, **options)
    return model, y


def fit(model, y, steps=1, x=X, **options):
    """Trains on the same batch; returns the history."""
    dataset = tf.data.Dataset.from_tensors(
        (x, tuple(y) if type(y) is list else y)
    )
    return model.fit(
        dataset.repeat(steps), verbose=0, shuffle=False, **options
    ).history


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items()} for row in rows]


def measure(model, y, tmp_path, **options):
    """Returns the one sample of a fit."""
    path = tmp_path / "gradients.csv"
    fit(model, y, callbacks=[gd.GradientMonitor((X, y), path=path, **options)])
    (row,) = read(path)
    assert row.pop("step") == 1
    return row


def in_turn(num_batches):
    """Batches of `linear` whose gradients are 1, 2, ... times as long."""
    y = np.stack([Y * (i + 1) for i in range(num_batches)])
    x = np.stack([X] * num_batches)
    return tf.data.Dataset.from_tensor_slices((x, (y[..., :1], y[..., 1:])))


def norms(path):
    """Returns the steps and the lengths of `BY_HAND` in a file."""
    return [
        (row["step"], round(row["norm_before"] / math.sqrt(57), 4))
        for row in read(path)
    ]
