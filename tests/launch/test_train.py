import json

import keras
import numpy as np
import pytest

from launch import command, train

_DIGITS = [
    "--experiment=digits",
    "--method=graddrop",
    "--config.steps=4",
    "--config.steps_per_epoch=2",
    "--config.batch_size=8",
    "--config.training_pairs=64",
    "--config.test_pairs=16",
]


def test_switches_reach_every_replica(tmp_path):
    arguments = [
        *_DIGITS,
        "--config.mixed_precision=float16",
        "--config.steps_per_execution=2",
        "--config.gradient_accumulation_steps=2",
        "--config.jit_compile=false",
        "--logical_cpus=2",
        f"--run_dir={tmp_path}",
    ]
    assert command.guarded(train.main, arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    config = results["config"]
    assert config["mixed_precision"] == "float16"
    assert config["steps_per_execution"] == 2
    assert config["gradient_accumulation_steps"] == 2
    assert config["jit_compile"] is False
    assert results["num_replicas"] == 2
    with np.load(tmp_path / "checkpoints" / "step-000000004.npz") as saved:
        names = saved["paths"].tolist()
        scale = next(i for i, n in enumerate(names) if "dynamic_scale" in n)
        assert saved[f"{scale:05d}"] == 2.0**15
        # Micro-steps, of which two make an update. The loss scale's own
        # counter, which Keras leaves at 0, comes first.
        steps = [i for i, n in enumerate(names) if "iteration" in n]
        assert saved[f"{steps[-1]:05d}"] == 4
        assert saved["00000"].dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.mixed_precision=half", ["'half'", "bfloat16, float16"]),
        ("--config.steps_per_execution=3", ["steps_per_epoch", "multiple"]),
        (
            "--config.gradient_accumulation_steps=4",
            ["steps_per_epoch", "multiple"],
        ),
        ("--config.checkpoint_steps=-1", ["checkpoint_steps", "0 or more"]),
        ("--config.checkpoint_minutes=nan", ["checkpoint_minutes", "nan"]),
        ("--config.kept_checkpoints=0", ["kept_checkpoints"]),
    ],
)
def test_switches_that_cannot_be(argument, parts, tmp_path, refused):
    arguments = [*_DIGITS, argument, f"--run_dir={tmp_path}/run"]
    refused(train.main, arguments, parts)
    assert not list(tmp_path.iterdir())
