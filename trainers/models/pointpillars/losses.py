"""The nine losses, as nine Keras losses on nine outputs.

Six Huber losses of the box's offsets and sizes, one of the sine of the
heading's difference, a focal loss of the class and a cross-entropy of the
direction (Lang et al., CVPR 2019, section 3.2; the GradDrop paper, section
4.4). Each takes targets as `anchors.assign` makes them: NaN where an anchor
does not count. An example's loss is the sum over its anchors, divided by the
number of positive ones (by 1 if there are none).
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

# In the order of the GradDrop paper.
LOSS_NAMES = (
    "x", "y", "z", "length", "width", "height", "rotation", "class",
    "direction",
)  # fmt: skip

LOSS_WEIGHTS = {
    **dict.fromkeys(LOSS_NAMES[:7], 2.0),
    "class": 1.0,
    "direction": 0.2,
}

HUBER_DELTA = 1 / 9
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


def huber(difference, delta: float = HUBER_DELTA) -> tf.Tensor:
    """Computes Huber's loss over delta: of slope 1 beyond delta.

    This is the smooth L1 loss of earlier detectors, for which the weights were
    tuned; `keras.losses.huber` has slope delta there, and averages over an
    axis.

    Args:
        difference: `[...]`.
        delta: Where the parabola ends.

    Returns:
        `d^2 / (2 delta)` up to delta and `|d| - delta / 2` beyond, `[...]`.
    """
    size = tf.abs(difference)
    parabola = tf.minimum(size, delta)
    return size - parabola + tf.square(parabola) / (2 * delta)


def focal_cross_entropy(
    labels, logits, alpha: float = FOCAL_ALPHA, gamma: float = FOCAL_GAMMA
) -> tf.Tensor:
    """Computes the focal loss, finite with its gradient for all logits.

    `-alpha_t (1 - p_t)^gamma log(p_t)`, with p_t the probability given to the
    label (Lin et al., ICCV 2017, Eq. 5). `keras.losses` computes it too, but
    `1 - p_t` loses its digits in float32 where p_t is close to 1.

    Args:
        labels: 0 or 1, `[...]`.
        logits: `[...]`.
        alpha: Weight of label 1; that of label 0 is `1 - alpha`.
        gamma: Strength of the discount on confident predictions.

    Returns:
        Losses `[...]`.
    """
    margin = (2 * labels - 1) * logits
    weight = labels * alpha + (1 - labels) * (1 - alpha)
    modulation = tf.exp(-gamma * tf.math.softplus(margin))
    return weight * modulation * tf.math.softplus(-margin)


class _AnchorLoss(keras.losses.Loss):
    """The sum over an example's anchors, divided by the positive ones."""

    def call(self, y_true, y_pred):
        """Computes the loss of each example, `[batch]`."""
        counts = ~tf.math.is_nan(y_true)
        targets = tf.where(counts, y_true, 0.0)
        values = tf.where(counts, self.compute_per_anchor(targets, y_pred), 0.0)
        positive = tf.cast(self.are_positive(y_true), values.dtype)
        axes = list(range(1, len(y_true.shape)))
        return tf.reduce_sum(values, axes) / tf.maximum(
            tf.reduce_sum(positive, axes), 1.0
        )

    def compute_per_anchor(self, targets, predictions):
        """Computes the loss of each anchor, `[batch, rows, columns, 2]`."""
        raise NotImplementedError

    def are_positive(self, y_true):
        """Returns which anchors are positive: those with a target."""
        return ~tf.math.is_nan(y_true)


@keras.saving.register_keras_serializable("pointpillars")
class ResidualLoss(_AnchorLoss):
    """Huber loss of a residual.

    Args:
        name: Name of the loss.
        **kwargs: As in `keras.losses.Loss`.

    Input shape:
        `y_true`: `[batch, rows, columns, 2]`, residuals or NaN.
        `y_pred`: the same.
    """

    def compute_per_anchor(self, targets, predictions):
        """See base class."""
        return huber(predictions - targets)


@keras.saving.register_keras_serializable("pointpillars")
class RotationLoss(_AnchorLoss):
    """Huber loss of the sine of a heading's error; half turns cost nothing.

    Args:
        name: Name of the loss.
        **kwargs: As in `keras.losses.Loss`.

    Input shape:
        `y_true`: `[batch, rows, columns, 2]`, radians or NaN.
        `y_pred`: the same.
    """

    def compute_per_anchor(self, targets, predictions):
        """See base class."""
        return huber(tf.sin(predictions - targets))


@keras.saving.register_keras_serializable("pointpillars")
class ClassLoss(_AnchorLoss):
    """Focal loss of vehicle or background.

    Args:
        name: Name of the loss.
        **kwargs: As in `keras.losses.Loss`.

    Input shape:
        `y_true`: `[batch, rows, columns, 2]`: 1, 0 or NaN.
        `y_pred`: the same, logits.
    """

    def compute_per_anchor(self, targets, predictions):
        """See base class."""
        return focal_cross_entropy(targets, predictions)

    def are_positive(self, y_true):
        """See base class."""
        return tf.equal(y_true, 1.0)


@keras.saving.register_keras_serializable("pointpillars")
class DirectionLoss(_AnchorLoss):
    """Softmax cross-entropy of forwards or backwards.

    Args:
        name: Name of the loss.
        **kwargs: As in `keras.losses.Loss`.

    Input shape:
        `y_true`: `[batch, rows, columns, 2]`: 0, 1 or NaN.
        `y_pred`: `[batch, rows, columns, 2, 2]`, logits of both.
    """

    def compute_per_anchor(self, targets, predictions):
        """See base class."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(targets, tf.int32), predictions
        )


def compute_per_frame(
    targets: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]
) -> tf.Tensor:
    """Computes the losses of each frame.

    Args:
        targets: As `anchors.assign` makes them, with a batch axis.
        outputs: The network's outputs.

    Returns:
        `float32` `[batch, 9]`, in the order of `LOSS_NAMES`.
    """
    functions = make_losses()
    return tf.stack(
        [
            functions[name].call(
                targets[name], tf.cast(outputs[name], tf.float32)
            )
            for name in LOSS_NAMES
        ],
        axis=1,
    )


def make_losses() -> dict[str, keras.losses.Loss]:
    """Makes the losses by the names of their outputs."""
    special = {
        "rotation": RotationLoss,
        "class": ClassLoss,
        "direction": DirectionLoss,
    }
    return {
        name: special.get(name, ResidualLoss)(name=name) for name in LOSS_NAMES
    }
