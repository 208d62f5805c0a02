import os
import signal
import subprocess
import threading

import numpy as np
import pytest

from launch import check_resuming, command
from trainers.experiments import digits
from trainers.runs import kill_check

_DIGITS = [
    "--experiment=digits",
    "--method=graddrop",
    "--config.dropout=0.5",
    "--config.steps=12",
    "--config.steps_per_epoch=4",
    "--config.checkpoint_steps=1",
    "--config.batch_size=8",
    "--config.training_pairs=64",
    "--config.test_pairs=16",
]


def test_a_run_with_dropout_survives_two_kills(tmp_path, capsys):
    directory = tmp_path / "check"
    arguments = [*_DIGITS, "--kills=2", f"--run_dir={directory}"]
    assert command.guarded(check_resuming.main, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    kills = [line for line in lines if "newest checkpoint of step" in line]
    assert [line[:5] for line in kills] == ["[1/2]", "[2/2]"]
    assert lines[-1] == "2 kills: nothing lost, bit for bit the same."

    # What the verdict is of: damage to any of it would have been seen.
    whole, killed = directory / "undisturbed", directory / "killed-1"
    assert kill_check.differences(whole, killed) == []
    for name, change, part in [
        ("metrics.csv", (b"\n", b" \n"), "metrics.csv differs"),
        (
            "checkpoints/step-000000012.npz",
            (b"\0", b"\1"),
            "step-000000012.npz differs",
        ),
        ("results.json", (b'"error": ', b'"error": 1'), "the final metrics"),
    ]:
        before = (killed / name).read_bytes()
        (killed / name).write_bytes(before.replace(*change, 1))
        (line,) = kill_check.differences(whole, killed)
        assert part in line
        (killed / name).write_bytes(before)
    (killed / "metrics.csv").unlink()
    assert len(kill_check.differences(whole, killed)) == 1


def test_dropout_makes_a_difference():
    """Else the test above would say nothing of its masks."""
    rng = np.random.default_rng(0)
    images = rng.random((4, 8, 8, 1), np.float32)
    trunk = digits.make_trunk(8, 0.5)
    one, two = (trunk(images, training=True).numpy() for _ in range(2))
    assert np.any(one != two)
    assert len(trunk.non_trainable_variables) == 1


def test_sigterm_ends_the_run_it_has_started(tmp_path, monkeypatch, capsys):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    before = signal.getsignal(signal.SIGTERM)
    arguments = [*_DIGITS, f"--run_dir={tmp_path}/check"]
    assert command.guarded(check_resuming.main, arguments) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--strategy=mirrored", ["--strategy", "mirrored", "one device"]),
        ("--logical_cpus=2", ["2 logical CPUs", "one device"]),
        ("--kills=0", ["kills", "0"]),
        ("stray", ["'stray'"]),
    ],
)
def test_mistakes_get_one_line(argument, parts, tmp_path, refused):
    arguments = [*_DIGITS, argument, f"--run_dir={tmp_path}/check"]
    refused(check_resuming.main, arguments, parts)
    assert not list(tmp_path.iterdir())


def test_missing_data_get_one_line_and_leave_nothing(tmp_path, refused):
    arguments = ["--experiment=celeba", "--method=graddrop"]
    arguments += [f"--data_dir={tmp_path}", f"--run_dir={tmp_path}/check"]
    printed = refused(check_resuming.main, arguments, ["celeb_a is not prep"])
    assert printed.err.count("error") == 1
    assert not list(tmp_path.iterdir())


def test_a_directory_with_files_is_refused(tmp_path, refused):
    (tmp_path / "notes.txt").touch()
    arguments = [*_DIGITS, f"--run_dir={tmp_path}"]
    refused(check_resuming.main, arguments, ["new or an empty directory"])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
