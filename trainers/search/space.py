"""Search spaces: ranges, written where `launch.train` takes a value.

A range stands for a field of the config, `--config.learning_rate=
"log_uniform(1e-4, 1e-2)"`, or in a recipe, `--method="graddrop(k=uniform(0, 2),
leak=[uniform(0, 1), 0])"`. Where none is given, fields and arguments that are
not given are searched in their declared range, if there is one: experiments and
methods declare it as `search_space`, in the same notation.
"""

import ast
import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as parameters

import graddrop_tf as gd
from trainers import errors
from trainers.config import Config, override
from trainers.runs import execution, experiment
from trainers.search import ranges


@dataclasses.dataclass(frozen=True)
class Sample:
    """A point of a search space.

    Attributes:
        recipe: The recipe.
        config: Values of the experiment.
        values: The drawn values by name: `learning_rate` for a field of the
            config, `graddrop.k` or `graddrop.leak[0]` for an argument of the
            recipe.
    """

    recipe: gd.Recipe
    config: Config
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The ranges of a search, and the values that it keeps.

    Attributes:
        method: A recipe with ranges in place of values.
        config: The texts of values or ranges, by field of the config.
        defaults: The config for all other fields.
        is_given: Whether the user gave the ranges. Otherwise methods and the
            experiment declare them.
    """

    method: str
    config: Mapping[str, str]
    defaults: Config
    is_given: bool = False

    def __str__(self) -> str:
        """Describes the ranges, and where they are from."""
        found = [
            f"{parameter.name} in {ranges.text_of(parameter)}"
            for parameter in self.hyperparameters().space
        ]
        source = "given" if self.is_given else "declared, as none are given"
        return f"{', '.join(found)} ({source})"

    def draw(self, hyperparameters: keras_tuner.HyperParameters) -> Sample:
        """Reads a point, and registers new ranges with keras-tuner.

        Args:
            hyperparameters: The point; a new object stands for the lower end
                of every range.

        Returns:
            The point as a recipe and a config.

        Raises:
            UserError: If a range, the recipe or the config is invalid.
        """
        draw = _Draw(hyperparameters)
        method = draw.recipe(self.method)
        texts = {
            name: draw.text(text, name)
            for name, text in sorted(self.config.items())
        }
        return Sample(
            execution.parse_method(method),
            override(self.defaults, texts),
            draw.values,
        )

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """Returns the space in keras-tuner's form.

        Raises:
            UserError: As `draw`.
        """
        hyperparameters = keras_tuner.HyperParameters()
        self.draw(hyperparameters)
        return hyperparameters

    def corners(self) -> list[Sample]:
        """Lists points that cover both ends of every range and all choices.

        Raises:
            UserError: As `draw`, or if there are no ranges.
        """
        hyperparameters = self.hyperparameters()
        space = hyperparameters.space
        if not space:
            raise errors.UserError(
                f"nothing to search with --method={self.method}; write a range "
                'for a value, such as --config.NAME="log_uniform(1e-4, 1e-2)".'
            )
        counts = [
            len(parameter.values)
            for parameter in space
            if isinstance(parameter, parameters.Choice)
        ]
        last = max([2, *counts]) - 1
        samples = []
        for index in range(last + 1):
            share = min(index / last, 1.0 - 1e-9)
            hyperparameters.values = {
                parameter.name: parameter.prob_to_value(share)
                for parameter in space
            }
            samples.append(self.draw(hyperparameters))
        return samples

    def varies(self, field: str) -> bool:
        """Returns whether a field of the config has a range."""
        return _as_call(self.config.get(field, "")) is not None


def method_ranges() -> dict[str, str]:
    """Returns the ranges that methods declare, by `METHOD.ARGUMENT`."""
    found = {
        f"{name}.{argument}": text
        for name, method in gd.METHODS.items()
        for argument, text in method.search_space.items()
    }
    return {**found, **gd.Recipe.search_space}


def make(
    searched: experiment.Experiment, method: str, texts: Mapping[str, str]
) -> SearchSpace:
    """Makes a search space of the user's ranges, or else the declared ones.

    Args:
        searched: The experiment.
        method: A recipe, with or without ranges.
        texts: The texts of values or ranges, by field of the config.

    Returns:
        The search space.

    Raises:
        UserError: If the recipe or a range is invalid.
    """
    draw = _Draw(keras_tuner.HyperParameters())
    draw.recipe(method)
    for name, text in texts.items():
        draw.text(text, name)
    if draw.values:
        method = "+".join(map(ast.unparse, _split_terms(method)))
        return SearchSpace(method, texts, searched.defaults, is_given=True)
    declared = {**method_ranges(), **searched.search_space}
    fields = {name: text for name, text in declared.items() if "." not in name}
    completed = [_complete(term, declared) for term in _split_terms(method)]
    return SearchSpace(
        "+".join(map(ast.unparse, completed)),
        {**fields, **texts},
        searched.defaults,
    )


def describe(experiments: Mapping[str, experiment.Experiment]) -> str:
    """Lists the declared ranges, a line for each experiment."""
    declared = {
        "any experiment": method_ranges(),
        **{name: one.search_space for name, one in experiments.items()},
    }
    return "\n".join(
        f"{name}: {', '.join(f'{k}={v}' for k, v in texts.items())}"
        for name, texts in declared.items()
        if texts
    )


class _Draw:
    """Replaces ranges by drawn values."""

    def __init__(self, hyperparameters: keras_tuner.HyperParameters):
        self._hyperparameters = hyperparameters
        self.values = {}

    def text(self, text: str, name: str) -> str:
        """Replaces the text of a range; returns other texts unchanged."""
        node = _as_call(text)
        return text if node is None else str(self._draw(node, name))

    def recipe(self, text: str) -> str:
        """Replaces the ranges of a recipe."""
        seen = collections.Counter()
        terms = []
        for term in _split_terms(text):
            if isinstance(term, ast.Call):
                name = ast.unparse(term.func)
                seen[name] += 1
                label = name if seen[name] == 1 else f"{name}{seen[name]}"
                term = ast.Call(
                    term.func,
                    [
                        self._fill(node, f"{label}[{index}]")
                        for index, node in enumerate(term.args)
                    ],
                    [
                        ast.keyword(
                            keyword.arg,
                            self._fill(keyword.value, f"{label}.{keyword.arg}"),
                        )
                        for keyword in term.keywords
                    ],
                )
            terms.append(ast.unparse(term))
        return "+".join(terms)

    def _fill(self, node: ast.expr, name: str) -> ast.expr:
        match node:
            case ast.Call():
                return ast.Constant(self._draw(node, name))
            case ast.List() | ast.Tuple():
                return ast.List(
                    [
                        self._fill(item, f"{name}[{index}]")
                        for index, item in enumerate(node.elts)
                    ]
                )
            case ast.Dict() if None not in node.keys:
                return ast.Dict(
                    node.keys,
                    [
                        self._fill(value, f"{name}[{ast.unparse(key)}]")
                        for key, value in zip(
                            node.keys, node.values, strict=True
                        )
                    ],
                )
        return node

    def _draw(self, node: ast.Call, name: str) -> Any:
        got = f"{name}: got {ast.unparse(node)!r}, expected"
        kind = ast.unparse(node.func)
        if kind not in ranges.RANGES:
            usages = [usage for _, usage in ranges.RANGES.values()]
            raise errors.UserError(
                f"{got} a value or one of {'; '.join(usages)}."
            )
        draw, usage = ranges.RANGES[kind]
        try:
            value = draw(
                self._hyperparameters,
                name,
                *map(ast.literal_eval, node.args),
                **{k.arg: ast.literal_eval(k.value) for k in node.keywords},
            )
        except (TypeError, ValueError):
            raise errors.UserError(f"{got} {usage}.") from None
        self.values[name] = value
        return value


def _as_call(text: str) -> ast.Call | None:
    """Parses text that calls a name, as a range does."""
    node = gd.parsing.parse_expression(text)
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return node if is_call else None


def _split_terms(recipe: str) -> list[ast.expr]:
    try:
        return gd.parsing.split_terms(recipe)
    except ValueError as error:
        raise errors.UserError(f"method {recipe!r}: {error}") from None


def _complete(term: ast.expr, declared: Mapping[str, str]) -> ast.expr:
    """Adds the declared ranges of the arguments that a term leaves out.

    A term with positional arguments is left unchanged: they have no names.
    """
    call = ast.Call(term, [], []) if isinstance(term, ast.Name) else term
    if not isinstance(call, ast.Call) or call.args:
        return term
    given = {keyword.arg for keyword in call.keywords}
    added = []
    for name, text in declared.items():
        method, _, argument = name.partition(".")
        if method == ast.unparse(call.func) and argument not in {"", *given}:
            value = ast.parse(text, mode="eval").body
            added.append(ast.keyword(argument, value))
    if not added:
        return term
    return ast.Call(call.func, [], [*call.keywords, *added])
