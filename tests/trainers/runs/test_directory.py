import dataclasses
import pathlib
import shlex

import graddrop_tf as gd
from trainers.experiments import registry
from trainers.runs import directory as run_directory
from trainers.runs import experiment
from trainers.training.devices import Devices


def test_the_command_of_a_run_names_what_is_not_the_default():
    digits = registry.EXPERIMENTS["digits"]
    run = experiment.Run(
        digits,
        gd.Recipe.parse("graddrop(leak={'a': 1})"),
        2,
        dataclasses.replace(digits.defaults, jit_compile=True),
        pathlib.Path("runs/it's"),
        devices=Devices("auto", 2),
    )
    assert shlex.split(run_directory.training_command(run)) == [
        "python",
        "-m",
        "launch.train",
        "--experiment=digits",
        "--method=graddrop(leak={'a': 1})",
        "--seed=2",
        "--config.jit_compile=True",
        "--run_dir=runs/it's",
        "--logical_cpus=2",
    ]
