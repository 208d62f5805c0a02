"""Checkpoints from which a run continues bit for bit.

Keras saves neither the seed states of layers such as `Dropout` nor renames
finished files into place, hence these. A checkpoint is one NPZ file with all
variables of a model and its optimizer, in order; the archive's checksums tell
a damaged file.
"""

import pathlib
import shutil
import zipfile
from collections.abc import Sequence

import keras
import numpy as np

from trainers import errors, files

_BEST = "best.npz"
_KEPT = 2
_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, directory: pathlib.Path, model: keras.Model):
        """Makes nothing yet.

        Args:
            directory: Where the checkpoints lie or will lie.
            model: A built model, its optimizer built as well.
        """
        self._directory = directory
        self._variables = [*model.variables, *model.optimizer.variables]

    def save(self, step: int) -> pathlib.Path:
        """Writes the state after `step` steps and drops older ones.

        Args:
            step: How many steps were taken.

        Returns:
            The file.
        """
        path = self._path(step)
        arrays = {
            f"{index:05d}": keras.ops.convert_to_numpy(variable)
            for index, variable in enumerate(self._variables)
        }
        with files.replacing(path) as file:
            np.savez(file, step=step, paths=self._paths(), **arrays)
        for old in self._newest_first()[_KEPT:]:
            old.unlink()
        return path

    def keep_as_best(self, step: int) -> None:
        """Keeps a copy of what was saved after `step` steps, for good."""
        with (
            open(self._path(step), "rb") as saved,
            files.replacing(self._directory / _BEST) as best,
        ):
            shutil.copyfileobj(saved, best)

    def restore_best(self) -> int:
        """Loads the checkpoint kept as the best.

        Returns:
            How many steps were taken up to there.

        Raises:
            UserError: If it cannot be read or belongs to another model.
        """
        path = self._directory / _BEST
        try:
            step, names, arrays = _read(path)
        except _DAMAGE as error:
            raise errors.UserError(
                f"{path} cannot be read ({error}); remove the run directory "
                "to start again."
            ) from None
        self._assign(path, names, arrays)
        return step

    def restore(self) -> int:
        """Loads the newest checkpoint that is whole.

        Returns:
            How many steps were taken; 0 without a checkpoint.

        Raises:
            UserError: If checkpoints exist but none can be read, or it
                belongs to another model.
        """
        paths = self._newest_first()
        for path in paths:
            try:
                step, names, arrays = _read(path)
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

    def _assign(
        self, path: pathlib.Path, names: Sequence[str], arrays: list[np.ndarray]
    ) -> None:
        expected = self._paths()
        if names != expected:
            raise errors.UserError(
                f"{path} belongs to another model ({len(names)} variables, "
                f"expected {len(expected)}); use another run directory."
            )
        for variable, array in zip(self._variables, arrays, strict=True):
            # NumPy stores types it does not know, like bfloat16, as bytes.
            variable.assign(
                array.view(keras.backend.standardize_dtype(variable.dtype))
                if array.dtype.kind == "V"
                else array
            )

    def _paths(self) -> list[str]:
        return [
            f"{variable.path}{tuple(variable.shape)}"
            for variable in self._variables
        ]

    def _path(self, step: int) -> pathlib.Path:
        return self._directory / f"step-{step:09d}.npz"

    def _newest_first(self) -> list[pathlib.Path]:
        return sorted(self._directory.glob("step-*.npz"), reverse=True)


def _read(path: pathlib.Path) -> tuple[int, list[str], list[np.ndarray]]:
    """Reads a checkpoint: its step, names and values of the variables."""
    with np.load(path) as archive:
        names = archive["paths"].tolist()
        arrays = [archive[f"{index:05d}"] for index in range(len(names))]
        return int(archive["step"]), names, arrays
