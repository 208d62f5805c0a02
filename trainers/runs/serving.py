"""The model that a run leaves: from raw inputs to named outputs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from data import prepared
from trainers import errors

_NAME = "model"
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
        model: The name of the model's `file` and its `format`, the `step` of
            its weights, and the `measure` that chose the step, None for the
            last; None without a model.
    """

    metrics: Mapping[str, float]
    model: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A function of tensors around a network, which a SavedModel can hold.

    Attributes:
        network: The network.
        function: Maps a tensor to tensors by name.
        signature: What it takes.
    """

    network: keras.Model
    function: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
    signature: tf.TensorSpec


_PACKAGES = {"onnx": "tf2onnx and onnx; run pip install -e '.[onnx]'"}
# What a run leaves.
Served = keras.Model | Endpoint


def native_format(model: Served) -> str:
    """Returns the format in which a run leaves a model."""
    return "saved_model" if isinstance(model, Endpoint) else "keras"


def file_name(form: str, step: int | None = None) -> str:
    """Returns the name of a model's file, or of the folder of a SavedModel."""
    number = "" if step is None else f"_{step}"
    return f"{_NAME}{number}{FORMATS[form][1]}"


def write(model: Served, path: pathlib.Path, form: str) -> None:
    """Writes a model, whole or not at all.

    Args:
        model: The model.
        path: The file, or the folder of a SavedModel, to replace or create.
        form: One of `FORMATS`.

    Raises:
        UserError: If the model has another format, a package is missing, or
            it cannot be written.
    """
    if isinstance(model, Endpoint) and form != native_format(model):
        raise errors.UserError(
            f"--format: got {form}, but this model is a function around its "
            f"network; expected {native_format(model)}."
        )
    suffix = FORMATS[form][1]
    temporary = path.with_name(f"{path.stem}.tmp{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        _write(model, temporary, form)
        if temporary.is_dir():
            _remove(path)
        os.replace(temporary, path)
    except ImportError as error:
        raise errors.UserError(
            f"--format={form}: needs {_PACKAGES.get(form, 'a package')} "
            f"({prepared.first_line(error)}), or choose another format."
        ) from None
    except OSError as error:
        raise errors.UserError(
            f"{path} cannot be written ({error.strerror or error}); free some "
            "space or change the permissions, then run the same command again."
        ) from None
    finally:
        _remove(temporary)


def leave(
    model: Served,
    directory: pathlib.Path,
    step: int,
    measure: str | None = None,
) -> dict[str, Any]:
    """Writes the model of a finished run into its directory.

    Args:
        model: The model.
        directory: The run directory.
        step: The step of its weights.
        measure: The measure that chose the step, None for the last.

    Returns:
        What `results.json` says of it; see `Outcome`.
    """
    form = native_format(model)
    name = file_name(form)
    write(model, directory / name, form)
    return {"file": name, "format": form, "step": step, "measure": measure}


def _write(model: Served, path: pathlib.Path, form: str) -> None:
    if isinstance(model, Endpoint):
        archive = keras.export.ExportArchive()
        archive.track(model.network)
        archive.add_endpoint(
            "serve", model.function, input_signature=[model.signature]
        )
        archive.write_out(path, verbose=False)
    elif form == "keras":
        model.save(path)
    else:
        # ONNX takes it from a model that was called alone.
        signature = [
            tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(
                path,
                format=FORMATS[form][0],
                verbose=False,
                input_signature=signature,
            )


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
