"""The model that a run leaves: from raw inputs to named outputs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import keras

from trainers import errors

FILE = "model.keras"
# The name of each format in Keras, and the end of its files.
FORMATS = {
    "keras": ("keras", ".keras"),
    "saved_model": ("tf_saved_model", ""),
    "litert": ("litert", ".tflite"),
    "onnx": ("onnx", ".onnx"),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run ends with.

    Attributes:
        metrics: The final metrics.
        model: The name of the model's `file`, the `step` of its weights, and
            the `measure` that chose the step, None for the last; None without
            a model.
    """

    metrics: Mapping[str, float]
    model: Mapping[str, Any] | None = None


def write(model: keras.Model, path: pathlib.Path, form: str = "keras") -> None:
    """Writes a model, whole or not at all.

    Args:
        model: The model.
        path: The file, or the folder of a SavedModel, to replace or create.
        form: One of `FORMATS`.

    Raises:
        UserError: If a package for the format is missing, or the model cannot
            be written.
    """
    name, suffix = FORMATS[form]
    temporary = path.with_name(f"{path.stem}.tmp{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        if form == "keras":
            model.save(temporary)
        else:
            model.export(temporary, format=name, verbose=False)
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
    except ImportError as error:
        raise errors.UserError(
            f"--format={form}: needs a package that is not installed "
            f"({first_line(error)}); install it, or choose another format."
        ) from None
    except OSError as error:
        raise errors.UserError(
            f"{path} cannot be written ({error.strerror or error}); free some "
            "space or change the permissions, then run the same command again."
        ) from None
    finally:
        _remove(temporary)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, without a full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".")
