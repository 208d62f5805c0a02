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
    arguments = ["--suites=quick", f"--json={path}"]
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
    assert saved["pairs"] == 12
    assert saved["cpu_count"] >= 1
    assert {"keras", "python", "tensorflow"} <= set(saved["versions"])
    assert saved["suites"]["quick"]["rounds"] == 4
    row, other = saved["suites"]["quick"]["rows"]
    assert (row["median"], row["verdict"]) == (0.9, "missed")
    assert (other["quantity"], other["verdict"]) == ("frames/s", "")
    assert [p.name for p in path.parent.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suites=layers"], "all, or some of layer, shared,"),
        (["--suites="], "all, or some of layer, shared,"),
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
    assert registry.select("all") == [*registry.SUITES]
    assert {*registry.SHORT} < {*registry.SUITES}


def test_a_stop_loses_the_suite_that_runs_alone(monkeypatch, tmp_path):
    """What has ended is on the screen and in the file."""

    def stopped(rounds, progress):
        raise KeyboardInterrupt

    rows = [measuring.Row("b", "a", "speed", 0.9, 0.8, 1.0)]
    suites = {
        "quick": measuring.Suite("a case", lambda rounds, progress: rows),
        "long": measuring.Suite("another", stopped),
    }
    monkeypatch.setattr(registry, "SUITES", suites)
    shown, path = [], tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        registry.execute(["quick", "long"], 2, path, shown.append)
    (text,) = shown
    assert text.startswith("quick: a case\n")
    assert [*json.loads(path.read_text())["suites"]] == ["quick"]


def test_help_names_the_defaults(capsys):
    assert command.guarded(benchmark.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "layer,graddrop,shared" in "".join(printed.split())
    assert "(default: '12')" in printed
