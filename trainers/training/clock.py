"""The step count of a training run."""

import keras


class Clock(keras.callbacks.Callback):
    """Counts steps. It is the first callback of `fit`; the others read it.

    Keras counts batches from 0 even in an epoch that an earlier process
    began.

    Attributes:
        step: Steps taken.
        steps_per_epoch: Steps in an epoch.
    """

    def __init__(self, steps_per_epoch: int, start: int = 0):
        """Makes the clock.

        Args:
            steps_per_epoch: Steps in an epoch.
            start: Steps taken by earlier processes.
        """
        super().__init__()
        self.steps_per_epoch = steps_per_epoch
        self.step = self._start = start

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the step that the epoch begins with."""
        self.step = max(epoch * self.steps_per_epoch, self._start)
        self._first_step = self.step

    def on_train_batch_end(self, batch, logs=None):
        """Counts a step."""
        self.step = self._first_step + batch + 1

    def on_epoch_end(self, epoch, logs=None):
        """Sets the step that the epoch ends with."""
        self.step = (epoch + 1) * self.steps_per_epoch
