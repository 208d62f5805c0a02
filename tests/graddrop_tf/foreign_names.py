"""Private names of Keras and TensorFlow in the sources of the library."""

import ast
import collections
import functools
import importlib
import inspect
import pathlib
import pkgutil
import textwrap

import graddrop_tf as gd

_ROOT = pathlib.Path(gd.__file__).parent
# Underscores in front of these only keep them apart from fields.
_PUBLIC = {"_asdict", "_fields", "_make", "_replace"}
# `instance` is what `__new__` makes.
_SELF = {"self", "cls", "super()", "instance"}
_PRIVATE_MODULES = ("keras.src", "tensorflow.python")


def _is_private(name):
    return (
        isinstance(name, str)
        and name.startswith("_")
        and not name.startswith("__")
        and name not in _PUBLIC
    )


def _mentions(tree):
    """Yields each private attribute: of what, its name, whether it is set."""
    strings = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
            is_set = isinstance(node.ctx, ast.Store)
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            function = ast.unparse(node.func).rsplit(".")[-1].strip("_")
            if not function.endswith("attr"):
                continue
            owner, name = node.args[0], node.args[1]
            name = getattr(name, "value", strings.get(ast.unparse(name)))
            is_set = function == "setattr"
        else:
            continue
        if _is_private(name):
            yield ast.unparse(owner), name, is_set


def _defined(tree):
    """Returns the private methods of a class, and what it sets on `self`."""
    names = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and _is_private(node.name)
    }
    return names | {
        name
        for owner, name, is_set in _mentions(tree)
        if is_set and owner in _SELF
    }


@functools.cache
def _defined_by(cls):
    """Returns `_defined` of a class; nothing if it is not of Python."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return set()
    return _defined(ast.parse(textwrap.dedent(source)).body[0])


def foreign_names(tree, ours):
    """Lists private attributes of others, and imports of private modules.

    `self` has those that a class of ours defines; a class may also read its
    own of other objects.
    """
    own, imports = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            own |= _defined(node)
        elif isinstance(node, ast.ImportFrom):
            imports += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    yield from (n for n in imports if n.startswith(_PRIVATE_MODULES))
    for owner, name, _ in _mentions(tree):
        if name not in (ours if owner in _SELF else own):
            yield name


def _overridden(cls):
    """Returns the private names of a class that a base of others has too."""
    bases = [
        base
        for base in cls.__mro__
        if not base.__module__.startswith(gd.__name__)
    ]
    return _defined_by(cls) & set().union(*map(_defined_by, bases))


@functools.cache
def foreign_parts():
    """Maps each private name of others to the files that use it."""
    files = collections.defaultdict(set)
    trees = {
        str(path.relative_to(_ROOT)): ast.parse(path.read_text("utf-8"))
        for path in _ROOT.rglob("*.py")
    }
    ours = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                ours |= _defined(node)
    for file, tree in trees.items():
        for name in foreign_names(tree, ours):
            files[name].add(file)
    for module in pkgutil.walk_packages(gd.__path__, f"{gd.__name__}."):
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and cls.__module__ == module.name:
                for name in _overridden(cls):
                    file = pathlib.Path(inspect.getfile(cls))
                    files[name].add(str(file.relative_to(_ROOT)))
    return dict(files)
