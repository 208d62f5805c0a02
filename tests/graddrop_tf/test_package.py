import importlib.metadata
import inspect
import re

import keras
import pytest

import graddrop_tf as gd
from graddrop_tf.methods import METHODS


def test_version_is_that_of_the_distribution():
    assert importlib.metadata.version("graddrop-tf") == gd.__version__


def test_keras_is_in_the_range_that_private_names_were_seen_in():
    (requirement,) = [
        r
        for r in importlib.metadata.requires("graddrop-tf")
        if r.startswith("keras<") or r.startswith("keras>")
    ]
    low = re.search(r">=([\d.]+)", requirement).group(1)
    high = re.search(r"<([\d.]+)", requirement).group(1)

    def number(text):
        return tuple(int(x) for x in text.split(".")[:2])

    assert number(low) <= number(keras.__version__) < number(high)


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
