"""The tests use no private name of the code."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parent
# Underscores in front of these only keep them apart from fields.
_PUBLIC = {"_asdict", "_fields", "_make", "_replace"}


def _is_private(name):
    return (
        name.startswith("_")
        and not name.startswith("__")
        and name not in _PUBLIC
    )


def _private_names(source):
    """Lists what private names of others a module reads or patches."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            if ast.unparse(node.value) not in ("self", "cls"):
                names.append(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func).rsplit(".")[-1]
            if function.endswith("attr") or "patch" in function:
                names += [
                    argument.value.rsplit(".")[-1]
                    for argument in node.args
                    if isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                ]
    return [name for name in names if _is_private(name)]


def test_no_test_uses_a_private_name():
    paths = sorted(_ROOT.rglob("*.py"))
    assert paths
    for path in paths:
        found = _private_names(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(_ROOT)} uses {found}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("model._losses()", ["_losses"]),
        ("self.model._losses", ["_losses"]),
        ("from graddrop_tf.model import _check", ["_check"]),
        ("monkeypatch.setattr(loop, '_SECONDS', 0)", ["_SECONDS"]),
        ("mock.patch('trainers.files._write')", ["_write"]),
        ("getattr(loop, '_SECONDS')", ["_SECONDS"]),
        ("self._mine; cls._mine; row._replace(a=1); type(x).__name__", []),
    ],
)
def test_a_private_name_is_seen(source, found):
    assert _private_names(source) == found
