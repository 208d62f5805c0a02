"""The README and the documents do what they say."""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from launch import command, run_flags

ROOT = pathlib.Path(__file__).parent.parent
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
}


def blocks(name, language):
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[name], re.DOTALL)


def run_python(name, **names):
    names |= {"__name__": "document"}
    for block in blocks(name, "python"):
        exec(compile(block, name, "exec"), names)
    return names


def test_readme_trains_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_python("README.md")
    assert names["model"].count_params() == names["plain"].count_params()
    assert len(names["model"].variables) > len(names["plain"].variables)


def test_readme_converts_a_model_in_four_lines():
    (row,) = re.findall(r"^\| a Keras model.*", TEXTS["README.md"], re.M)
    lines = re.findall(r"`([^`]+)`", row)
    assert len(lines) == 4
    inputs = keras.Input([3])
    pooled = keras.layers.Dense(4, name="pooled")(inputs)
    outputs = [keras.layers.Dense(1)(pooled) for _ in range(2)]
    names = {
        "mine": keras.Model(inputs, outputs),
        "x": np.ones([4, 3], "float32"),
        "y": [np.ones([4, 1], "float32")] * 2,
    }
    before = names["mine"].get_weights()
    exec("\n".join(lines), names)
    after = names["mine"].get_weights()
    assert any((a != b).any() for a, b in zip(after, before))


def test_convert_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_python("docs/convert.md")
    (shown,) = re.findall(
        r"^    The outputs.*?\n\n", TEXTS["docs/convert.md"], re.M | re.S
    )
    assert (
        shown.split() == capsys.readouterr().out.split()[-len(shown.split()) :]
    )
    pasted = eval(re.search(r"Cut there\s+as well: at=(\[.*?\])", shown)[1])
    cut = gd.MultiLossModel.from_model(names["mine"], at=pasted)
    np.testing.assert_allclose(
        cut.predict(names["x"], verbose=0)[0],
        names["mine"].predict(names["x"], verbose=0)[0],
        atol=1e-6,
    )
    assert names["last"] is names["backbone"].get_layer("block_6_project_BN")
    assert not any(
        isinstance(layer, gd.Combiner) for layer in names["plain"].layers
    )


def test_custom_loops_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_python("docs/custom_loops.md")
    np.testing.assert_allclose(names["purity"], [[1.0, 0.7]], atol=1e-6)
    # U = 0.9 is above 0.7: there the negative gradient stays.
    np.testing.assert_allclose(
        [g.numpy() for g in names["masked"]], [[[3.0, 0.0]], [[1.0, -3.0]]]
    )
    assert np.all(np.isfinite(names["losses"]))
    assert np.all(np.isfinite(names["conflict_rate"]))
    assert (tmp_path / "model.keras").exists()


def test_weights_go_both_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_python("docs/methods.md")
    for a, b in zip(*(names[n].get_weights() for n in ("model", "plain"))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", gd.METHODS)
def test_every_method_has_a_row(name):
    (row,) = re.findall(rf"^\| `{name}[(`].*", TEXTS["docs/methods.md"], re.M)[
        :1
    ]
    assert f"`gd.{gd.METHODS[name].__name__}`" in row or (
        f"`gd.methods.{gd.METHODS[name].__name__}`" in row
    )


def test_many_devices_train_a_model(monkeypatch):
    # A process that has started TensorFlow cannot join other workers.
    name = "docs/many_devices.md"
    one_device = TEXTS[name].replace(
        "MultiWorkerMirroredStrategy()", "get_strategy()"
    )
    monkeypatch.setitem(TEXTS, name, one_device)
    inputs = keras.Input([4])
    branches = gd.GradDrop(num_losses=2)(keras.layers.Dense(3)(inputs))
    outputs = [keras.layers.Dense(1)(branch) for branch in branches]
    x = np.ones([8, 4], np.float32)
    names = run_python(
        name,
        tf=tf, keras=keras, gd=gd, inputs=inputs, outputs=outputs, x=x,
        y=[x[:, :1]] * 2,
    )  # fmt: skip
    assert names["model"].optimizer.iterations.numpy() == 1


def test_diff_changes_four_lines_of_a_model_that_trains():
    (block,) = blocks("README.md", "diff")
    lines = block.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    assert sum(line.startswith("+") for line in lines) == 4
    x = np.random.normal(size=[32, 64]).astype("float32")
    for source in (before, after):
        names = {}
        exec(compile(source, "README.md", "exec"), names)
        model = names["model"]
        model.fit(x, [x[:, :1], -x[:, :1]], verbose=0)
        assert isinstance(model, keras.Model)
    assert any("GradDrop" in type(x).__name__ for x in model.layers)


def commands(name, *languages):
    text = "\n".join(b for each in languages for b in blocks(name, each))
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def launch_commands():
    return [
        (name, shlex.split(line)[2:])
        for name in TEXTS
        for line in commands(name, "bash", "text")
        if line.startswith("python -m launch.")
    ]


@pytest.mark.parametrize(("name", "words"), launch_commands())
def test_commands_have_these_flags(name, words):
    module = importlib.import_module(words[0])
    positional, texts = command.parse(module.FLAGS, words[1:], "")
    assert positional == [] or words[0] == "launch.report"
    if "config.FIELD" in module.FLAGS:
        method = dict(w.partition("=")[::2] for w in words).get("--method", "")
        run_flags.make_run(module.FLAGS, texts, method or "baseline")


def runnable(line, runs):
    """Returns the words of a command as this test can run it."""
    words = shlex.split(line)
    if words[0] == "make":
        # Running it here would install, or start these tests again.
        return ["make", "--dry-run", *words[1:]]
    if words[0] == "pip":
        # Without the index: the requirements are there.
        pytest.importorskip("setuptools", reason="pip builds with it")
        options = ["--dry-run", "--no-index", "--no-build-isolation"]
        return [sys.executable, "-m", *words[:2], *options, *words[2:]]
    assert words[:2] == ["python", "-m"]
    return [
        sys.executable,
        *(w.replace("runs/", f"{runs}/") for w in words[1:]),
    ]


@pytest.mark.parametrize("name", ["README.md", "docs/experiments.md"])
def test_shell_blocks_run_in_order(name, tmp_path):
    lines = commands(name, "bash")
    assert lines
    for line in lines:
        done = subprocess.run(
            runnable(line, tmp_path),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXTS[name]):
        assert (folder / target).exists(), target
