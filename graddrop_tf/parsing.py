"""The grammar of recipes: `NAME` or `NAME(ARGUMENT=VALUE, ...)`, joined by `+`.

Python's own parser reads the text. Nothing in it is executed: a value is a
literal.
"""

from __future__ import annotations

import ast
import difflib
from typing import Any

from graddrop_tf.bases.configuration import constructor_arguments
from graddrop_tf.methods import METHODS

# The terms that are not methods, with their arguments.
_OWN_TERMS = {"baseline": [], "clip": ["norm"], "penalty": ["factor"]}


def parse_expression(text: str) -> ast.expr | None:
    """Parses text as one Python expression.

    Args:
        text: Any text.

    Returns:
        The expression, or None if the text is not one.

    Example:
        >>> gd.parsing.parse_expression("uniform(0, 1)").func.id
        'uniform'
    """
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def split_recipes(text: str) -> list[str]:
    """Splits a list of recipes at the commas outside brackets.

    Args:
        text: Recipes separated by commas.

    Returns:
        The recipes, at least one.

    Raises:
        ValueError: If the text is not such a list.

    Example:
        >>> gd.parsing.split_recipes("mgda, graddrop(k=0.25, leak=[1, 0])")
        ['mgda', 'graddrop(k=0.25, leak=[1, 0])']
    """
    listed = f"[{text.strip()}]"
    node = parse_expression(listed)
    if (
        not isinstance(node, ast.List)
        or not node.elts
        or text.strip().endswith(",")
    ):
        raise ValueError(
            f"got {text!r}, expected recipes separated by single commas, each "
            "bracket with its partner, such as baseline,graddrop(k=0.25)."
        )
    return [ast.get_source_segment(listed, item) for item in node.elts]


def split_terms(text: str) -> list[ast.expr]:
    """Splits a recipe at its plus signs.

    Args:
        text: The recipe.

    Returns:
        The terms in order, as Python expressions.

    Raises:
        ValueError: If the text is not an expression.

    Example:
        >>> [ast.unparse(t) for t in gd.parsing.split_terms("mgda + clip(1)")]
        ['mgda', 'clip(1)']
    """
    node = parse_expression(text) if isinstance(text, str) else None
    if node is None:
        raise _bad_recipe(text)
    terms = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        terms.append(node.right)
        node = node.left
    return [node, *reversed(terms)]


def parse_terms(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Parses a recipe.

    Args:
        text: The recipe.

    Returns:
        The name and the arguments of each term, in order.

    Raises:
        ValueError: If the text is not a recipe, or a name or an argument is
            unknown; the message lists the known ones.

    Example:
        >>> gd.parsing.parse_terms("mgda+graddrop(0.5, k=2)")
        [('mgda', {}), ('graddrop', {'leak': 0.5, 'k': 2})]
    """
    return [_parse_term(node, text) for node in split_terms(text)]


def _parse_term(node: ast.expr, text: str) -> tuple[str, dict[str, Any]]:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        raise _bad_recipe(text)
    name = call.func.id
    known = _known_arguments(name)
    try:
        values = [ast.literal_eval(value) for value in call.args]
        named = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, TypeError, SyntaxError) as error:
        raise ValueError(
            f"The arguments of `{name}` must be plain values. Received: "
            f"{text!r}."
        ) from error
    if len(values) > len(known) or not named.keys() <= {*known[len(values) :]}:
        raise ValueError(
            f"`{name}` has no such arguments, or one is given twice. "
            f"Received: {ast.unparse(node)!r}. Known arguments: "
            f"{', '.join(known) or 'none'}."
        )
    return name, {**dict(zip(known, values, strict=False)), **named}


def _known_arguments(name: str) -> list[str]:
    if name in _OWN_TERMS:
        return _OWN_TERMS[name]
    if name not in METHODS:
        near = difflib.get_close_matches(name, [*METHODS, *_OWN_TERMS], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"There is no method {name!r}.{hint} Known names: {_known_names()}."
        )
    arguments = constructor_arguments(METHODS[name])
    # What a model says of its losses is no part of a recipe.
    return [a for a in arguments if a not in ("num_losses", "separate")]


def _known_names() -> str:
    return ", ".join(sorted([*METHODS, *_OWN_TERMS]))


def _bad_recipe(text: Any) -> ValueError:
    return ValueError(
        "A recipe is one or more of NAME or NAME(ARGUMENT=VALUE, ...) joined "
        f"by '+'. Received: {text!r}. Known names: {_known_names()}."
    )
