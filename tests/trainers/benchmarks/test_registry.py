"""Choosing suites, and what comes out."""

import json

import pytest

from launch import benchmark, command
from trainers import errors
from trainers.benchmarks import measuring, registry


@pytest.fixture
def one_suite(monkeypatch):
    """Has one suite, which measures nothing."""
    rows = [
        measuring.Row("b", "a", "speed", 0.9, 0.8, 1.0, 0.95, 0.93, 0.45),
        measuring.Row("c", "", "frames/s", 12.34, 11.0, 13.0),
    ]
    suite = measuring.Suite("two cases", lambda rounds, progress: rows, 3)
    monkeypatch.setattr(registry, "SUITES", {"quick": suite})


def test_table_and_file_hold_the_figures(one_suite, tmp_path, capsys):
    path = tmp_path / "new" / "out.json"
    arguments = ["--suite=quick", f"--json={path}"]
    assert command.guarded(benchmark.main, arguments) == 0
    printed = capsys.readouterr().out
    for text in (
        "quick: two cases",
        "0.900",
        "0.800 - 1.000",
        ">= 0.93",
        "missed",
        "12.3 frames/s",
        "11.0 - 13.0",
    ):
        assert text in printed
    saved = json.loads(path.read_text())
    assert saved["pairs"] == 40
    assert saved["cpu_count"] >= 1
    assert {"keras", "python", "tensorflow"} <= set(saved["versions"])
    assert saved["suites"]["quick"]["rounds"] == 13
    row, other = saved["suites"]["quick"]["rows"]
    assert (row["median"], row["verdict"]) == (0.9, "missed")
    assert (other["quantity"], other["verdict"]) == ("frames/s", "")
    assert [p.name for p in path.parent.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suite=layers"], "layer, shared, weightings, memory"),
        (["--suite="], "layer, shared, weightings, memory"),
        (["--pairs=0"], "pairs"),
        (["--pairs=many"], "pairs"),
        (["layer"], "expected flags only"),
        (["--config.steps=1"], "expected flags only"),
        (["--json=."], "--json"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, expected, refused):
    assert refused(benchmark.main, arguments, [expected]).out == ""


def test_suites_are_named_once():
    assert registry.select("graddrop, layer,graddrop") == ["graddrop", "layer"]
    with pytest.raises(errors.UserError, match="'speed'"):
        registry.select("layer,speed")


def test_help_names_the_defaults(capsys):
    assert command.guarded(benchmark.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "layer,shared,weightings,memory" in "".join(printed.split())
    assert "(default: '40')" in printed
