"""Which package, and which folder in it, may import which; and their sizes.

`graddrop_tf` and `data` import nothing of ours, `trainers` imports both, and
`launch` imports all three; `absl.flags` stands in `launch` alone. Inside of a
package each folder or module imports from lower floors only.
"""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
_ALLOWED = {
    "graddrop_tf": {"graddrop_tf"},
    "data": {"data"},
    "trainers": {"trainers", "data", "graddrop_tf"},
    "launch": {"launch", "trainers", "data", "graddrop_tf"},
}
_LIBRARY_MAY_IMPORT = {"tensorflow", "keras"}

# From the ground floor up.
_FLOORS = {
    "graddrop_tf": [
        {"_version", "backend", "checks", "graph", "random", "replicas"},
        {
            "cloning",
            "cut",
            "fitting",
            "fusion",
            "linalg",
            "products",
            "reached",
            "schedules",
        },
        {"per_loss", "rows", "solvers"},
        {"places"},
        {"bases"},
        {"input_layers", "methods", "step"},
        {"parsing", "parts"},
        {"recipe", "trunk_and_heads"},
        {"combination", "inference", "recipe_holder"},
        {"conversion"},
        {"model"},
        {"monitor"},
    ],
    "data": [
        {"files", "sources", "streams", "turns"},
        {"digits", "prepared", "records"},
        {
            "attribute_sets",
            "downloads",
            "drawn_faces",
            "lidar",
            "mixed_batches",
            "photos",
        },
    ],
    "trainers": [
        {"drawing", "errors", "models", "quiet", "text_table"},
        {"config", "files"},
        {"detection", "training"},
        {"benchmarks", "runs"},
        {"reporting", "search"},
        {"experiments"},
    ],
}
# Lines; the docstring of a function does not count.
_MAX_FILE, _MAX_FUNCTION, _MAX_CLASS = 350, 60, 250


def _paths(package):
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    return paths


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


def _climbs(package, room, source):
    """Lists the imports of a room from its own floor or a higher one."""
    floors = {
        name: number
        for number, names in enumerate(_FLOORS[package])
        for name in names
    }
    found = []
    for name in sorted(_imports(source)):
        top, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if top != package or other == room or other not in floors:
            continue
        if floors[other] >= floors[room]:
            found.append(name)
    return found


@pytest.mark.parametrize("package", _ALLOWED)
def test_imports_go_one_way(package):
    for path in _paths(package):
        found = _violations(package, path.read_text())
        assert not found, f"{path.relative_to(ROOT)} imports {found}"


@pytest.mark.parametrize("package", _FLOORS)
def test_every_room_stands_on_a_floor(package):
    rooms = {
        path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        for path in _paths(package)
    }
    floors = [name for names in _FLOORS[package] for name in names]
    assert sorted(rooms - {"__init__"}) == sorted(floors)


@pytest.mark.parametrize("package", _FLOORS)
def test_rooms_import_from_lower_floors(package):
    for path in _paths(package):
        place = path.relative_to(ROOT / package)
        room = place.parts[0].removesuffix(".py")
        if room != "__init__":
            found = _climbs(package, room, path.read_text())
            assert not found, f"{package}/{place} imports {found}"


def test_only_launch_and_the_registry_know_all_experiments():
    for path in _paths("trainers/experiments"):
        place = path.relative_to(ROOT / "trainers/experiments")
        own = place.parts[0].removesuffix(".py")
        others = {
            name.split(".")[2]
            for name in _imports(path.read_text())
            if name.startswith("trainers.experiments.")
        }
        assert own == "registry" or others <= {own}, place


def test_the_library_needs_tensorflow_and_keras_only():
    known = {*sys.stdlib_module_names, *_LIBRARY_MAY_IMPORT, "graddrop_tf"}
    for path in _paths("graddrop_tf"):
        tops = {name.split(".")[0] for name in _imports(path.read_text())}
        assert tops <= known, f"{path.relative_to(ROOT)}: {tops - known}"


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


@pytest.mark.parametrize(
    ("package", "room", "source"),
    [
        ("graddrop_tf", "bases", "from graddrop_tf.methods import METHODS"),
        ("graddrop_tf", "methods", "import graddrop_tf.step.state"),
        ("data", "streams", "def f():\n    from data import prepared"),
        ("trainers", "training", "from trainers.runs import execution"),
        ("trainers", "runs", "from trainers import experiments"),
        ("trainers", "errors", "from trainers.drawing import png"),
    ],
)
def test_an_import_of_a_higher_floor_is_seen(package, room, source):
    assert _climbs(package, room, source)


def _sizes(path):
    """Yields what stands in a file, its number of lines and their limit."""
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    yield name, len(text.splitlines()), _MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = node.body[0] if ast.get_docstring(node) else None
            yield (
                f"{name}: {node.name}",
                _num_lines(node) - (_num_lines(docstring) if docstring else 0),
                _MAX_FUNCTION,
            )
        elif isinstance(node, ast.ClassDef):
            yield f"{name}: {node.name}", _num_lines(node), _MAX_CLASS


def _num_lines(node):
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("package", _ALLOWED)
def test_files_functions_and_classes_are_short(package):
    long = [
        f"{name}: {size} lines, expected at most {limit}"
        for path in _paths(package)
        for name, size, limit in _sizes(path)
        if size > limit
    ]
    assert not long, "\n".join(long)


def test_what_is_too_long_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "module.py"
    body = "    x = 1\n" * 60
    path.write_text(f"def f():\n{body}\n\nclass C:\n{body * 6}")
    long = {name for name, size, limit in _sizes(path) if size > limit}
    assert long == {"module.py", "module.py: f", "module.py: C"}
