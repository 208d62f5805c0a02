"""From simulated segments to a prepared data set, by commands alone."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from data.lidar.waymo import preparation
from launch import command, prepare_waymo, simulate_waymo
from tests.data.lidar import cases

_ROOT = pathlib.Path(__file__).parent.parent.parent
_SMALL = ["--sensors=small", "--extent=25", "--frames=1"]


@pytest.fixture(autouse=True)
def _on_processes(monkeypatch):
    monkeypatch.setattr(preparation, "beam_is_installed", lambda: False)


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    cases.messages()
    directory = tmp_path_factory.mktemp("drives")
    for name, number, seed in ("training", 2, 0), ("validation", 1, 1):
        arguments = [
            *_SMALL,
            f"--out={directory / name}",
            f"--segments={number}",
            f"--seed={seed}",
        ]
        assert command.guarded(simulate_waymo.main, arguments) == 0
    return directory


def _arguments(drives, data_dir):
    return [
        f"--train={drives / 'training'}",
        f"--validation={drives / 'validation'}",
        f"--data_dir={data_dir}",
        "--processes=1",
    ]


def _contents(data_dir):
    return {
        path.relative_to(data_dir): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file()
    }


def test_from_raw_segments_to_a_data_set(drives, tmp_path, capsys):
    for _ in range(2):
        arguments = _arguments(drives, tmp_path)
        assert command.guarded(prepare_waymo.main, arguments) == 0
        printed = capsys.readouterr()
        train, validation, last = printed.out.splitlines()
        assert train.startswith("train: 2 frames with ")
        assert validation.startswith("validation: 1 frame with ")
        assert last == f"Prepared: {tmp_path}/waymo_lidar/1.0.0"
        assert printed.err == ""
    builder = tfds.builder_from_directory(tmp_path / "waymo_lidar" / "1.0.0")
    examples = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert [example["segment"] for example in examples] == [
        b"simulated_0_00000",
        b"simulated_0_00001",
    ]
    for example in examples:
        assert (example["num_points"] > 50).any()
        assert len(example["points"]) > 5000


def test_boxes_without_numbers_of_points_are_counted(tmp_path, capsys):
    frame = cases.frame()
    for label in frame.laser_labels:
        label.ClearField("num_lidar_points_in_box")
    (tmp_path / "in").mkdir()
    cases.write_records(tmp_path / "in" / "a.tfrecord", [frame, cases.frame()])
    arguments = [
        f"--train={tmp_path / 'in'}",
        f"--data_dir={tmp_path}",
        "--processes=1",
    ]
    for _ in range(2):
        assert command.guarded(prepare_waymo.main, arguments) == 0
        assert capsys.readouterr().out.splitlines()[-3:] == [
            "train: 2 frames with 24 boxes in 1 shard",
            "12 boxes without numbers of lidar points: counted",
            f"Prepared: {tmp_path}/waymo_lidar/1.0.0",
        ]


@pytest.mark.skipif(
    preparation.beam_is_installed(),
    reason="the workers of Apache Beam outlive a killed command",
)
def test_killed_between_segments_it_continues(drives, tmp_path):
    """The second segment is a pipe that nobody writes to: it waits there."""
    copy = shutil.copytree(drives, tmp_path / "drives")
    second = copy / "training" / "segment-simulated_0_00001.tfrecord"
    second.unlink()
    os.mkfifo(second)
    arguments = _arguments(copy, tmp_path / "killed")
    unfinished = tmp_path / "killed" / "waymo_lidar" / "unfinished-1.0.0"
    note = unfinished / "train" / "segment-simulated_0_00000.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.prepare_waymo", *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120.0
        while not note.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    version = tmp_path / "killed" / "waymo_lidar" / "1.0.0"
    assert not version.exists()
    first = note.with_suffix(".tfrecord").stat().st_ino
    second.unlink()
    shutil.copy(drives / "training" / second.name, second)
    assert command.guarded(prepare_waymo.main, arguments) == 0
    # The first shard is the very file that was there.
    shard = version / "waymo_lidar-train.tfrecord-00000-of-00002"
    assert shard.stat().st_ino == first
    whole = _arguments(drives, tmp_path / "whole")
    assert command.guarded(prepare_waymo.main, whole) == 0
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")


def test_a_bad_segment_can_be_skipped(drives, tmp_path, capsys, refused):
    copy = shutil.copytree(drives, tmp_path / "drives")
    path = copy / "training" / "segment-simulated_0_00000.tfrecord"
    path.write_bytes(path.read_bytes()[:1000])
    arguments = _arguments(copy, tmp_path / "out")
    parts = ["1 of 3 segments cannot be read", "out by --skip_bad_segments."]
    printed = refused(prepare_waymo.main, arguments, parts)
    assert (
        f"bad segment: {path}, record 0: cannot be read (truncated record at "
        "byte 0).\n"
    ) in printed.out
    arguments.append("--skip_bad_segments")
    assert command.guarded(prepare_waymo.main, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2/3 segments are done"
    assert lines[1].startswith(f"bad segment: {path}, record 0")
    assert lines[2].startswith("train: 1 frame with ")


@pytest.mark.parametrize(
    ("main", "arguments", "parts"),
    [
        (prepare_waymo.main, [], ["--data_dir", "--help"]),
        (prepare_waymo.main, ["--data_dir=x"], ["--train, --validation"]),
        (
            prepare_waymo.main,
            ["--data_dir=x", "--train=missing"],
            ["missing", "no segments"],
        ),
        (
            prepare_waymo.main,
            ["--data_dir=x", "--train=y", "--processes=0"],
            ["processes"],
        ),
        (prepare_waymo.main, ["x"], ["'x'", "flags only"]),
        (prepare_waymo.main, ["--split=x"], ["split"]),
        (simulate_waymo.main, [], ["--out"]),
        (simulate_waymo.main, ["--out=x", "--frames=0"], ["frames"]),
        (simulate_waymo.main, ["--out=x", "--sensors=radar"], ["radar"]),
        (
            simulate_waymo.main,
            ["--out=x", "--occupancy=2"],
            ["occupancy: got 2.0"],
        ),
        (simulate_waymo.main, ["--out=/proc/x"], ["/proc/x"]),
    ],
)
def test_mistakes_get_one_line(
    main, arguments, parts, tmp_path, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused(main, arguments, parts)
    assert not list(tmp_path.iterdir())


def test_a_runner_needs_beam(drives, tmp_path, capsys, monkeypatch):
    for module in "apache_beam", "apache_beam.options":
        monkeypatch.setitem(sys.modules, module, None)
    arguments = [*_arguments(drives, tmp_path), "--beam_runner=FlinkRunner"]
    assert command.guarded(prepare_waymo.main, arguments) == 2
    assert "pip install -e '.[beam]'" in capsys.readouterr().err


@pytest.mark.parametrize("module", [prepare_waymo, simulate_waymo])
def test_help(module, capsys):
    assert command.guarded(module.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(module.__doc__.splitlines()[0])
    assert "(default: " in printed
