"""What a gradient monitor computes from the gradients of the losses.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020: the share of the gradients that GradDrop
keeps is that of Figure 3(c).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import linalg, random
from graddrop_tf.bases.chain import Chain
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.methods.graddrop.layer import SignDropout
from graddrop_tf.methods.graddrop.masking import trunk_gradients
from graddrop_tf.methods.graddrop.purity import (
    mask_without_signs,
    purity_of_sums,
    purity_sums,
    sign_purity,
    signed_gradients,
)
from graddrop_tf.monitor.probes import Measured
from graddrop_tf.places import Place, Structure


def kept_share(
    gradients: Sequence[Structure], place: Place, graddrop: SignDropout
) -> tf.Tensor:
    """Computes the share of the gradients' nonzero values that GradDrop keeps.

    It is the expectation over the uniform draw: a value is kept with
    probability f(P) if its G_i is positive, with 1 - f(P) if negative, and
    never if 0 (Algorithm 1, step 4), unless the G_i of all losses are 0. A
    leak counts as its weight: `l_i + (1 - l_i) M_i`.

    Args:
        gradients: T gradients, dL_i/dA (batch separated: dL_i/dA_i).
        place: Where they meet.
        graddrop: The layer that masks them.

    Returns:
        A scalar in [0, 1]; 0 if all gradients are 0, NaN if one is not
        finite.

    Example:
        >>> gradients = [tf.constant([[3.0]]), tf.constant([[-1.0]])]
        >>> kept_share(gradients, Shared(tf.ones([1, 1])), gd.GradDrop())
        0.5
    """
    leaks = graddrop.number("leak", num_losses=len(gradients))
    leaks = tf.unstack(leaks, num=len(gradients))
    transform = graddrop.transform()
    kept = count = 0.0
    for of_block, block in place.split(gradients):
        G = signed_gradients(of_block, block, graddrop.marginalize_batch)
        positive, total = purity_sums(G)
        f_P = transform(purity_of_sums(positive, total))
        unmasked = mask_without_signs(total)
        for g, G_i, leak in zip(of_block, G, leaks, strict=True):
            chance = tf.where(G_i > 0, f_P, 1 - f_P)
            chance = tf.where(tf.equal(G_i, 0), unmasked, chance)
            counts = tf.cast(tf.not_equal(g, 0), chance.dtype)
            leak = tf.cast(leak, chance.dtype)
            kept += tf.reduce_sum(counts * (leak + (1 - leak) * chance))
            count += tf.reduce_sum(counts)
    return linalg.safe_ratio(kept, count)


def mean_purity(
    gradients: Sequence[Structure], place: Place, graddrop: SignDropout
) -> tf.Tensor:
    """Computes the mean sign purity over positions with a gradient.

    Args:
        gradients: As in `kept_share`, like all that follow.
        place: As in `kept_share`.
        graddrop: As in `kept_share`.

    Returns:
        A scalar in [0, 1]; 0.5 if there is no such position, NaN if a
        gradient is not finite.
    """
    total = count = 0.0
    for of_block, block in place.split(gradients):
        G = signed_gradients(of_block, block, graddrop.marginalize_batch)
        # P is exactly 0.5 where there is no gradient.
        beyond_half = sign_purity(G) - 0.5
        present = tf.not_equal(tf.add_n([tf.abs(G_i) for G_i in G]), 0)
        total += tf.reduce_sum(beyond_half)
        count += tf.reduce_sum(tf.cast(present, beyond_half.dtype))
    return 0.5 + linalg.safe_ratio(total, count)


def mean_cosine_and_conflict_rate(
    gradients: Sequence[Structure], place: Place
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compares the gradients of all pairs of losses.

    Batch-separated gradients belong to different examples. They are compared
    by the G_i, the sums of sgn(A_i) dL_i/dA_i over the batch.

    Args:
        gradients: As in `kept_share`.
        place: As in `kept_share`.

    Returns:
        The mean of cos(g_i, g_j) over the pairs i < j, where a gradient of
        zeros has cosine 0, and the share of pairs with a negative inner
        product. Both are `float64`, 0 for a single loss, and NaN if a
        gradient is not finite.
    """
    gram = place.comparable(gradients, signed_gradients).gram()
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    cosines = linalg.safe_ratio(gram, norms[:, None] * norms[None, :])
    cosines = tf.linalg.set_diag(cosines, tf.zeros_like(norms))
    conflicts = tf.cast(cosines < 0, cosines.dtype)
    conflicts = tf.where(tf.math.is_nan(cosines), cosines, conflicts)
    count = max(1, len(gradients) * (len(gradients) - 1))
    return tf.reduce_sum(cosines) / count, tf.reduce_sum(conflicts) / count


def trunk_norm(gradients: Sequence[Structure], place: Place) -> tf.Tensor:
    """Computes the L2 norm of the gradient that the trunk receives.

    Args:
        gradients: As in `kept_share`.
        place: As in `kept_share`.

    Returns:
        A `float64` scalar: the norm of the sum, or of all gradients together
        if they are batch separated.
    """
    received = trunk_gradients(gradients, place)
    return tf.sqrt(tf.reduce_sum(linalg.squared_norms(received)))


def measure(
    measured: Measured, graddrop: SignDropout, scale: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Computes all quantities that `gd.GradientMonitor` logs of a combiner.

    Args:
        measured: The gradients there.
        graddrop: The layer of `hypothetical_kept_share`.
        scale: The loss scale that the gradients were multiplied by.

    Returns:
        Scalars by name.
    """
    gradients, place = measured.gradients, measured.place
    methods = _methods_of(measured.combiner)
    masks = [m for m in methods if isinstance(m, SignDropout)]
    mask = masks[0] if masks else graddrop
    masked = combined = gradients
    # The methods start from the state of training.
    with keras.StatelessScope(), random.resumed(measured.scope):
        for method in methods:
            if method is mask:
                masked = combined
            combined = method.combine_at(combined, place)
    cosine, conflict_rate = mean_cosine_and_conflict_rate(gradients, place)
    scale = tf.cast(scale, tf.float64)
    return {
        "kept_share": kept_share(masked, place, mask),
        "hypothetical_kept_share": kept_share(gradients, place, graddrop),
        "mean_purity": mean_purity(masked, place, mask),
        "mean_cosine": cosine,
        "conflict_rate": conflict_rate,
        "norm_before": trunk_norm(gradients, place) / scale,
        "norm_after": trunk_norm(combined, place) / scale,
        **{f"weight_{name}": w for name, w in measured.weights.items()},
    }


def _methods_of(combiner: Combiner) -> list[Combiner]:
    """Returns the combiner, or those that a chain is made of."""
    if not isinstance(combiner, Chain):
        return [combiner]
    return [m for inner in combiner.combiners for m in _methods_of(inner)]
