"""The README does what it says."""

import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    np.testing.assert_allclose(names["purity"], [[1.0, 0.7]], atol=1e-6)
    # U = 0.9 is above 0.7: there the negative gradient stays.
    np.testing.assert_allclose(
        [g.numpy() for g in names["masked"]], [[[3.0, 0.0]], [[1.0, -3.0]]]
    )
    assert np.all(np.isfinite(names["losses"]))
    assert names["model"].count_params() > names["plain"].count_params()
    assert (tmp_path / "model.keras").exists()


def test_diff_changes_four_lines_of_a_model_that_trains():
    (block,) = blocks("diff")
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


def commands():
    return [
        line for block in blocks("bash") for line in block.splitlines() if line
    ]


@pytest.mark.parametrize("command", commands())
def test_shell_blocks_run(command, tmp_path):
    words = shlex.split(command)
    if words[0] == "make":
        # Running it here would install, or start these tests again.
        words = ["make", "--dry-run", *words[1:]]
    else:
        assert words[:2] == ["python", "-m"]
        words = [sys.executable] + [
            w.replace("runs/", f"{tmp_path.parent}/readme-runs/")
            for w in words[1:]
        ]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_links_lead_to_files():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
