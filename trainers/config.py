"""Values of an experiment, and how text from outside changes them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from trainers import errors

PRECISIONS = ("none", "bfloat16", "float16")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True)
class Config:
    """What every experiment has.

    Attributes:
        jit_compile: Whether XLA compiles the training step.
    """

    jit_compile: bool = False


@dataclasses.dataclass(frozen=True)
class FitConfig(Config):
    """What every experiment has that trains a Keras model.

    Attributes:
        steps: Optimizer steps in all.
        steps_per_epoch: Steps from one evaluation and checkpoint to the next.
        batch_size: Examples in a step, over all replicas.
        mixed_precision: `none`, or what to compute in: `bfloat16`, or
            `float16` with a loss scale.
        steps_per_execution: Steps that are run before the program looks.
        gradient_accumulation_steps: Steps whose gradients make one update.
        checkpoint_steps: Steps from one checkpoint inside of an epoch to the
            next; 0 for none.
        checkpoint_minutes: Minutes after which there is one; 0 for none.
        kept_checkpoints: How many of the newest are kept.
    """

    steps: int = 1000
    steps_per_epoch: int = 100
    batch_size: int = 32
    mixed_precision: str = "none"
    steps_per_execution: int = 1
    gradient_accumulation_steps: int = 1
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    kept_checkpoints: int = 2

    def __post_init__(self):
        """Refuses values that cannot be trained with."""
        require_positive(
            self,
            "steps",
            "steps_per_epoch",
            "batch_size",
            "steps_per_execution",
            "gradient_accumulation_steps",
            "kept_checkpoints",
        )
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(
                f"mixed_precision: got {self.mixed_precision!r}, expected one "
                f"of {', '.join(PRECISIONS)}."
            )
        for name in "steps_per_execution", "gradient_accumulation_steps":
            if self.steps_per_epoch % getattr(self, name):
                raise ValueError(
                    f"steps_per_epoch: got {self.steps_per_epoch}, expected a "
                    f"multiple of {name} ({getattr(self, name)}); change one "
                    "of them."
                )
        for name in "checkpoint_steps", "checkpoint_minutes":
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, expected 0 or more."
                )
        if self.steps % self.steps_per_epoch:
            raise ValueError(
                f"steps: got {self.steps}, expected a multiple of "
                f"steps_per_epoch ({self.steps_per_epoch}); change one of them."
            )


def require_positive(config: Config, *names: str) -> None:
    """Raises a ValueError unless the named fields are above zero."""
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ValueError(f"{name}: got {value}, expected more than 0.")


def parse_factors(name: str, text: str) -> dict[str, float]:
    """Reads factors by method.

    Args:
        name: The field that holds them.
        text: Such as `mgda=0.01, pcgrad=0.5`; may be empty.

    Returns:
        The factors.

    Raises:
        ValueError: If a method is unknown or a factor is not above 0.
    """
    factors = {}
    for part in filter(str.strip, text.split(",")):
        method, _, value = map(str.strip, part.partition("="))
        try:
            factors[method] = float(value)
        except ValueError:
            factors[method] = math.nan
        if method not in METHODS or not 0 < factors[method] < math.inf:
            raise ValueError(
                f"{name}: got {part.strip()!r}, expected METHOD=FACTOR, the "
                f"method one of {', '.join(METHODS)}, the factor above 0."
            )
    return factors


def factor_for(factors: Mapping[str, float], recipe: gd.Recipe) -> float:
    """Multiplies the factors of all methods of a recipe."""
    return math.prod(factors.get(name, 1.0) for name in recipe.method_names)


def override(config: Config, texts: Mapping[str, str]) -> Config:
    """Replaces values of a config by what a user wrote.

    Args:
        config: The config to start from; it is not changed.
        texts: The new values as text, by the name of their field.

    Returns:
        The new config.

    Raises:
        UserError: For a field that the config does not have, or a text that
            does not fit the field.
    """
    fields = {field.name: field.type for field in dataclasses.fields(config)}
    values = {}
    for name, text in texts.items():
        if name not in fields:
            raise errors.UserError(
                f"--config.{name}: unknown field; expected one of "
                f"{', '.join(sorted(fields))}."
            )
        try:
            values[name] = _parse(fields[name], text)
        except (ValueError, KeyError):
            raise errors.UserError(
                f"--config.{name}: got {text!r}, expected "
                f"{fields[name].__name__}, such as {getattr(config, name)}."
            ) from None
    try:
        return dataclasses.replace(config, **values)
    except ValueError as error:
        raise errors.UserError(f"--config.{error}") from None


def difference(
    left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Lists in which entries two nested mappings differ.

    Args:
        left: The values to show first.
        right: The values to show second.
        prefix: Stands before every name.

    Returns:
        A text such as `config.steps: 100 / 200` for each difference.
    """
    texts = []
    for name in sorted(left.keys() | right.keys()):
        first, second = left.get(name), right.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            texts += difference(first, second, f"{prefix}{name}.")
        elif first != second:
            texts.append(f"{prefix}{name}: {first} / {second}")
    return texts


def _parse(kind: type, text: str) -> Any:
    if kind is bool:
        return _BOOLEANS[text.lower()]
    return kind(text)
