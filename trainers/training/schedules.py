"""Learning rates: factors by method, and schedules."""

import math
from collections.abc import Mapping

import keras
import tensorflow as tf

import graddrop_tf as gd


def parse_factors(name: str, text: str) -> dict[str, float]:
    """Parses factors on the learning rate, by method.

    Args:
        name: The field of the config that holds them.
        text: Such as `mgda=0.01, pcgrad=0.5`; may be empty.

    Returns:
        The factors.

    Raises:
        ValueError: If a method is unknown or a factor is not above 0.
    """
    factors = {}
    for part in filter(str.strip, text.split(",")):
        method, _, value = map(str.strip, part.partition("="))
        try:
            factors[method] = float(value)
        except ValueError:
            factors[method] = math.nan
        if method not in gd.METHODS or not 0 < factors[method] < math.inf:
            raise ValueError(
                f"{name}: got {part.strip()!r}, expected METHOD=FACTOR, the "
                f"method one of {', '.join(gd.METHODS)}, the factor above 0."
            )
    return factors


def factor_for(factors: Mapping[str, float], recipe: gd.Recipe) -> float:
    """Returns the product of the factors of a recipe's methods."""
    return math.prod(factors.get(name, 1.0) for name in recipe.method_names)


@keras.saving.register_keras_serializable("trainers")
class Delayed(keras.optimizers.schedules.LearningRateSchedule):
    """Delays a schedule; until it starts, its first value holds.

    Args:
        schedule: The schedule to delay.
        start: The step at which it starts.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        start: int,
    ):
        self.schedule = schedule
        self.start = start

    def __call__(self, step):
        """Returns the value at a step."""
        return self.schedule(
            tf.maximum(tf.cast(step, tf.int64), self.start) - self.start
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "start": self.start}

    @classmethod
    def from_config(cls, config):
        """Rebuilds the schedule from `get_config`."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["start"])
