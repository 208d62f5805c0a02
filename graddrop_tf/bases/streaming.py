"""Combining gradients that come a few at a time."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf.places import Place, Structure


class Streaming(abc.ABC):
    """A combination accumulated loss by loss: start, add chunks, finish."""

    @abc.abstractmethod
    def start(self, num_losses: int, place: Place) -> None:
        """Prepares for the gradients of T losses that meet at a place."""

    @abc.abstractmethod
    def add(
        self, indices: Sequence[int], gradients: list[Structure]
    ) -> list[tf.Tensor]:
        """Adds the gradients of some losses.

        Args:
            indices: Which losses they are, in ascending order.
            gradients: Their gradients, in the form of A.

        Returns:
            The accumulators, which the next chunk has to wait for.
        """

    @abc.abstractmethod
    def finish(self) -> Structure:
        """Returns the sum of all combined gradients, in the form of A."""
