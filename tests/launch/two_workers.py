"""What `test_multi_worker.py` starts twice: one of two workers.

python -m tests.launch.two_workers PART DIRECTORY
"""

import os
import pathlib
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np

from trainers.training import workers
from trainers.training.devices import Devices

DIGITS = [
    "--experiment=digits",
    "--method=gradnorm+graddrop(seed=3)",
    "--config.steps=20",
    "--config.steps_per_epoch=10",
    "--config.batch_size=8",
    "--config.training_pairs=64",
    "--config.test_pairs=21",
    "--config.checkpoint_steps=3",
]
_TERMINATED_AT, _KILLED_AT = 4, 17


class _End(keras.callbacks.Callback):
    """Sends the second worker signals."""

    def __init__(self, worker):
        super().__init__()
        self._worker = worker

    def on_train_batch_end(self, batch, logs=None):
        step = keras.ops.convert_to_numpy(self.model.optimizer.iterations)
        signals = {_TERMINATED_AT: signal.SIGTERM, _KILLED_AT: signal.SIGKILL}
        if self._worker.index == 1 and int(step) in signals:
            os.kill(os.getpid(), signals[int(step)])


def library_cases():
    """Names all that is trained with one process and with two.

    Returns:
        Functions and their arguments. All methods and combinations in both
        forms are among them, as in the conformance tests.
    """
    from tests.graddrop_tf.models import HEADS, LAYER, VECTOR, cases

    return [
        (average_precisions,),
        (
            train_and_test,
            "clip(1.0)+gradnorm+mgda+graddrop(marginalize_batch=False)",
            VECTOR,
        ),
        (train_and_test, "penalty(0.01)+pcgrad", HEADS),
        (
            train_and_test,
            "pcgrad(iterative=True)+random_graddrop(seed=1)",
            LAYER,
        ),
        *((train, recipe, kind) for recipe, kind in cases() if kind != HEADS),
    ]


def average_precisions():
    """Returns what the callback of the detector measures."""
    from tests.trainers.experiments.waymo import detections

    alone = "TF_CONFIG" not in os.environ
    worker = workers.find("one" if alone else workers.MULTI_WORKER)
    return [*map(np.array, detections.logs_of_an_epoch(worker).values())]


def train(recipe, kind):
    """Returns the weights after twenty steps."""
    from graddrop_tf import fitting
    from tests.graddrop_tf.models import twenty_steps

    model = fitting.train_on_replicas(kind.compiled(recipe))
    return twenty_steps(model, kind)


def train_and_test(recipe, kind):
    """Returns weights, losses of an uneven test, predictions."""
    from graddrop_tf import fitting
    from tests.graddrop_tf.models import LAYER, VECTOR, batch, trainable

    model = fitting.train_on_replicas(
        kind.compiled(recipe, keras.optimizers.Adam(0.01))
    )
    x, y = batch(80)
    history = model.fit(
        x,
        kind.labels(y),
        batch_size=16,
        epochs=4,
        shuffle=False,
        verbose=0,
    )
    values = [*trainable(model), np.array(history.history["loss"])]
    if kind is not VECTOR:
        # The last batch has one example: a replica has none.
        some = x[:35], kind.labels(y[:35])
        tested = model.evaluate(*some, batch_size=17, verbose=0)
        # Keras' own means of each loss are over batches.
        values.append(np.array(tested[:1] if kind is LAYER else tested))
        predicted = model.predict(some[0], batch_size=17, verbose=0)
        values += keras.tree.flatten(predicted)
    return values


def _library(directory, worker):
    with Devices(workers.MULTI_WORKER).make().scope():
        for number, (function, *arguments) in enumerate(library_cases()):
            np.savez(
                directory / f"{number}-{worker.index}.npz",
                *function(*arguments),
            )


def _run(directory):
    from launch import command
    from launch import train as launch_train

    arguments = [*DIGITS, "--strategy=multi_worker", f"--run_dir={directory}"]
    return command.guarded(launch_train.main, arguments)


def main(part, directory):
    """Runs a part."""
    worker = workers.find(workers.MULTI_WORKER)
    Devices(workers.MULTI_WORKER).start()
    from trainers.experiments import digits

    if part == "rest":
        return _run(directory)
    _library(directory / "library", worker)
    digits.Digits.callbacks = lambda self, run, model: [_End(worker)]
    code = _run(directory / "run")
    print("terminated:", code, flush=True)
    code = _run(directory / "run")
    print("killed:", code, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2])))
