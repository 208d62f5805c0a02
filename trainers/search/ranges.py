"""The kinds of ranges, as draws of keras-tuner."""

import ast
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as parameters


def uniform(
    hyperparameters: keras_tuner.HyperParameters,
    name: str,
    low: float,
    high: float,
) -> float:
    """Draws from [low, high], to four digits."""
    return _shorten(hyperparameters.Float(name, low, high))


def log_uniform(
    hyperparameters: keras_tuner.HyperParameters,
    name: str,
    low: float,
    high: float,
) -> float:
    """Draws from [low, high], evenly in the logarithm, to four digits."""
    return _shorten(hyperparameters.Float(name, low, high, sampling="log"))


def integer(
    hyperparameters: keras_tuner.HyperParameters,
    name: str,
    low: int,
    high: int,
) -> int:
    """Draws an integer from `low` to `high`, both included."""
    return hyperparameters.Int(name, low, high)


def choice(
    hyperparameters: keras_tuner.HyperParameters, name: str, *values: Any
) -> Any:
    """Draws one of the values, which may be of any type."""
    texts = [repr(value) for value in values]
    return ast.literal_eval(hyperparameters.Choice(name, texts))


def _shorten(value: float) -> float:
    return float(f"{value:.4g}")


RANGES = {
    "uniform": (uniform, "uniform(LOW, HIGH) with LOW < HIGH"),
    "log_uniform": (log_uniform, "log_uniform(LOW, HIGH) with 0 < LOW < HIGH"),
    "integer": (integer, "integer(LOW, HIGH) with whole LOW < HIGH"),
    "choice": (choice, "choice(VALUE, VALUE, ...)"),
}


def text_of(parameter: parameters.HyperParameter) -> str:
    """Returns a range as text."""
    if isinstance(parameter, parameters.Choice):
        return f"{{{', '.join(parameter.values)}}}"
    scale = ", in the logarithm" if parameter.sampling == "log" else ""
    return f"[{parameter.min_value}, {parameter.max_value}]{scale}"
