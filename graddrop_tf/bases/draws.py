"""Random draws of a method, repeatable from its seed and the step."""

from __future__ import annotations

import tensorflow as tf

from graddrop_tf import random, replicas
from graddrop_tf.bases.state import Stateful


class RandomDraws(Stateful):
    """Gives a method random draws.

    A draw is a function of the seed and of the step. Both are saved with the
    model, so that a resumed run repeats it, and it is equal on every replica.

    Args:
        seed: Integer seed of the draws; drawn if None.
        **kwargs: Arguments of the method.

    Raises:
        ValueError: If the seed is not an integer from 0 to 2**31 - 1.

    Example:
        >>> class Lottery(gd.RandomDraws, gd.Weighting):
        ...     def weights_of(self, state, losses):
        ...         return 2.0 * self.uniform(losses.shape)
    """

    def __init__(self, *, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if seed is not None and (
            isinstance(seed, bool)
            or not isinstance(seed, int)
            or not 0 <= seed < 2**31
        ):
            raise ValueError(
                "`seed` must be an integer from 0 to 2**31 - 1. Received: "
                f"seed={seed!r}."
            )
        self.seed = random.new_seed() if seed is None else seed

    def _hidden_state(self):
        seed = tf.constant(self.seed, tf.int64)
        return {**super()._hidden_state(), "seed": seed}

    def _seed(self) -> tf.Tensor | int:
        seed = self._kept.get("seed")
        return self.seed if seed is None else seed.value

    def uniform(self, shape, per_example: bool = False) -> tf.Tensor:
        """Draws from (0, 1), the same on all replicas at the same step.

        Args:
            shape: Shape of the draw.
            per_example: Whether the first axis is the batch: then each
                replica gets its slice of the global batch's draw.

        Returns:
            A `float32` tensor.
        """
        lane = None
        if per_example and replicas.num_replicas() > 1:
            lane = (replicas.replica_index(), replicas.num_replicas())
        return random.uniform(shape, self._seed(), lane)

    def permutations(self, rows: int, length: int) -> tf.Tensor:
        """Draws orders of `0 ... length - 1`, `int32` `[rows, length]`."""
        return random.permutations(rows, length, self._seed())
