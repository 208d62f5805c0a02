import importlib.metadata
import inspect
import os
import re
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import backend
from graddrop_tf.methods import METHODS


def test_version_is_that_of_the_distribution():
    assert importlib.metadata.version("graddrop-tf") == gd.__version__


@pytest.mark.parametrize("package", [keras, tf])
def test_versions_are_those_that_private_names_were_seen_in(package):
    (requirement,) = [
        r
        for r in importlib.metadata.requires("graddrop-tf")
        if re.match(rf"{package.__name__}[<>]", r)
    ]
    low = re.search(r">=([\d.]+)", requirement).group(1)
    high = re.search(r"<([\d.]+)", requirement).group(1)

    def number(text):
        return tuple(int(x) for x in text.split(".")[:2])

    assert number(low) <= number(package.__version__) < number(high)


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_another_backend_is_refused_in_a_line(name):
    run = subprocess.run(
        [sys.executable, "-c", "import graddrop_tf"],
        env={**os.environ, "KERAS_BACKEND": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: graddrop_tf needs Keras' TensorFlow")
    assert repr(name) in last


def test_another_backend_of_a_keras_that_is_imported(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    backend.check()
    monkeypatch.setattr(keras.config, "backend", lambda: "openvino")
    with pytest.raises(ImportError, match="Received: 'openvino'"):
        backend.check()


@pytest.mark.parametrize("name", [n for n in gd.__all__ if n[0] != "_"])
def test_public_names_say_what_they_do(name):
    item = getattr(gd, name)
    assert inspect.getdoc(item)
    if inspect.isclass(item) and not inspect.isabstract(item):
        parameters = inspect.signature(item).parameters
        listed = [p for p in parameters if p != "kwargs"]
        missing = [p for p in listed if f"{p}:" not in item.__doc__]
        assert not missing or "Attributes:" in item.__doc__


@pytest.mark.parametrize("name", METHODS)
def test_methods_show_an_example_and_a_source(name):
    assert "Example:" in METHODS[name].__doc__
    source = inspect.getdoc(inspect.getmodule(METHODS[name]))
    assert re.search(r"(19|20)\d\d", source)
