"""Where the gradients of the losses meet.

A place holds the activations and answers for what depends on their form: one
tensor that all losses share, a structure of tensors that they share (a feature
pyramid), or a tensor for each loss where the losses are batch separated. The
gradient of a loss has the structure of its activations. Each tensor of that
structure is a block: methods act on one block after the other, or on inner
products, which are sums over all blocks.

Activations become a place where a user hands them over, by `of`; no other
module asks for their form.
"""

from __future__ import annotations

from graddrop_tf.places.place import Place, Structure, check_features
from graddrop_tf.places.separated import Separated
from graddrop_tf.places.shared import Shared

__all__ = [
    "Place",
    "Separated",
    "Shared",
    "Structure",
    "check_features",
    "of",
]


def of(activations: Structure, separate: bool | None = None) -> Place:
    """Returns the place of activations.

    Args:
        activations: A.
        separate: Whether A is a list with the activations of each loss,
            computed from examples of its own, and not a structure that the
            losses share. None: whether A is a list.

    Raises:
        ValueError: If `separate` is true and A is no list.
    """
    is_list = isinstance(activations, (list, tuple))
    if separate and not is_list:
        raise ValueError(
            "`separate=True` needs a list with the activations of each loss. "
            f"Received: {activations}."
        )
    separate = is_list if separate is None else separate
    return Separated(activations) if separate else Shared(activations)
