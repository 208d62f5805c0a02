"""The log of a run, with a row for each epoch."""

import csv
import io
import pathlib

import keras

from trainers import files
from trainers.training.clock import Clock


class CsvLog(keras.callbacks.Callback):
    """Writes `metrics.csv` across restarts.

    Keras' `CSVLogger` appends: a process that is killed between the row and
    the checkpoint would write the row twice. This one replaces the file and
    drops the rows after the checkpoint.

    Attributes:
        rows: The rows, each a dict with the step.
    """

    def __init__(self, path: pathlib.Path, clock: Clock, writes: bool = True):
        """Reads the rows of earlier starts.

        Args:
            path: The file.
            clock: Counts the steps.
            writes: Whether this process writes it.
        """
        super().__init__()
        self._path = path
        self._writes = writes
        self._clock = clock
        self.rows = read_csv(path)

    def rewind(self, step: int) -> None:
        """Drops the rows after `step`."""
        self.rows = [row for row in self.rows if row["step"] <= step]

    def on_epoch_end(self, epoch, logs=None):
        """Adds a row."""
        self.rows.append({"step": self._clock.step, **logs})
        if not self._writes:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self._path, text.getvalue())


def read_csv(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads `metrics.csv`; returns no rows if it does not exist."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [
            {
                name: int(value) if name == "step" else float(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(file)
        ]
