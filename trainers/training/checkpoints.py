"""Checkpoints from which a run continues bit for bit.

Keras saves no seed states of layers such as `Dropout`, and does not rename
finished files into place. A checkpoint here is one NPZ file with all variables
of a model and its optimizer, by their paths. Within an epoch it also holds
those of the metrics, so that the epoch's row of the log comes out the same. The
archive's checksums reveal a damaged file.
"""

import collections
import pathlib
import shutil
import zipfile
from collections.abc import Sequence

import keras
import numpy as np

from graddrop_tf.bases.state import Stateful
from trainers import errors, files

_BEST = "best.npz"
_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        directory: pathlib.Path,
        model: keras.Model,
        *,
        num_kept: int = 2,
        writes: bool = True,
    ):
        """Creates the store; writes nothing.

        Args:
            directory: The folder of the checkpoints.
            model: A built model with a built optimizer.
            num_kept: Number of newest checkpoints to keep.
            writes: Whether this process writes them.
        """
        self._directory = directory
        self._model = model
        self._variables = [*model.variables, *model.optimizer.variables]
        self._num_kept = num_kept
        self._writes = writes
        self._metrics: list[np.ndarray] = []

    def save(self, step: int, in_epoch: bool = False) -> pathlib.Path:
        """Writes the state after `step` steps and deletes old checkpoints.

        All workers must call it; one of them writes.

        Args:
            step: Number of steps taken.
            in_epoch: Whether to include the metrics of an unfinished epoch.

        Returns:
            The file.

        Raises:
            UserError: If it cannot be written.
        """
        path = self._path(step)
        # Metrics are sums over the replicas: all of them have to read these.
        metrics = _arrays(self._model.metrics_variables if in_epoch else [])
        if not self._writes:
            return path
        with files.replacing(path) as file:
            np.savez(
                file,
                step=step,
                paths=self._paths(),
                num_metrics=len(metrics),
                **_numbered("", _arrays(self._variables)),
                **_numbered("metric", metrics),
            )
        for old in self._newest_first()[self._num_kept :]:
            old.unlink()
        return path

    def keep_as_best(self, step: int) -> None:
        """Keeps a copy of the checkpoint after `step` steps."""
        if not (self._writes and self._path(step).exists()):
            return
        with (
            open(self._path(step), "rb") as saved,
            files.replacing(self._directory / _BEST) as best,
        ):
            shutil.copyfileobj(saved, best)

    @property
    def has_best(self) -> bool:
        """Whether a best checkpoint is kept."""
        return (self._directory / _BEST).exists()

    def restore_at(self, step: int) -> None:
        """Loads the checkpoint after `step` steps.

        Raises:
            UserError: If there is none, it cannot be read, or belongs to
                another model.
        """
        known = {}
        for path in [self._directory / _BEST, *self._newest_first()]:
            try:
                found, names, arrays, _ = _read(path)
            except _DAMAGE:
                continue
            known[found] = path
            if found == step:
                self._assign(path, names, arrays)
                return
        steps = ", ".join(map(str, sorted(known))) or "none"
        raise errors.UserError(
            f"{self._directory}: holds no checkpoint of step {step}; expected "
            f"one of {steps}."
        )

    def restore_best(self) -> int:
        """Loads the best checkpoint.

        Returns:
            The number of its steps.

        Raises:
            UserError: If it cannot be read or belongs to another model.
        """
        path = self._directory / _BEST
        try:
            step, names, arrays, _ = _read(path)
        except _DAMAGE as error:
            raise errors.UserError(
                f"{path} cannot be read ({error}); remove the run directory "
                "to start again."
            ) from None
        self._assign(path, names, arrays)
        return step

    def restore(self) -> int:
        """Loads the newest intact checkpoint.

        Returns:
            The number of its steps; 0 without a checkpoint.

        Raises:
            UserError: If checkpoints exist but none can be read, or it
                belongs to another model.
        """
        paths = self._newest_first()
        for path in paths:
            try:
                step, names, arrays, self._metrics = _read(path)
            except _DAMAGE as error:
                print(f"{path} is damaged ({error}); trying the one before.")
                continue
            self._assign(path, names, arrays)
            return step
        if paths:
            raise errors.UserError(
                f"{self._directory}: none of the {len(paths)} checkpoints can "
                "be read; remove the run directory to start again."
            )
        return 0

    def restore_metrics(self) -> None:
        """Loads the metrics of an unfinished epoch after they are built."""
        variables = self._model.metrics_variables if self._metrics else []
        for variable, array in zip(variables, self._metrics, strict=True):
            variable.assign(array)
        self._metrics = []

    def _assign(
        self, path: pathlib.Path, names: Sequence[str], arrays: list[np.ndarray]
    ) -> None:
        saved = dict(zip(_distinct(names), arrays, strict=True))
        known = dict(
            zip(_distinct(self._paths()), self._variables, strict=True)
        )
        # The state of methods may be missing or of an older version.
        state = {id(v): v.path.partition("/")[0] for v in self._method_state()}
        missing = [n for n in {*known} - {*saved} if id(known[n]) not in state]
        unknown = [
            n
            for n in {*saved} - {*known}
            if n.partition("/")[0] not in state.values()
        ]
        if missing or unknown:
            raise errors.UserError(
                f"{path} belongs to another model ({len(saved)} variables, "
                f"expected {len(known)}); use another run directory."
            )
        for name in known.keys() & saved.keys():
            variable, array = known[name], saved[name]
            # NumPy stores types such as bfloat16 as bytes.
            variable.assign(
                array.view(keras.backend.standardize_dtype(variable.dtype))
                if array.dtype.kind == "V"
                else array
            )

    def _method_state(self) -> list[keras.Variable]:
        return [
            variable
            for layer in self._model._flatten_layers()
            if isinstance(layer, Stateful)
            for variable in layer.variables
        ]

    def _paths(self) -> list[str]:
        return [
            f"{variable.path}{tuple(variable.shape)}"
            for variable in self._variables
        ]

    def _path(self, step: int) -> pathlib.Path:
        return self._directory / f"step-{step:09d}.npz"

    def _newest_first(self) -> list[pathlib.Path]:
        return sorted(self._directory.glob("step-*.npz"), reverse=True)


def _arrays(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _distinct(names: Sequence[str]) -> list[str]:
    """Appends a number to the second of two equal names, and so on."""
    counts = collections.Counter()
    distinct = []
    for name in names:
        counts[name] += 1
        distinct.append(f"{name} {counts[name]}" if counts[name] > 1 else name)
    return distinct


def _numbered(
    prefix: str, arrays: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    return {f"{prefix}{i:05d}": array for i, array in enumerate(arrays)}


def _read(
    path: pathlib.Path,
) -> tuple[int, list[str], list[np.ndarray], list[np.ndarray]]:
    """Reads the step, the variables' names and values, and the metrics."""
    with np.load(path) as archive:
        names = archive["paths"].tolist()
        arrays = [archive[f"{index:05d}"] for index in range(len(names))]
        metrics = [
            archive[f"metric{index:05d}"]
            for index in range(int(archive["num_metrics"]))
        ]
        return int(archive["step"]), names, arrays, metrics
