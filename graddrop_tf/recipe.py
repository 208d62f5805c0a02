"""Recipes: which methods, with which arguments, in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graddrop_tf import parsing
from graddrop_tf.bases.chain import Chain
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.configuration import Configuration
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import is_number
from graddrop_tf.methods import METHODS
from graddrop_tf.step.state import RecipeState

# The fields that terms other than methods set.
_FIELDS = {"clip": "global_clipnorm", "penalty": "gradient_penalty"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A combination of methods, as a value.

    It holds configurations, from which each model builds its own layers in
    the scope of its strategy. `Recipe()` is the baseline, the plain sum.

    Args:
        weighting: A `gd.Weighting`, or None.
        combiners: `gd.Combiner`s, in the order in which they act.
        global_clipnorm: Norm at which the final gradient is clipped, after
            the replicas are reduced; above 0, or None.
        gradient_penalty: Factor of the gradient penalty, at least 0.

    Raises:
        ValueError: If an argument has the wrong type or is out of range.

    Example:
        >>> gd.Recipe(
        ...     weighting=gd.GradNorm(alpha=1.5),
        ...     combiners=[gd.GradDrop(leak=0.2)],
        ...     global_clipnorm=1.0,
        ... )
    """

    # Of `clip` and `penalty`; a method's class has its own.
    search_space: ClassVar[Mapping[str, str]] = {
        "clip.norm": "log_uniform(0.1, 10.0)",
        "penalty.factor": "log_uniform(1e-3, 1.0)",
    }

    weighting: Weighting | Configuration | None = None
    combiners: Sequence[Combiner | Configuration] = ()
    global_clipnorm: float | None = None
    gradient_penalty: float = 0.0

    def __post_init__(self):
        """Validates the arguments and keeps their configurations."""
        weighting = self.weighting
        if weighting is not None:
            weighting = _configuration(weighting, Weighting, "weighting")
        combiners = self.combiners
        if isinstance(combiners, (Combiner, Configuration)):
            combiners = [combiners]
        combiners = tuple(
            _configuration(c, Combiner, "combiners") for c in combiners
        )
        object.__setattr__(self, "weighting", weighting)
        object.__setattr__(self, "combiners", combiners)
        if self.global_clipnorm is not None and not is_number(
            self.global_clipnorm, above=0
        ):
            raise ValueError(
                "`global_clipnorm` must be a number above 0, or None. "
                f"Received: global_clipnorm={self.global_clipnorm!r}."
            )
        if not is_number(self.gradient_penalty) or self.gradient_penalty < 0:
            raise ValueError(
                "`gradient_penalty` must be a number of at least 0. Received: "
                f"gradient_penalty={self.gradient_penalty!r}."
            )

    @classmethod
    def of(cls, value: Recipe | Combiner | Weighting | str | None) -> Recipe:
        """Returns the recipe that a value stands for.

        Args:
            value: A recipe, its text, a single method, or None for the plain
                sum.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: If the value is none of these, or the text is not a
                recipe.

        Example:
            >>> gd.Recipe.of("graddrop(leak=0.2)")
            >>> gd.Recipe.of(gd.GradDrop(leak=0.2))
        """
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, Combiner):
            return cls(combiners=[value])
        if isinstance(value, Weighting):
            return cls(weighting=value)
        if isinstance(value, cls):
            return value
        raise ValueError(
            "A recipe is a gd.Recipe, its text such as 'graddrop(leak=0.2)', "
            "or a method such as gd.GradDrop(leak=0.2). Received: "
            f"{value!r} of type {type(value).__name__}."
        )

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Parses a recipe such as `"gradnorm(alpha=1.5)+graddrop(leak=0.2)"`.

        Terms are joined by `+`: `baseline`, `clip(NORM)`, `penalty(FACTOR)`,
        or a method with its constructor's arguments. Combiners act in the
        order given.

        Args:
            text: The recipe.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: If the text is not a recipe; the message lists the
                known names or arguments.
        """
        terms = parsing.parse_terms(text)
        if ("baseline", {}) in terms and len(terms) > 1:
            raise ValueError(
                "`baseline` is the plain sum and stands alone. Received: "
                f"{text!r}."
            )
        arguments = {}
        combiners = []
        for name, values in terms:
            if name == "baseline":
                continue
            if name in METHODS and issubclass(METHODS[name], Combiner):
                combiners.append(METHODS[name](**values))
                continue
            key, value = _argument(name, values)
            if key in arguments:
                raise ValueError(
                    f"A recipe has at most one {key}. Received: {text!r}."
                )
            arguments[key] = value
        return cls(combiners=combiners, **arguments)

    @property
    def method_names(self) -> tuple[str, ...]:
        """The names by which `parse` knows the weighting and the combiners."""
        names = {make: name for name, make in METHODS.items()}
        return tuple(
            names.get(term.make, term.make.__name__) for term in self._terms()
        )

    def find(self, name: str, methods: Sequence, index: int = 0):
        """Returns one of methods that were built from this recipe.

        Args:
            name: Its name in a recipe.
            methods: The weighting, if there is one, and the combiners.
            index: Which of several of that name.

        Raises:
            ValueError: If there is none.
        """
        pairs = zip(self.method_names, methods, strict=True)
        found = [method for known, method in pairs if known == name]
        if not 0 <= index < len(found):
            raise ValueError(
                f"The recipe '{self}' has {len(found)} methods {name!r}. "
                f"Received: index={index}."
            )
        return found[index]

    def _terms(self) -> list[Configuration]:
        weighting = [] if self.weighting is None else [self.weighting]
        return [*weighting, *self.combiners]

    def __str__(self) -> str:
        """Returns text that `parse` reads."""
        pairs = zip(self._terms(), self.method_names, strict=True)
        text = [term.describe(name) for term, name in pairs]
        if self.global_clipnorm is not None:
            text.append(f"clip({self.global_clipnorm!r})")
        if self.gradient_penalty:
            text.append(f"penalty({self.gradient_penalty!r})")
        return "+".join(text) or "baseline"

    def build(self, num_losses: int) -> RecipeState:
        """Builds the state of a custom training loop.

        Args:
            num_losses: T.

        Returns:
            A `RecipeState` for `gd.compute_gradients`. Save it with the
            model: it holds the masks' step and the weighting's variables.

        Raises:
            ValueError: If a method does not fit that many losses.
        """
        state = self.make_state()
        state.set_losses(num_losses)
        return state

    def make_state(self) -> RecipeState:
        """Makes the recipe's layers before the losses are known."""
        weighting = self.weighting
        return RecipeState(
            Chain([c.build() for c in self.combiners]),
            None if weighting is None else weighting.build(),
            self.global_clipnorm,
            self.gradient_penalty,
        )

    @classmethod
    def from_state(cls, state: RecipeState) -> Recipe:
        """Returns the recipe that a state carries out."""
        weighting = state.weighting
        return cls(
            None if weighting is None else weighting.configuration,
            [c.configuration for c in state.combiner.combiners],
            state.global_clipnorm,
            state.gradient_penalty,
        )


def _configuration(value, kind: type, argument: str) -> Configuration:
    if isinstance(value, Configuration) and issubclass(value.make, kind):
        return value
    if isinstance(value, kind):
        value.describe_a_recipe()
        return value.configuration
    raise ValueError(
        f"`{argument}` takes a gd.{kind.__name__}. Received: {value!r} of "
        f"type {type(value).__name__}."
    )


def _argument(name: str, values: dict[str, Any]) -> tuple[str, Any]:
    """Returns the field of `Recipe` that a term sets, and its value."""
    if name not in _FIELDS:
        return "weighting", METHODS[name](**values)
    if not values:
        raise ValueError(
            f"`{name}` needs a value, as in `{name}(1.0)`. Received none."
        )
    (value,) = values.values()
    return _FIELDS[name], value
