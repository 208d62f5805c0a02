import dataclasses
import importlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data import downloads
from launch import command, compare, report, run_flags, train
from trainers.config import override
from trainers.experiments import digits, registry

_ROOT = pathlib.Path(__file__).parent.parent.parent
_SHORT_TOY = [
    "--experiment=toy",
    "--config.num_starts=4",
    "--config.steps=20",
    "--config.halve_every=10",
    "--config.jit_compile=false",
]
_SHORT_DIGITS = [
    "--experiment=digits",
    "--method=gradnorm+graddrop",
    "--config.steps=40",
    "--config.steps_per_epoch=2",
    "--config.batch_size=8",
    "--config.training_pairs=64",
    "--config.test_pairs=16",
]


def _start(module, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{module}", *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The command itself has to keep stderr clean.
        env={k: v for k, v in os.environ.items() if k[:3] != "TF_"},
    )


def test_train_runs_once(tmp_path, capsys):
    arguments = [*_SHORT_TOY, "--method=graddrop", f"--run_dir={tmp_path}/run"]
    assert command.guarded(train.main, arguments) == 0
    assert "mean_loss" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["config"]["steps"] == 20
    assert command.guarded(train.main, arguments) == 0
    assert capsys.readouterr().out.startswith("already ended: ")


def test_a_failed_run_is_an_error(tmp_path, capsys):
    arguments = [
        *_SHORT_TOY,
        "--method=baseline",
        f"--run_dir={tmp_path}/run",
        "--config.learning_rate=inf",
    ]
    for start in "error: failed at step 10", "error: already ended: failed":
        assert command.guarded(train.main, arguments) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(start)
        assert printed.count("\n") == 1


def test_compare_ends_in_a_report(tmp_path, capsys):
    arguments = [
        *_SHORT_TOY,
        "--methods=baseline,graddrop(k=0.25, leak=[1, 0, 0, 0, 0])",
        "--seeds=0,1",
        f"--run_dir={tmp_path}",
    ]
    assert command.guarded(compare.main, arguments) == 0
    printed = capsys.readouterr().out
    assert "[4/4] toy graddrop" in printed
    assert "method - baseline" in printed
    (tmp_path / "report.md").unlink()
    assert command.guarded(report.main, [str(tmp_path)]) == 0
    assert "method - baseline" in capsys.readouterr().out
    assert (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("main", "arguments", "parts"),
    [
        (train.main, [], ["--experiment, --method, --run_dir", "--help"]),
        (train.main, ["--sede=1"], ["sede"]),
        (train.main, ["--seed=one"], ["seed", "one"]),
        (train.main, ["--seed=-1"], ["seed", "-1"]),
        (train.main, ["stray"], ["'stray'", "flags only"]),
        (train.main, ["--config.steps"], ["--config.steps=VALUE"]),
        (train.main, ["--experiment=tony"], ["'tony'", "digits, toy"]),
        (train.main, ["--method=sgd"], ["'sgd'", "graddrop"]),
        (
            train.main,
            ["--method=gradrop"],
            ["error: There is no method 'gradrop'. Did you mean 'graddrop'?"],
        ),
        (train.main, ["--method=graddrop(q=1)"], ["Known arguments"]),
        (train.main, ["--method=graddrop(leak=2)"], ["leak"]),
        (train.main, ["--method=graddrop(leak=[0, 1])"], ["leak"]),
        (train.main, ["--config.stepz=1"], ["stepz", "halve_every"]),
        (train.main, ["--config=faces"], ["'faces'", "none for toy"]),
        (
            train.main,
            ["--experiment=celeba", "--config=faces"],
            ["'faces'", "drawn_faces, cmu_faces"],
        ),
        (
            train.main,
            ["--experiment=celeba", "--config=photos"],
            ["--config.dataset: got nothing", "launch.prepare_images"],
        ),
        (train.main, ["--config.steps=few"], ["'few'", "int"]),
        (train.main, ["--config.steps=0"], ["steps", "more than 0"]),
        (train.main, ["--strategy=two"], ["'two'", "auto, one, mirrored"]),
        (train.main, ["--logical_cpus=0"], ["logical_cpus"]),
        (train.main, ["--logical_cpus=64"], ["64", "new process"]),
        (train.main, ["--data_dir=x"], ["--data_dir"]),
        (
            train.main,
            ["--experiment=digits", "--logical_cpus=3"],
            ["batch_size", "3 replicas"],
        ),
        (
            train.main,
            [
                "--experiment=digits",
                "--logical_cpus=2",
                "--config.jit_compile=1",
            ],
            ["--config.jit_compile", "--strategy=one"],
        ),
        (
            train.main,
            ["--experiment=digits", "--config.steps=150"],
            ["multiple of steps_per_epoch"],
        ),
        (
            train.main,
            ["--experiment=digits", "--config.canvas=3"],
            ["canvas", "from 8 to 16"],
        ),
        (
            train.main,
            ["--experiment=digits", "--config.dropout=1"],
            ["dropout", "from 0 to below 1"],
        ),
        (compare.main, ["--methods=baseline,(", "--run_dir=x"], ["bracket"]),
        (compare.main, ["--methods=mgda,mgda"], ["--methods", "once"]),
        (compare.main, ["--seeds=0,x"], ["--seeds", "'0,x'"]),
        (compare.main, ["--methods=sgd"], ["'sgd'"]),
        (
            compare.main,
            ["--strategy=multi_worker"],
            ["--strategy", "multi_worker", "launch.train"],
        ),
        (report.main, [], ["one directory"]),
        (report.main, ["a", "b"], ["one directory", "'a b'"]),
        (report.main, ["missing"], ["missing is not a directory"]),
    ],
)
def test_mistakes_get_one_line(
    main, arguments, parts, tmp_path, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    complete = {
        train.main: [
            "--experiment=toy",
            "--method=baseline",
            "--run_dir=run",
        ],
        compare.main: ["--experiment=toy", "--run_dir=run"],
        report.main: [],
    }[main]
    if arguments:
        arguments = [*complete, *arguments]
    refused(main, arguments, parts)
    assert not list(tmp_path.iterdir())


def test_an_interruption_is_one_line(capsys):
    def main(arguments):
        raise KeyboardInterrupt

    assert command.guarded(main, []) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("module", [train, compare, report])
def test_help(module, capsys):
    assert command.guarded(module.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(module.__doc__.splitlines()[0])
    if module is not report:
        assert f"learning_rate={digits.DigitsConfig().learning_rate}" in printed
        assert "(default: 'auto')" in printed


_UNQUOTED = str.maketrans("", "", "'()")
_MODULES = sorted(
    path.stem
    for path in (_ROOT / "launch").glob("*.py")
    if path.stem not in ("__init__", "command", "run_flags")
)


@pytest.mark.parametrize("name", _MODULES)
def test_examples_and_names_of_the_help_can_be_pasted(name, capsys):
    module = importlib.import_module(f"launch.{name}")
    assert command.guarded(module.main, ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for line, following in itertools.pairwise(lines):
        if line.startswith("python -m ") and following:
            assert following.startswith("python -m ") or line.endswith("\\")
    words = " ".join(lines).translate(_UNQUOTED).split()
    flags = getattr(module, "FLAGS", ())
    for flag in set(flags) & {"methods", "suites", "beam_options"}:
        text = f"{flags[flag].help} {flags[flag].default}"
        assert {*text.translate(_UNQUOTED).split()} <= {*words, "[]"}


def test_stderr_holds_nothing_but_the_line(tmp_path):
    process = _start("report", str(tmp_path))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    assert stderr.splitlines() == [
        f"error: {tmp_path} holds no runs; start some with `python -m "
        "launch.train` or `python -m launch.compare`."
    ]


@pytest.mark.parametrize("kind", ["print", "flush", "UserError"])
def test_output_that_nobody_reads_ends_a_command_quietly(kind):
    code = f"""
from launch import command
from trainers import errors

def main(arguments):
    try:
        print("line\\n" * (1 if "{kind}" == "flush" else 100_000))
    except OSError as error:
        if "{kind}" == "UserError":
            raise errors.UserError("x") from error
        raise
    return 0

input()
command.run(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 141


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = _start("train", *_SHORT_DIGITS, f"--run_dir={killed}")
    try:
        deadline = time.monotonic() + 120.0
        while not (killed / "metrics.csv").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (killed / "results.json").exists()
    for directory in killed, whole:
        arguments = [*_SHORT_DIGITS, f"--run_dir={directory}"]
        assert command.guarded(train.main, arguments) == 0
    assert (killed / "metrics.csv").read_text() == (
        whole / "metrics.csv"
    ).read_text()
    name = "checkpoints/step-000000040.npz"
    with np.load(killed / name) as left, np.load(whole / name) as right:
        assert left.files == right.files
        for key in left.files:
            np.testing.assert_array_equal(left[key], right[key])
    assert json.loads((killed / "results.json").read_text())["resumed"]
    assert not json.loads((whole / "results.json").read_text())["resumed"]


def test_two_replicas_train_and_resume(tmp_path, capsys):
    arguments = [
        *_SHORT_DIGITS,
        "--config.steps=4",
        "--logical_cpus=2",
        f"--run_dir={tmp_path}",
    ]
    assert command.guarded(train.main, arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["num_replicas"] == 2
    (tmp_path / "results.json").unlink()
    newest = tmp_path / "checkpoints" / "step-000000004.npz"
    before = newest.read_bytes()
    newest.unlink()
    assert command.guarded(train.main, arguments) == 0
    assert "resuming after step 2 of 4" in capsys.readouterr().out
    assert newest.stat().st_size == len(before)


def test_sigterm_interrupts_a_download(monkeypatch):
    """So that it removes what is half downloaded."""

    def download(name, data_dir):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)

    monkeypatch.setattr(downloads, "download", download)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    texts = ["--experiment=celeba", "--run_dir=x", "--download"]
    command.parse(train.FLAGS, texts, "")
    run = run_flags.make_run(train.FLAGS, {})
    try:
        with pytest.raises(KeyboardInterrupt):
            run_flags.download(train.FLAGS, run.experiment, [run.config])
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def test_named_values_come_before_single_ones():
    texts = ["--experiment=celeba", "--config=cmu_faces", "--run_dir=x"]
    command.parse(train.FLAGS, texts, "")
    run = run_flags.make_run(train.FLAGS, {"channels": "4"})
    assert run.config.dataset == "cmu_faces"
    assert run.config.learning_rate_factors == ""
    assert (run.config.channels, run.config.height) == (4, 60)
    assert run.config.crop == run.experiment.defaults.crop


@pytest.mark.parametrize("name", registry.EXPERIMENTS)
def test_named_values_fit_the_experiment(name):
    experiment = registry.EXPERIMENTS[name]
    for values in experiment.variants.values():
        config = dataclasses.replace(experiment.defaults, **values)
        texts = {field: str(value) for field, value in values.items()}
        assert override(experiment.defaults, texts) == config
