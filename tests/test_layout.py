"""graddrop_tf and data <- trainers <- launch; absl.flags in launch alone."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_ALLOWED = {
    "graddrop_tf": {"graddrop_tf"},
    "data": {"data"},
    "trainers": {"trainers", "data", "graddrop_tf"},
    "launch": {"launch", "trainers", "data", "graddrop_tf"},
}
_LIBRARY_MAY_IMPORT = {"tensorflow", "keras"}


def _imports(source):
    """Lists the dotted names that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _violations(package, source):
    names = _imports(source)
    ours = {name.split(".")[0] for name in names} & {*_ALLOWED, "tests"}
    found = ours - _ALLOWED[package]
    if package != "launch":
        found |= {
            name
            for name in names
            if name.startswith(("absl.flags", "absl.app"))
        }
    return found


@pytest.mark.parametrize("package", _ALLOWED)
def test_imports_go_one_way(package):
    paths = sorted((_ROOT / package).rglob("*.py"))
    assert paths
    for path in paths:
        found = _violations(package, path.read_text())
        assert not found, f"{path.relative_to(_ROOT)} imports {found}"


def test_the_library_needs_tensorflow_and_keras_only():
    import sys

    known = {*sys.stdlib_module_names, *_LIBRARY_MAY_IMPORT, "graddrop_tf"}
    for path in sorted((_ROOT / "graddrop_tf").rglob("*.py")):
        tops = {name.split(".")[0] for name in _imports(path.read_text())}
        assert tops <= known, f"{path.relative_to(_ROOT)}: {tops - known}"


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("graddrop_tf", "import trainers"),
        ("graddrop_tf", "def f():\n    from data import digits"),
        ("data", "from graddrop_tf import GradDrop"),
        ("trainers", "from launch import train"),
        ("trainers", "from absl import flags"),
        ("trainers", "import absl.flags as f"),
        ("launch", "from tests import cases"),
    ],
)
def test_a_forbidden_import_is_seen(package, source):
    assert _violations(package, source)
