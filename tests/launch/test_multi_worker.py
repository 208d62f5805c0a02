"""Two processes that talk over loopback, and what may happen to them."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from launch import command
from launch import train as launch_train
from tests.launch import two_workers

_ROOT = pathlib.Path(__file__).parent.parent.parent
_SECONDS = 900


def _free_ports():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def _start_two(part, directory):
    """Runs both workers to their end; their exit codes and output."""
    addresses = [f"localhost:{port}" for port in _free_ports()]
    processes, outputs = [], []
    try:
        for index in range(2):
            task = {"type": "worker", "index": index}
            cluster = {"cluster": {"worker": addresses}, "task": task}
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "tests.launch.two_workers",
                        part,
                        str(directory),
                    ],
                    cwd=_ROOT,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                )
            )
        for process in processes:
            outputs.append(process.communicate(timeout=_SECONDS)[0])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [process.returncode for process in processes], outputs


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """The directory of two workers, of which one was ended twice."""
    directory = tmp_path_factory.mktemp("disturbed")
    (directory / "library").mkdir()
    return directory, *_start_two("first", directory)


def test_two_workers_equal_one_process(disturbed):
    directory, _, outputs = disturbed
    cases = two_workers.library_cases()
    for number, (function, *arguments) in enumerate(cases):
        expected = function(*arguments)
        for index in range(2):
            path = directory / "library" / f"{number}-{index}.npz"
            assert path.exists(), outputs[index][-3000:]
            with np.load(path) as got:
                assert len(got.files) == len(expected)
                for name, value in zip(got.files, expected, strict=True):
                    np.testing.assert_allclose(
                        got[name], value, atol=1e-5, err_msg=f"{arguments}"
                    )


def test_a_disturbed_run_ends_as_an_undisturbed_one(
    disturbed, tmp_path, capsys
):
    directory, codes, outputs = disturbed
    run = directory / "run"
    assert codes == [os.EX_TEMPFAIL, -signal.SIGKILL], outputs
    for index, output in enumerate(outputs):
        name = f"[worker {index + 1} of 2] "
        assert f"{name}stopped by SIGTERM and saved after step 4" in output
        assert f"terminated: {os.EX_TEMPFAIL}" in output
        assert f"{name}    resuming after step 4 of 20." in output
    assert "another worker is lost" in outputs[0]
    newest = max((run / "checkpoints").glob("step-*"))
    assert newest.name == "step-000000015.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    codes, outputs = _start_two("rest", run)
    assert codes == [0, 0], outputs
    for output in outputs:
        assert f"{newest} is damaged" in output
        assert "resuming after step 12 of 20" in output
    arguments = [*two_workers.DIGITS, f"--run_dir={tmp_path}/whole"]
    keras.utils.set_random_seed(0)
    assert command.guarded(launch_train.main, arguments) == 0
    rows = [
        np.loadtxt(each / "metrics.csv", delimiter=",", skiprows=1)
        for each in (run, tmp_path / "whole")
    ]
    np.testing.assert_allclose(*rows, atol=1e-5)
    name = "checkpoints/step-000000020.npz"
    with np.load(run / name) as got, np.load(tmp_path / "whole" / name) as one:
        assert got.files == one.files
        # Variables of other layers came before in the other process.
        for key in set(got.files) - {"paths"}:
            np.testing.assert_allclose(
                got[key], one[key], atol=1e-5, err_msg=key
            )
    assert json.loads((run / "results.json").read_text())["num_replicas"] == 2
    # One for each time that the chief started, or resumed inside an epoch.
    assert len(list((run / "tensorboard" / "train").iterdir())) == 4
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({}, ["--strategy=multi_worker", "TF_CONFIG", "srun"]),
        ({"TF_CONFIG": "{}"}, ["TF_CONFIG", "'{}'", "cluster"]),
        ({"SLURM_PROCID": "0"}, ["Slurm", "SLURM_STEP_NODELIST"]),
    ],
)
def test_no_cluster_is_one_line(
    environment, parts, tmp_path, monkeypatch, refused
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    arguments = [*two_workers.DIGITS, f"--run_dir={tmp_path}/run"]
    arguments.append("--strategy=multi_worker")
    refused(launch_train.main, arguments, parts)
    assert not list(tmp_path.iterdir())
