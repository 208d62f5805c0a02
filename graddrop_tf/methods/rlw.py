"""Random loss weighting: weights drawn anew in each step.

Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for
Multi-Task Learning", TMLR 2022 (arXiv 2111.10603), Algorithm 2.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf.bases.draws import RandomDraws
from graddrop_tf.bases.weighting import Weighting


@keras.saving.register_keras_serializable("graddrop_tf")
class RandomWeighting(RandomDraws, Weighting):
    """Draws the weights as the softmax of standard normal numbers.

    They sum to 1, and are the same on all replicas. They do not depend on the
    losses.

    Reference: Lin et al., TMLR 2022, Algorithm 2.

    Args:
        seed: Integer seed of the draws; drawn where it is None.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the seed is not an integer from 0 to 2**31 - 1.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.RandomWeighting(seed=1))
    """

    def weights_of(self, state, losses):
        """See base class."""
        return tf.nn.softmax(tf.math.ndtri(self.uniform(losses.shape)))
