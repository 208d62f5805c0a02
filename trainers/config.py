"""Values of an experiment, and how text from outside changes them."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from trainers import errors

PRECISIONS = ("none", "bfloat16", "float16")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a value has to satisfy.

    Attributes:
        holds: Returns whether a value does.
        expected: Says so in an error message.
    """

    holds: Callable[[Any], bool]
    expected: str


def positive(default: Any) -> Any:
    """Declares a field whose values are above zero."""
    return _field(default, lambda value: value > 0, "more than 0")


def non_negative(default: Any) -> Any:
    """Declares a field whose values are zero or above."""
    return _field(default, lambda value: value >= 0, "0 or more")


def fraction(default: Any) -> Any:
    """Declares a field whose values are from 0 to below 1."""
    return _field(default, lambda value: 0 <= value < 1, "from 0 to below 1")


def one_of(default: str, known: Collection[str]) -> Any:
    """Declares a field with a fixed set of values."""
    expected = f"one of {', '.join(known)}"
    return _field(default, lambda value: value in known, expected)


def _field(default: Any, holds: Callable[[Any], bool], expected: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"rule": _Rule(holds, expected)}
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """The values that every experiment has.

    Attributes:
        jit_compile: Whether XLA compiles the training step.

    Raises:
        ValueError: If a value breaks the rule of its field, which a subclass
            inherits with the field.
    """

    jit_compile: bool = False

    def __post_init__(self):
        """Validates the fields by their rules."""
        for name, rule in self._rules().items():
            value = getattr(self, name)
            if not rule.holds(value):
                raise ValueError(
                    f"{name}: got {value!r}, expected {rule.expected}."
                )

    @classmethod
    def _rules(cls) -> dict[str, _Rule]:
        return {
            field.name: field.metadata["rule"]
            for kind in reversed(cls.__mro__)
            if dataclasses.is_dataclass(kind)
            for field in dataclasses.fields(kind)
            if "rule" in field.metadata
        }


@dataclasses.dataclass(frozen=True)
class FitConfig(Config):
    """The values of every experiment that trains a Keras model.

    Attributes:
        steps: Total number of optimizer steps.
        steps_per_epoch: Steps between evaluations, and between checkpoints.
        batch_size: Examples in a step, over all replicas.
        loss_chunk_size: How many losses' gradients of the activations exist
            at once, for methods that can work in chunks; 0 for all.
        mixed_precision: `none`, or the precision to compute in: `bfloat16`,
            or `float16` with a loss scale.
        steps_per_execution: Training steps in one call of the compiled
            function.
        gradient_accumulation_steps: Steps whose gradients make one update.
        checkpoint_steps: Steps between checkpoints within an epoch; 0 for
            none.
        checkpoint_minutes: Minutes between checkpoints; 0 for none.
        kept_checkpoints: How many of the newest are kept.
    """

    steps: int = positive(1000)
    steps_per_epoch: int = positive(100)
    batch_size: int = positive(32)
    loss_chunk_size: int = non_negative(0)
    mixed_precision: str = one_of("none", PRECISIONS)
    steps_per_execution: int = positive(1)
    gradient_accumulation_steps: int = positive(1)
    checkpoint_steps: int = non_negative(0)
    checkpoint_minutes: float = non_negative(10.0)
    kept_checkpoints: int = positive(2)

    def __post_init__(self):
        """Validates the fields, alone and together."""
        super().__post_init__()
        for whole, part in (
            ("steps_per_epoch", "steps_per_execution"),
            ("steps_per_epoch", "gradient_accumulation_steps"),
            ("steps", "steps_per_epoch"),
        ):
            count, divisor = getattr(self, whole), getattr(self, part)
            if count % divisor:
                raise ValueError(
                    f"{whole}: got {count}, expected a multiple of {part} "
                    f"({divisor}); change one of them."
                )


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
