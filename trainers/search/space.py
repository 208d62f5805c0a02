"""Ranges to search, written where `launch.train` takes a value.

A field of the config, `--config.learning_rate="log_uniform(1e-4, 1e-2)"`, or
arguments of a recipe, `--method="graddrop(k=uniform(0, 2), leak=[uniform(0, 1),
0])"`. What has neither a value nor a range is searched in the declared one, if
there is one: an experiment declares its `search_space` in the same notation,
`METHOD_RANGES` declares those of the methods.
"""

import ast
import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as parameters

import graddrop_tf as gd
from trainers import config as config_lib
from trainers import errors
from trainers.runs import execution, experiment

METHOD_RANGES = {
    "graddrop.k": "uniform(0.0, 2.0)",
    "graddrop.leak": "uniform(0.0, 1.0)",
    "random_graddrop.leak": "uniform(0.0, 1.0)",
    "gradnorm.alpha": "uniform(0.0, 3.0)",
    "clip.norm": "log_uniform(0.1, 10.0)",
    "penalty.factor": "log_uniform(1e-3, 1.0)",
}


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
    """Draws a whole number from `low` to `high`, both included."""
    return hyperparameters.Int(name, low, high)


def choice(
    hyperparameters: keras_tuner.HyperParameters, name: str, *values: Any
) -> Any:
    """Draws one of some values, which may be lists and texts as well."""
    texts = [repr(value) for value in values]
    return ast.literal_eval(hyperparameters.Choice(name, texts))


def _shorten(value: float) -> float:
    return float(f"{value:.4g}")


_RANGES = {
    "uniform": (uniform, "uniform(LOW, HIGH) with LOW < HIGH"),
    "log_uniform": (log_uniform, "log_uniform(LOW, HIGH) with 0 < LOW < HIGH"),
    "integer": (integer, "integer(LOW, HIGH) with whole LOW < HIGH"),
    "choice": (choice, "choice(VALUE, VALUE, ...)"),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One point of a search space.

    Attributes:
        recipe: The recipe.
        config: Values of the experiment.
        values: What was drawn, by name: `learning_rate` for a field of the
            config, `graddrop.k` or `graddrop.leak[0]` for a recipe's argument.
    """

    recipe: gd.Recipe
    config: config_lib.Config
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """What a search varies, and what it keeps.

    Attributes:
        method: A recipe in which ranges stand for values.
        config: Texts by field of the config: values or ranges.
        defaults: The config where nothing is said.
    """

    method: str
    config: Mapping[str, str]
    defaults: config_lib.Config

    def draw(self, hyperparameters: keras_tuner.HyperParameters) -> Sample:
        """Reads a point, and tells keras-tuner of ranges it does not know.

        Args:
            hyperparameters: The point; a new object stands for the lower end
                of every range.

        Returns:
            The point as a recipe and a config.

        Raises:
            UserError: For what is no range, no recipe or no config.
        """
        draw = _Draw(hyperparameters)
        method = draw.recipe(self.method)
        texts = {
            name: draw.text(text, name)
            for name, text in sorted(self.config.items())
        }
        return Sample(
            execution.parse_method(method),
            config_lib.override(self.defaults, texts),
            draw.values,
        )

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """Makes the space as keras-tuner knows it.

        Raises:
            UserError: As `draw`.
        """
        hyperparameters = keras_tuner.HyperParameters()
        self.draw(hyperparameters)
        return hyperparameters

    def corners(self) -> list[Sample]:
        """Lists points that hold both ends of all ranges and every choice.

        Raises:
            UserError: As `draw`, or if there is no range at all.
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
        """Whether a field of the config has a range."""
        return _as_call(self.config.get(field, "")) is not None


def make(
    searched: experiment.Experiment, method: str, texts: Mapping[str, str]
) -> SearchSpace:
    """Makes a search space of what a user wrote and what is declared.

    Args:
        searched: The experiment.
        method: A recipe, with or without ranges.
        texts: Values or ranges, by field of the config.

    Returns:
        The search space.

    Raises:
        UserError: If the recipe cannot be read.
    """
    declared = {**METHOD_RANGES, **searched.search_space}
    fields = {name: text for name, text in declared.items() if "." not in name}
    completed = [_complete(term, declared) for term in _terms(method)]
    return SearchSpace(
        "+".join(map(ast.unparse, completed)),
        {**fields, **texts},
        searched.defaults,
    )


def describe(experiments: Mapping[str, experiment.Experiment]) -> str:
    """Lists the declared ranges, a line for each experiment."""
    declared = {
        "any experiment": METHOD_RANGES,
        **{name: one.search_space for name, one in experiments.items()},
    }
    return "\n".join(
        f"{name}: {', '.join(f'{k}={v}' for k, v in ranges.items())}"
        for name, ranges in declared.items()
        if ranges
    )


class _Draw:
    """Puts drawn values in the place of ranges."""

    def __init__(self, hyperparameters: keras_tuner.HyperParameters):
        self._hyperparameters = hyperparameters
        self.values = {}

    def text(self, text: str, name: str) -> str:
        """Gives a value for the text of a range, other texts as they are."""
        node = _as_call(text)
        return text if node is None else str(self._draw(node, name))

    def recipe(self, text: str) -> str:
        """Gives a recipe without ranges."""
        seen = collections.Counter()
        terms = []
        for term in _terms(text):
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
        if kind not in _RANGES:
            usages = [usage for _, usage in _RANGES.values()]
            raise errors.UserError(
                f"{got} a value or one of {'; '.join(usages)}."
            )
        draw, usage = _RANGES[kind]
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
    """Reads text that is the call of a name, such as a range."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return node if is_call else None


def _terms(recipe: str) -> list[ast.expr]:
    """Splits a recipe at its plus signs."""
    try:
        node = ast.parse(recipe.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        execution.parse_method(recipe)
        raise
    terms = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        terms.insert(0, node.right)
        node = node.left
    return [node, *terms]


def _complete(term: ast.expr, declared: Mapping[str, str]) -> ast.expr:
    """Adds the declared ranges of arguments that a term does not give.

    Arguments given by position may be any, so that term is left alone.
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
