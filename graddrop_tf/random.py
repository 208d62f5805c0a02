"""Stateless random draws: a function of seed, step and order alone.

The draws do not depend on the replica, the device, or whether the step runs
in eager mode, in a `tf.function` or under XLA.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random as python_random
import threading

import tensorflow as tf

# MirroredStrategy traces each replica in its own thread and switches between
# them at every collective.
_THREAD = threading.local()


@dataclasses.dataclass
class Scope:
    """Where the draws of a step stand.

    Attributes:
        step: The step.
        lane: As in `drawing`.
        num_draws: Number of draws so far.
    """

    step: tf.Tensor
    lane: tuple[tf.Tensor, int] | None = None
    num_draws: int = 0


@contextlib.contextmanager
def drawing(step: tf.Tensor | int, lane: tuple[tf.Tensor, int] | None = None):
    """Sets the position of the draws inside in the random stream.

    Args:
        step: Integer scalar. Another step, other draws.
        lane: `(index, count)`: the draws are those of one of `count`
            independent lanes, for example one of many runs that
            `tf.vectorized_map` computes together. All lanes are drawn at
            once, so the draw itself does not depend on `index`.

    Yields:
        The `Scope`.
    """
    with resumed(Scope(step, lane)) as scope:
        yield scope


@contextlib.contextmanager
def resumed(scope: Scope):
    """Continues the draws of a scope; the scope itself does not change.

    Args:
        scope: What `drawing` yielded.

    Yields:
        A `Scope` of its own.
    """
    outer = getattr(_THREAD, "scope", None)
    _THREAD.scope = dataclasses.replace(scope)
    try:
        yield _THREAD.scope
    finally:
        _THREAD.scope = outer


def current_step() -> tf.Tensor:
    """Returns the step of the `drawing` scope around the call, `int64`.

    Raises:
        ValueError: Outside of a `drawing` scope.
    """
    return tf.cast(_scope("A schedule").step, tf.int64)


def _scope(what: str) -> Scope:
    scope = getattr(_THREAD, "scope", None)
    if scope is None:
        raise ValueError(
            f"{what} needs its step. Received: a call outside of "
            "`graddrop_tf.random.drawing`. Put `with drawing(step):` around "
            "the call of `combine`."
        )
    return scope


def new_seed() -> int:
    """Returns a seed; `keras.utils.set_random_seed` makes it repeatable."""
    return python_random.randint(0, 2**31 - 1)


def bits(shape, seed: int | tf.Tensor, lane=None) -> tf.Tensor:
    """Draws uniform bits inside a `drawing` scope.

    Args:
        shape: Shape of the draw.
        seed: Integer seed of the one who draws.
        lane: As in `drawing`, used where the scope has none.

    Returns:
        A `uint32` tensor of the given shape.

    Raises:
        ValueError: Outside of a `drawing` scope.
    """
    scope = _scope("A random draw")
    lane = scope.lane or lane
    key = tf.stack(
        [
            # A method may draw twice in a step; two methods may share a seed.
            tf.cast(seed, tf.int64) + (scope.num_draws << 32),
            tf.cast(scope.step, tf.int64),
        ]
    )
    scope.num_draws += 1
    if lane is not None:
        shape = tf.concat([[lane[1]], shape], axis=0)
    drawn = tf.random.stateless_uniform(
        shape, key, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    return drawn if lane is None else tf.gather(drawn, lane[0])


def uniform(shape, seed: int | tf.Tensor, lane=None) -> tf.Tensor:
    """Draws from the *open* interval (0, 1).

    TensorFlow's own float draw reaches 0.0, which would drop gradients that
    agree, and differs under XLA.

    Args:
        shape: Shape of the draw.
        seed: Integer seed of the one who draws.
        lane: As in `bits`.

    Returns:
        A `float32` tensor of the given shape.
    """
    drawn = tf.bitwise.right_shift(
        bits(shape, seed, lane), tf.constant(9, tf.uint32)
    )
    return (tf.cast(drawn, tf.float32) + 0.5) * 2.0**-23


def permutations(rows: int, length: int, seed: int | tf.Tensor) -> tf.Tensor:
    """Draws independent random orders of `0 ... length - 1`.

    Returns:
        An `int32` tensor of shape `[rows, length]`.
    """
    return tf.argsort(uniform([rows, length], seed), axis=-1)
