"""A step of a model, by NumPy between separate tapes for trunk and heads."""

import numpy as np
import tensorflow as tf

from tests import reference

# A steep f decides each sign, so that no draw is needed.
STEEP = 1e9
RECIPES = {
    "graddrop": f"graddrop(k={STEEP})",
    "renormalized": f"graddrop(leak=[0.25, 0], k={STEEP}, renormalize=True)",
    "per example": f"graddrop(k={STEEP}, marginalize_batch=False)",
    "pcgrad": "pcgrad",
    "mgda": "mgda",
}


def combine(name, g, A):
    """Combines the gradients of two losses, a list of blocks for each."""
    order = [[1, 0], [0, 1]]
    if name in ("pcgrad", "mgda"):
        flat = [np.concatenate([b.ravel() for b in g_i]) for g_i in g]
        if name == "pcgrad":
            total = sum(reference.pcgrad(flat, order))
        else:
            gram = np.array(flat) @ np.array(flat).T
            total = reference.min_norm_point(gram) @ np.array(flat)
        ends = np.cumsum([a.size for a in A])
        parts = np.split(total, ends[:-1])
        return [p.reshape(a.shape) for p, a in zip(parts, A, strict=True)]
    sums, plain = [], []
    for index, a in enumerate(A):
        of_block = [g_i[index] for g_i in g]
        masked = reference.graddrop(
            of_block,
            a,
            np.full(a.shape if name == "per example" else a.shape[1:], 0.5),
            [0.25, 0.0] if name == "renormalized" else [0.0, 0.0],
            lambda p: float(p > 0.5),
            marginalize_batch=name != "per example",
        )
        sums.append(sum(masked))
        plain.append(sum(of_block))
    if name == "renormalized":
        before, after = (
            np.sqrt(sum((s**2).sum() for s in of_all))
            for of_all in (plain, sums)
        )
        sums = [before / after * s for s in sums]
    return sums


def expected(model, x, y, recipe, handed_on=()):
    """The trunk's gradients, from tapes of their own for trunk and heads.

    `handed_on` has the indices of tensors that the trunk only hands on.
    """
    with tf.GradientTape() as trunk_tape:
        activations = model.trunk(x, training=True)
    given = tf.nest.flatten(activations)
    blocks = [b for i, b in enumerate(given) if i not in handed_on]
    with tf.GradientTape(persistent=True) as heads_tape:
        heads_tape.watch(blocks)
        outputs = tf.nest.flatten(model.heads(activations, training=True))
        losses = [
            tf.reduce_mean((o - t) ** 2)
            for o, t in zip(outputs, tf.nest.flatten(y), strict=True)
        ]
    g = [
        heads_tape.gradient(loss, blocks, unconnected_gradients="zero")
        for loss in losses
    ]
    combined = combine(
        recipe,
        [[b.numpy().astype("float64") for b in g_i] for g_i in g],
        [b.numpy() for b in blocks],
    )
    grads = trunk_tape.gradient(
        blocks,
        [v.value for v in model.trunk.trainable_variables],
        output_gradients=[tf.constant(c, tf.float32) for c in combined],
    )
    return [tf.convert_to_tensor(g).numpy() for g in grads]


def stepped(model, x, y, train=None):
    """The trunk's gradients in a step of SGD at rate 1."""
    before = [v.numpy() for v in model.trunk.trainable_variables]
    train = train or model.train_on_batch
    train(x, y)
    after = [v.numpy() for v in model.trunk.trainable_variables]
    return [b - a for b, a in zip(before, after, strict=True)]
