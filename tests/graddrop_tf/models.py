"""Small models on three conflicting losses, in all ways of use."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.methods import METHODS

NAMES = ("a", "b", "c")
NUM_LOSSES = len(NAMES)

# The pure functions of a method: what they compute is for the laws.
_MATHEMATICS = {
    "weigh",
    "weights_of",
    "next_state",
    "next_window",
    "next_state_after",
}


def keras_version():
    """Returns the major and the minor version."""
    return tuple(map(int, keras.__version__.split(".")[:2]))


def needs_keras(major: int, minor: int, reason: str):
    """Returns a mark that skips a test where Keras is older."""
    return pytest.mark.skipif(keras_version() < (major, minor), reason=reason)


def way_of_working(method: type) -> tuple:
    """Returns what two methods share that differ in their mathematics alone."""
    mro = method.__mro__[: method.__mro__.index(keras.layers.Layer)]
    bases = [c for c in mro if c.__module__.startswith("graddrop_tf.bases")]
    overridden = {
        name
        for c in mro
        if c not in bases
        for name in vars(c)
        if not name.startswith("_") and any(hasattr(b, name) for b in bases)
    }
    functions = [
        getattr(method, name)
        for name in sorted(overridden - _MATHEMATICS - {"initial_state"})
    ]
    needs = [n for n in vars(gd.Weighting) if n.startswith("needs_")]
    return (
        *bases,
        *(f.__qualname__ for f in functions if callable(f)),
        *(getattr(method, name, None) for name in needs),
        "initial_state" in overridden,
    )


def representatives() -> list[str]:
    """Returns the first method of each way of working."""
    first = {}
    for name, method in METHODS.items():
        first.setdefault(way_of_working(method), name)
    return sorted(first.values())


# Registering a method enrolls it here, if it works in a way of its own, alone
# and with a weighting or GradDrop.
ALONE = representatives()
COMBINED = [
    "gradnorm+graddrop",
    "gradnorm+random_graddrop",
    "mgda+graddrop",
    "graddrop(marginalize_batch=False, renormalize=True, leak=[1, 0.5, 0])",
    "pcgrad(iterative=True)",
    "clip(1.0)+pcgrad",
    "penalty(0.01)+graddrop",
]
RECIPES = ["baseline", *ALONE, *COMBINED]
# One of each kind of pass, draw and state, for what does not depend on methods.
FEW = [
    "baseline",
    "gradnorm+graddrop",
    "famo+pcgrad",
    "rlw+pcd",
    "dwa+clip(1.0)",
]
# What a place answers for: signs, products and norms, and a chain.
PLACE_RECIPES = [
    "graddrop(leak=[1, 0.5, 0])",
    "mgda+graddrop",
    "gradnorm+pcgrad",
]


def is_combiner_recipe(recipe: str) -> bool:
    """Whether a recipe can be written with layers alone."""
    parsed = gd.Recipe.parse(recipe)
    return (
        parsed.weighting is None
        and parsed.global_clipnorm is None
        and not parsed.gradient_penalty
    )


LAYER_RECIPES = [r for r in RECIPES if is_combiner_recipe(r)]


@keras.saving.register_keras_serializable("graddrop_tf_tests")
def squared_errors(y_true, y_pred):
    return tf.square(y_true - y_pred)


def batch(size=16, seed=0):
    """Returns inputs and three targets, the second against the first."""
    random = np.random.RandomState(seed)
    x = random.randn(size, 6).astype(np.float32)
    first, third = x.sum(axis=1), 3 * x[:, 0]
    return x, np.stack([first, -first, third], axis=1) / 2


class Kind:
    """A way of use: how to build the model and shape its labels."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    def build(self, recipe, trunk_units=8, dropout=0.0, **options):
        """Builds a model; the same seed gives the same weights."""
        keras.utils.set_random_seed(1)
        inputs = keras.Input([6], name="x")
        features = keras.layers.Dense(
            trunk_units, activation="tanh", name="trunk_dense"
        )(inputs)
        if dropout:
            features = keras.layers.Dropout(dropout, seed=3)(features)
        if self.name == "layer":
            layers = [c.build() for c in gd.Recipe.parse(recipe).combiners]
            branches = gd.Chain(layers, num_losses=NUM_LOSSES)(features)
            outputs = self.heads_on(branches)
            return keras.Model(inputs, outputs)
        activations = self.activations_of(inputs, features)
        trunk = keras.Model(inputs, activations, name="trunk")
        shared = keras.tree.map_structure(
            lambda x: keras.Input(x.shape[1:]), activations
        )
        heads = keras.Model(shared, self.outputs_of(shared), name="heads")
        return gd.MultiLossModel(
            trunk,
            heads,
            recipe=gd.Recipe.parse(recipe),
            separate=self.name == "separated",
            **options,
        )

    def activations_of(self, inputs, features):
        """Returns A: the features, two levels, or a tensor for each loss."""
        if self.name == "blocks":
            next_level = keras.layers.Dense(4, activation="tanh")(features)
            return {"low": features, "high": next_level}
        if self.name == "separated":
            trunk = keras.Model(inputs, features)
            views = [keras.ops.roll(inputs, i, axis=1) for i in (1, 2)]
            return [features, *(trunk(view) for view in views)]
        return features

    def outputs_of(self, shared):
        """Returns the outputs of the heads."""
        if self.name == "vector":
            hidden = keras.layers.Dense(5, activation="tanh")(shared)
            return keras.layers.Dense(NUM_LOSSES, name="out", dtype="float32")(
                hidden
            )
        if self.name == "separated":
            return self.heads_on(shared)
        if self.name == "blocks":
            shared = keras.layers.Concatenate()([*shared.values()])
        return self.heads_on([shared] * NUM_LOSSES)

    def heads_on(self, branches):
        """Returns an output for each branch."""
        return [
            keras.layers.Dense(1, name=name, dtype="float32")(branch)
            for name, branch in zip(NAMES, branches, strict=True)
        ]

    def compile(self, model, optimizer=None, loss_weights=None, **options):
        """Compiles with mean squared errors."""
        if optimizer is None:
            optimizer = keras.optimizers.SGD(0.05)
        loss = "mse"
        if self.name == "vector":
            loss = gd.VectorLoss(squared_errors, names=NAMES)
        elif isinstance(loss_weights, dict):
            loss = dict.fromkeys(NAMES, "mse")
        model.compile(
            optimizer, loss=loss, loss_weights=loss_weights, **options
        )
        return model

    def compiled(self, recipe, optimizer=None, **options):
        """Builds and compiles."""
        return self.compile(self.build(recipe), optimizer, **options)

    def labels(self, y):
        """Shapes `[batch, 3]` labels for the outputs."""
        if self.name == "vector":
            return y
        return [y[:, i : i + 1] for i in range(NUM_LOSSES)]

    def train(self, model, steps=1, seed=0, size=16, **options):
        """Trains on a batch repeatedly and returns the last losses."""
        x, y = batch(size, seed)
        for _ in range(steps):
            logs = model.train_on_batch(
                x, self.labels(y), return_dict=True, **options
            )
        return logs


LAYER, HEADS, VECTOR = Kind("layer"), Kind("heads"), Kind("vector")
# Several tensors that the losses share; a tensor for each loss.
BLOCKS, SEPARATED = Kind("blocks"), Kind("separated")
PLACES = [(r, k) for r in PLACE_RECIPES for k in (BLOCKS, SEPARATED)]


def cases(recipes=None):
    """Returns all pairs of a recipe and a way of use that fits it."""
    return (
        [
            (recipe, kind)
            for recipe in recipes or RECIPES
            for kind in (LAYER, VECTOR)
            if kind is not LAYER or is_combiner_recipe(recipe)
        ]
        + [(recipe, HEADS) for recipe in (recipes or FEW)]
        + ([] if recipes else PLACES)
    )


def twenty_steps(model, kind):
    """Returns the weights after an epoch of twenty batches, none alike."""
    x, y = batch(20 * 16)
    model.fit(x, kind.labels(y), batch_size=16, shuffle=False, verbose=0)
    return trainable(model)


def trainable(model):
    """Returns the trainable weights as arrays."""
    return [w.numpy() for w in model.trainable_variables]


def largest_difference(first, second):
    """Returns the largest absolute difference of two lists of arrays."""
    return max(np.abs(a - b).max() for a, b in zip(first, second, strict=True))
