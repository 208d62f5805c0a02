"""Gradient Sign Dropout.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from graddrop_tf import linalg, replicas
from graddrop_tf.bases.combiner import Combiner, Streaming
from graddrop_tf.bases.configuration import is_number

PurityTransform = Callable[[tf.Tensor], tf.Tensor]


def sign_purity(gradients) -> tf.Tensor:
    """Computes the sign purity of per-loss gradients (Eq. 1).

    `P = 1/2 (1 + sum_i g_i / sum_i |g_i|)`, elementwise: 0 where all
    gradients are negative, 1 where all are positive, 0.5 where all are zero.
    It is computed as the positive part of the sum over all of it, which is
    exactly 0 or 1 for gradients that agree, at any scale.

    Args:
        gradients: A list of T tensors of one shape, or a stack `[T, ...]`.

    Returns:
        A tensor of one gradient's shape with values in [0, 1]: `float64` for
        `float64` gradients, else `float32`. NaN where a gradient is NaN or
        infinite.

    Raises:
        ValueError: Where `gradients` is empty.

    Example:
        >>> P = gd.sign_purity([[3.0, 7.0], [1.0, -3.0]])  # 1.0 and 0.7
    """
    gradients = linalg.as_list(gradients)
    dtype = linalg.accumulation_dtype(gradients[0].dtype)
    return _purity([tf.cast(g, dtype) for g in gradients])


def _purity(signed: list[tf.Tensor]) -> tf.Tensor:
    return _ratio(*_purity_parts(signed))


def _purity_parts(signed: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums of the positive parts and of the magnitudes of all G_i.

    Both run in one order: they are equal where all losses agree.
    """
    positive = tf.add_n([tf.nn.relu(g) for g in signed])
    return positive, tf.add_n([tf.abs(g) for g in signed])


def _ratio(positive: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """P of its parts."""
    empty = tf.equal(total, 0)
    purity = positive / tf.where(empty, tf.ones_like(total), total)
    # A negative infinity alone would give 0.
    purity = tf.where(tf.math.is_finite(total), purity, _nan(total))
    return tf.where(empty, 0.5 * tf.ones_like(total), purity)


def graddrop(
    gradients,
    activations,
    *,
    uniform,
    leak: float | Sequence[float] = 0.0,
    k: float = 1.0,
    purity_transform: PurityTransform | None = None,
    marginalize_batch: bool = True,
    renormalize: bool = False,
    replica_sum: linalg.ReplicaSum = replicas.identity,
) -> list[tf.Tensor]:
    """Masks per-loss gradients by Gradient Sign Dropout (Algorithm 1).

    Args:
        gradients: The gradient of each loss with respect to the activations:
            a list of T tensors `[batch, ...]` or a stack `[T, batch, ...]`.
        activations: One tensor where the losses share it. A list of T where
            the losses are batch separated (section 3.2): their batch sizes
            may differ, and the batch is always summed away.
        uniform: Draws from the open interval (0, 1) of the purity's shape:
            that of one example where the batch is summed away, else that of
            the activations.
        leak: Share of each gradient that passes unmasked, in [0, 1]: one
            value or one for each loss.
        k: Steepness of `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`; 1 is the
            paper's default, 0 is Random GradDrop.
        purity_transform: f itself, in place of `k`: monotone, and odd around
            (0.5, 0.5).
        marginalize_batch: Whether the purity is that of the gradients'
            sums over the batch (step 2).
        renormalize: Whether to scale the result so that its L2 norm equals
            that of the plain sum (batch separated: of all gradients).
        replica_sum: Sums a tensor over replicas.

    Returns:
        T masked gradients in the shapes and dtypes of the inputs, whose sum
        is the paper's `newgrad`. A NaN or an infinite value makes all of its
        purity's position non-finite.

    Raises:
        ValueError: Where shapes or numbers do not match, or a value is out
            of its range.

    Example:
        >>> masked = gd.graddrop(
        ...     [tf.constant([[1.0, -1.0]]), tf.constant([[2.0, 3.0]])],
        ...     tf.ones([1, 2]),
        ...     uniform=tf.constant([0.5, 0.9]),
        ... )  # the second feature: P = 0.75 < 0.9, the negative sign stays
    """
    gradients = linalg.as_list(gradients)
    activations = _as_tensors(activations)
    linalg.check_shapes(gradients, activations)
    transform = resolve_purity_transform(k, purity_transform)
    marginalize = marginalize_batch or linalg.is_separate(activations)
    leaks = check_leak(leak, len(gradients))
    # A list, not a stack: each tensor fits the cache.
    signed = _signed_gradients(gradients, activations, marginalize)  # G
    if marginalize:
        signed = replica_sum(signed)
    kept_sign, poison = _draw_sign(_purity(signed), transform, uniform)
    masked = []
    for g, G, leak in zip(gradients, signed, leaks, strict=True):
        M = tf.cast(kept_sign * G > 0, G.dtype)
        factor = (leak + (1 - leak) * M if leak else M) + poison
        masked.append(g * tf.cast(factor, g.dtype))
    if not renormalize:
        return masked
    if linalg.is_separate(activations):
        old, new = gradients, masked
    else:
        old, new = [_sum_up(gradients)], [_sum_up(masked)]
    ratio = _norm_ratio(old, new, replica_sum)
    return [g * tf.cast(ratio, g.dtype) for g in masked]


def _as_tensors(activations):
    if linalg.is_separate(activations):
        return [tf.convert_to_tensor(a) for a in activations]
    return tf.convert_to_tensor(activations)


def _signed_gradients(gradients, activations, marginalize) -> list[tf.Tensor]:
    """G_i = sgn(A) dL_i/dA, summed over the batch (steps 1 and 2)."""
    dtype = linalg.accumulation_dtype(gradients[0].dtype)
    if linalg.is_separate(activations):
        signs = [tf.cast(tf.sign(a), dtype) for a in activations]
    else:
        signs = [tf.cast(tf.sign(activations), dtype)] * len(gradients)
    signed = [
        sign * tf.cast(g, dtype)
        for sign, g in zip(signs, gradients, strict=True)
    ]
    if not marginalize:
        return signed
    return [tf.reduce_sum(g, axis=0, keepdims=True) for g in signed]


def _draw_sign(purity, transform, uniform):
    """I[f(P) > U] - I[f(P) < U] (step 4), and NaN where P is not finite."""
    uniform = tf.cast(tf.convert_to_tensor(uniform), purity.dtype)
    if uniform.shape.rank == purity.shape.rank - 1:
        uniform = uniform[None]
    if not uniform.shape.is_compatible_with(purity.shape):
        raise ValueError(
            "`uniform` must have the shape of the purity. Received shape "
            f"{uniform.shape}, expected {purity.shape}."
        )
    transformed = transform(purity)
    zeros = tf.zeros_like(purity)
    poison = tf.where(tf.math.is_finite(purity), zeros, _nan(purity))
    return tf.sign(transformed - uniform), poison


def _nan(like: tf.Tensor) -> tf.Tensor:
    return tf.constant(float("nan"), like.dtype)


def _sum_up(gradients) -> tf.Tensor:
    dtype = linalg.accumulation_dtype(gradients[0].dtype)
    return tf.add_n([tf.cast(g, dtype) for g in gradients])


def _norm_ratio(old, new, replica_sum) -> tf.Tensor:
    squares = replica_sum(
        tf.stack(
            [
                tf.reduce_sum(linalg.squared_norms(old)),
                tf.reduce_sum(linalg.squared_norms(new)),
            ]
        )
    )
    return tf.sqrt(linalg.safe_ratio(squares[0], squares[1]))


def linear_purity_transform(k: float) -> PurityTransform:
    """Returns the paper's family, `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`."""

    def transform(purity: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(k * (purity - 0.5) + 0.5, 0.0, 1.0)

    return transform


def resolve_purity_transform(
    k: float, purity_transform: PurityTransform | None
) -> PurityTransform:
    """Returns f, checking that `k` or `purity_transform` is one.

    Raises:
        ValueError: Where k is negative, both are given, or f is not monotone
            or not odd around (0.5, 0.5).
    """
    if purity_transform is not None:
        if k != 1.0:
            raise ValueError(
                "Give either `k` or `purity_transform`. Received both: "
                f"k={k}, purity_transform={purity_transform}."
            )
        _check_purity_transform(purity_transform)
        return purity_transform
    if not is_number(k) or k < 0:
        raise ValueError(f"`k` must be at least 0 and finite. Received: k={k}.")
    return linear_purity_transform(float(k))


def _check_purity_transform(transform: PurityTransform) -> None:
    if not callable(transform):
        raise ValueError(
            "`purity_transform` must be a callable that maps purities to "
            f"[0, 1]. Received: {transform!r}."
        )
    with tf.init_scope():
        purity = tf.linspace(0.0, 1.0, 101)
        value = tf.convert_to_tensor(transform(purity)).numpy()
    if value.shape != purity.shape:
        problem = f"f of shape {purity.shape} has shape {value.shape}"
    elif not (value.min() >= 0 and value.max() <= 1):
        problem = "f leaves [0, 1]"
    elif (value[1:] - value[:-1]).min() < -1e-6:
        problem = "f is not monotone"
    elif abs(value + value[::-1] - 1).max() > 1e-5:
        problem = "f(1 - p) is not 1 - f(p)"
    else:
        return
    raise ValueError(
        "`purity_transform` must be monotone, odd around (0.5, 0.5), and map "
        f"[0, 1] to [0, 1]. Received: {transform}, where {problem}."
    )


def check_leak(leak, num_losses: int | None = None) -> list[float] | float:
    """Checks leaks and gives each of `num_losses` its own.

    Args:
        leak: A number or a sequence of numbers in [0, 1].
        num_losses: T, or None where it is not known yet.

    Returns:
        A list of T floats; without `num_losses` as many as came.

    Raises:
        ValueError: Where a leak is no number in [0, 1], or the number of
            leaks is not T.
    """
    leaks = [leak] if is_number(leak) else leak
    try:
        leaks = list(leaks)
    except TypeError:
        leaks = [leak]
    if any(not is_number(x) or not 0 <= x <= 1 for x in leaks):
        raise ValueError(
            f"`leak` must be in [0, 1], for each loss. Received: leak={leak}."
        )
    if is_number(leak) and num_losses is not None:
        leaks = leaks * num_losses
    if num_losses is not None and len(leaks) != num_losses:
        raise ValueError(
            "`leak` must be one number or one for each loss. Received: "
            f"{len(leaks)} leaks for {num_losses} losses."
        )
    return [float(x) for x in leaks]


@keras.saving.register_keras_serializable("graddrop_tf")
class GradDrop(Combiner):
    """Keeps, at each position, the gradients of one sign.

    The sign is drawn with the probability given by the sign purity: how far
    the losses' gradients agree there. Going forward, and everywhere outside
    of training, the layer is the identity and adds no operation.

    Reference: Chen et al., NeurIPS 2020, Algorithm 1.

    Args:
        num_losses: T. Needed where the losses share one tensor and the layer
            is called in a model; a list of tensors gives its own length.
        leak: Share of each gradient that passes unmasked, in [0, 1]: one
            number, one for each loss, or (in `MultiLossModel`) a dict from
            the losses' names; losses not named have leak 0.
        k: Steepness of `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`, at least 0.
        purity_transform: A callable f in place of `k`: monotone, and odd
            around (0.5, 0.5). Register it with Keras to save the model.
        marginalize_batch: Whether the purity is that of the gradients' sums
            over the batch. Batch-separated gradients are always summed.
        renormalize: Whether to scale the result to the L2 norm of the plain
            sum.
        sync_replicas: Whether purity is computed over the global batch; costs
            a sum of T x (size of the purity) floats in each step.
        seed: Integer seed of the masks; drawn where it is None.
        **kwargs: `name`, `dtype`.

    Input shape:
        `[batch, ...]`, or a list of T such tensors that may differ in their
        batch size.

    Output shape:
        A list of T tensors: the input itself for each loss, or the inputs.

    Raises:
        ValueError: Where an argument is out of its range or does not match
            the number of losses.

    Example:
        >>> features = keras.Input([8])
        >>> a, b = gd.GradDrop(num_losses=2)(features)
    """

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        leak: float | Sequence[float] | dict[str, float] = 0.0,
        k: float = 1.0,
        purity_transform: PurityTransform | None = None,
        marginalize_batch: bool = True,
        renormalize: bool = False,
        sync_replicas: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            num_losses, sync_replicas=sync_replicas, seed=seed, **kwargs
        )
        self._transform = resolve_purity_transform(k, purity_transform)
        if isinstance(leak, dict):
            check_leak(list(leak.values()))
        else:
            check_leak(leak, num_losses)
        self.leak = leak
        self.k = k
        self.purity_transform = purity_transform
        self.marginalize_batch = bool(marginalize_batch)
        self.renormalize = bool(renormalize)

    def set_losses(self, num_losses, names=None):
        """See base class; resolves leaks given by name."""
        super().set_losses(num_losses, names)
        self._leaks(num_losses)

    def _leaks(self, num_losses: int) -> list[float]:
        if not isinstance(self.leak, dict):
            return check_leak(self.leak, num_losses)
        if self.loss_names is None:
            raise ValueError(
                "A `leak` by name needs a `MultiLossModel`, which knows the "
                f"names of its losses. Received: leak={self.leak}."
            )
        unknown = sorted(set(self.leak) - set(self.loss_names))
        if unknown:
            raise ValueError(
                f"`leak` names no such loss: {unknown}. The losses are "
                f"{list(self.loss_names)}."
            )
        return [float(self.leak.get(name, 0.0)) for name in self.loss_names]

    def _uniform(self, gradient: tf.Tensor, marginalize: bool) -> tf.Tensor:
        shape = tf.shape(gradient)
        if not marginalize:
            drawn = self.uniform(shape, per_example=True)
            return tf.ensure_shape(drawn, gradient.shape)
        drawn = self.uniform(shape[1:])
        return tf.ensure_shape(drawn, gradient.shape[1:])

    def combine(self, gradients, activations):
        """See base class."""
        separate = linalg.is_separate(activations)
        return graddrop(
            gradients,
            activations,
            uniform=self._uniform(
                gradients[0], self.marginalize_batch or separate
            ),
            leak=self._leaks(len(gradients)),
            k=self.k,
            purity_transform=self.purity_transform,
            marginalize_batch=self.marginalize_batch,
            renormalize=self.renormalize,
            replica_sum=self.replica_sum,
        )

    @property
    def can_stream(self):
        """See base class."""
        return True

    def streaming(self, num_losses, activations):
        """See base class."""
        return _StreamingGradDrop(self, num_losses, activations)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "leak": self.leak,
            "k": self.k,
            "purity_transform": keras.saving.serialize_keras_object(
                self.purity_transform
            ),
            "marginalize_batch": self.marginalize_batch,
            "renormalize": self.renormalize,
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the layer from `get_config`."""
        transform = config.get("purity_transform")
        if isinstance(transform, dict):
            transform = keras.saving.deserialize_keras_object(transform)
        return cls(**{**config, "purity_transform": transform})


class _StreamingGradDrop(Streaming):
    """Sums by sign: at each position one draw decides for all losses."""

    def __init__(self, layer: GradDrop, num_losses: int, activations):
        self._layer = layer
        self._activations = activations
        self._leaks = layer._leaks(num_losses)
        self._positive = self._negative = self._leaked = None
        self._purity_parts = self._plain = None

    def add(self, indices, gradients):
        layer = self._layer
        signed = _signed_gradients(
            gradients, self._activations, layer.marginalize_batch
        )
        if layer.marginalize_batch:
            signed = layer.replica_sum(signed)
        for i, gradient, sign in zip(indices, gradients, signed, strict=True):
            gradient = tf.cast(gradient, sign.dtype)
            kept = gradient * (1 - self._leaks[i])
            zeros = tf.zeros_like(kept)
            self._positive = _plus(
                self._positive, tf.where(sign > 0, kept, zeros)
            )
            self._negative = _plus(
                self._negative, tf.where(sign < 0, kept, zeros)
            )
            if any(self._leaks):
                leaked = gradient * self._leaks[i]
                self._leaked = _plus(self._leaked, leaked)
            if layer.renormalize:
                self._plain = _plus(self._plain, gradient)
        parts = tf.stack(_purity_parts(signed))
        self._purity_parts = _plus(self._purity_parts, parts)
        accumulators = [self._positive, self._negative, self._purity_parts]
        return accumulators + [
            a for a in (self._leaked, self._plain) if a is not None
        ]

    def finish(self):
        layer = self._layer
        sign, poison = _draw_sign(
            _ratio(self._purity_parts[0], self._purity_parts[1]),
            layer._transform,
            layer._uniform(self._positive, layer.marginalize_batch),
        )
        zeros = tf.zeros_like(self._positive)
        total = tf.where(sign > 0, self._positive, zeros) + tf.where(
            sign < 0, self._negative, zeros
        )
        if self._leaked is not None:
            total += self._leaked
        total += poison
        if layer.renormalize:
            ratio = _norm_ratio([self._plain], [total], layer.replica_sum)
            total *= tf.cast(ratio, total.dtype)
        return tf.cast(total, self._activations.dtype)


def _plus(total: tf.Tensor | None, value: tf.Tensor) -> tf.Tensor:
    return value if total is None else total + value


@keras.saving.register_keras_serializable("graddrop_tf")
class RandomGradDrop(GradDrop):
    """GradDrop with k = 0: a fair coin picks the sign (section 4.1).

    Args:
        num_losses: As in `GradDrop`, like all that follow.
        leak: As in `GradDrop`.
        marginalize_batch: As in `GradDrop`.
        renormalize: As in `GradDrop`.
        sync_replicas: As in `GradDrop`.
        seed: As in `GradDrop`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.RandomGradDrop(num_losses=2)
    """

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        leak: float | Sequence[float] | dict[str, float] = 0.0,
        marginalize_batch: bool = True,
        renormalize: bool = False,
        sync_replicas: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            num_losses,
            leak=leak,
            k=0.0,
            marginalize_batch=marginalize_batch,
            renormalize=renormalize,
            sync_replicas=sync_replicas,
            seed=seed,
            **kwargs,
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["k"], config["purity_transform"]
        return config

    @classmethod
    def from_config(cls, config):
        """Rebuilds the layer from `get_config`."""
        return cls(**config)
