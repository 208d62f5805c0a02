"""Learning-rate schedules."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("trainers")
class Delayed(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that starts late; until then its first value holds.

    Args:
        schedule: The schedule.
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
        """Returns the value of a step."""
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
