"""Recipes: which methods, with which arguments, in which order."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence

from graddrop_tf.bases.chain import Chain
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.configuration import Configuration, constructor_arguments
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import is_number
from graddrop_tf.methods import METHODS
from graddrop_tf.step.state import RecipeState

_OWN_TERMS = ("baseline", "clip", "penalty")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A combination of methods, as a value.

    It holds configurations. Each model builds its own layers from it, in the
    scope of its strategy. `Recipe()` is the baseline, the plain sum.

    Args:
        weighting: A `gd.Weighting`, or None.
        combiners: `gd.Combiner`s in the order in which they act.
        global_clipnorm: Norm at which the final gradient is clipped, after
            the replicas are reduced; above 0, or None.
        gradient_penalty: Factor of the gradient penalty, at least 0.

    Raises:
        ValueError: Where an argument is of the wrong kind or out of range.

    Example:
        >>> gd.Recipe(
        ...     weighting=gd.GradNorm(alpha=1.5),
        ...     combiners=[gd.GradDrop(leak=0.2)],
        ...     global_clipnorm=1.0,
        ... )
    """

    weighting: Weighting | Configuration | None = None
    combiners: Sequence[Combiner | Configuration] = ()
    global_clipnorm: float | None = None
    gradient_penalty: float = 0.0

    def __post_init__(self):
        """Checks the arguments and keeps their configurations."""
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
    def parse(cls, text: str) -> Recipe:
        """Reads a recipe such as `"gradnorm(alpha=1.5)+graddrop(leak=0.2)"`.

        Terms are joined by `+`: `baseline`, `clip(NORM)`, `penalty(FACTOR)`,
        or a method with its constructor's arguments. Combiners act in the
        order given.

        Args:
            text: The recipe.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: Where the text is no recipe; the message lists what is
                known.
        """
        terms = [_read_term(node, text) for node in _split(text)]
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
            key, value = _own_term(name, values)
            if key in arguments:
                raise ValueError(
                    f"A recipe has one {key} at most. Received: {text!r}."
                )
            arguments[key] = value
        return cls(combiners=combiners, **arguments)

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of the weighting and the combiners, as `parse` reads them."""
        names = {make: name for name, make in METHODS.items()}
        return tuple(
            names.get(term.make, term.make.__name__) for term in self._terms()
        )

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
        """Builds what a custom training loop needs.

        Args:
            num_losses: T.

        Returns:
            A `RecipeState` for `gd.compute_gradients`. Save it with the
            model: it holds the masks' step and the weighting's variables.

        Raises:
            ValueError: Where a method does not fit that many losses.
        """
        state = self.make_state()
        state.set_losses(num_losses)
        return state

    def make_state(self) -> RecipeState:
        """Makes the recipe's layers, for losses that are not yet known."""
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
        return cls(
            state.weighting,
            state.combiner.combiners,
            state.global_clipnorm,
            state.gradient_penalty,
        )


def _configuration(value, kind: type, argument: str) -> Configuration:
    if isinstance(value, Configuration) and issubclass(value.make, kind):
        return value
    if isinstance(value, kind):
        return value.configuration
    raise ValueError(
        f"`{argument}` takes a gd.{kind.__name__}. Received: {value!r} of "
        f"type {type(value).__name__}."
    )


def _known() -> str:
    return ", ".join(sorted([*METHODS, *_OWN_TERMS]))


def _bad_recipe(text) -> ValueError:
    return ValueError(
        "A recipe is one or more of NAME or NAME(ARGUMENT=VALUE, ...) joined "
        f"by '+'. Received: {text!r}. Known names: {_known()}."
    )


def _split(text: str) -> list[ast.expr]:
    """Returns the terms between the plus signs."""
    if not isinstance(text, str):
        raise _bad_recipe(text)
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _bad_recipe(text) from error
    terms = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        terms.append(node.right)
        node = node.left
    return [node, *reversed(terms)]


def _read_term(node: ast.expr, text: str) -> tuple[str, dict]:
    """Returns a term's name and its arguments by name."""
    positional, keywords = [], []
    if isinstance(node, ast.Call):
        positional, keywords, node = node.args, node.keywords, node.func
    if not isinstance(node, ast.Name):
        raise _bad_recipe(text)
    name = node.id
    known = _arguments_of(name)
    try:
        values = [ast.literal_eval(value) for value in positional]
        named = {k.arg: ast.literal_eval(k.value) for k in keywords}
    except (ValueError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"The arguments of `{name}` must be plain values. Received: "
            f"{text!r}."
        ) from error
    unknown = [k for k in named if k not in known]
    if (
        unknown
        or len(values) > len(known)
        or set(named) & set(known[: len(values)])
    ):
        raise ValueError(
            f"`{name}` has no such arguments. Received: {ast.unparse(node)!r}"
            f" with {len(values)} positional arguments and "
            f"{sorted(map(str, named))}. Known arguments: "
            f"{', '.join(known) or 'none'}."
        )
    return name, {**dict(zip(known, values, strict=False)), **named}


def _arguments_of(name: str) -> list[str]:
    own = {"baseline": [], "clip": ["norm"], "penalty": ["factor"]}
    if name in own:
        return own[name]
    if name not in METHODS:
        raise ValueError(
            f"There is no method {name!r}. Known names: {_known()}."
        )
    arguments = constructor_arguments(METHODS[name])
    return [a for a in arguments if a != "num_losses"]


def _own_term(name: str, values: dict):
    if name not in _OWN_TERMS:
        return "weighting", METHODS[name](**values)
    if len(values) != 1:
        raise ValueError(
            f"`{name}` needs a value, as in `{name}(1.0)`. Received none."
        )
    key = "global_clipnorm" if name == "clip" else "gradient_penalty"
    return key, next(iter(values.values()))
