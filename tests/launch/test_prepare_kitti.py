"""The help; `tests/data/lidar/kitti/` tests what the command does."""

import re

from launch import command, prepare_kitti, train
from trainers import errors
from trainers.runs import execution


def test_the_training_command_of_the_help_is_a_short_run(
    capsys, monkeypatch, tmp_path
):
    assert command.guarded(prepare_kitti.main, ["--help"]) == 0
    (text,) = re.findall(
        r"python -m launch\.train (.*?)\n\n", capsys.readouterr().out, re.DOTALL
    )
    text = (
        text.replace("\\\n", " ")
        .replace("=OUT", f"={tmp_path}")
        .replace("=RUN", f"={tmp_path}")
    )
    runs = []

    def execute(run, progress):
        runs.append(run)
        raise errors.UserError("it would start here.")

    monkeypatch.setattr(execution, "execute", execute)
    assert command.guarded(train.main, text.split()) == 2
    assert "it would start here" in capsys.readouterr().err
    (run,) = runs
    assert run.config.dataset == "kitti_lidar"
    assert run.config.steps <= 1000
