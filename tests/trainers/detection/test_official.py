"""The official op, with a stand-in for the interpreter that can load it.

The stand-in runs the real script on the real messages; only the compiled op
is replaced, by a function that says what it was given.
"""

import json
import re
import sys

import pytest

from tests.trainers.detection import waymo
from trainers import errors
from trainers.detection import boxes, breakdowns, official

_STAND_IN = """\
#!{python}
import json, os, runpy, sys, types

import numpy as np
from waymo_open_dataset.protos import metrics_pb2

op = types.ModuleType("waymo_open_dataset.metrics.ops.py_metrics_ops")
sys.modules[op.__name__] = op


def detection_metrics(config, **arguments):
    config = metrics_pb2.Config.FromString(config)
    shapes = {{k: [str(v.dtype), v.shape] for k, v in arguments.items()}}
    with open({log!r}, "w") as file:
        json.dump({{"config": str(config), "arguments": shapes}}, file)
    return (np.arange(32) / 32, np.arange(32) / 64, *"others")


op.detection_metrics = detection_metrics
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _interpreter(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("box_type", boxes.BOX_TYPES)
def test_runs_the_op_on_its_arguments(box_type, tmp_path):
    waymo.messages()
    log = tmp_path / "log.json"
    python = _interpreter(
        tmp_path / "python",
        _STAND_IN.format(python=sys.executable, log=str(log)),
    )
    predictions, ground_truths = (
        boxes.convert_box_type(boxes.checked(values), box_type)
        for values in waymo.load("vehicle_nlz")[:2]
    )
    found = official.evaluate(python, predictions, ground_truths)
    assert tuple(found) == breakdowns.BREAKDOWNS
    assert found[breakdowns.BREAKDOWNS[5]] == {"ap": 5 / 32, "aph": 5 / 64}
    logged = json.loads(log.read_text())
    assert f"box_type: TYPE_{box_type.upper()}" in logged["config"]
    assert "matcher_type: TYPE_HUNGARIAN" in logged["config"]
    assert logged["config"].count("score_cutoffs: ") == 101
    assert "score_cutoffs: 0.99\n" in logged["config"]
    thresholds = re.findall("iou_thresholds: (.*)", logged["config"])
    assert [float(text) for text in thresholds] == [0.0, 0.7, 0.5, 0.5, 0.5]
    width = {"3d": 7, "2d": 5}[box_type]
    assert logged["arguments"]["prediction_bbox"] == ["float32", [209, width]]
    assert logged["arguments"]["ground_truth_difficulty"] == ["uint8", [155]]
    assert len(logged["arguments"]) == 9


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["No such file", "Python interpreter"]),
        ("#!/bin/sh\necho note >&2\necho Broken: x >&2\nexit 3\n",
         ["the official op failed (Broken: x)", "TensorFlow 2.13 to 2.15"]),
        ("#!/bin/sh\nexit 0\n", ["it said nothing"]),
        ('#!/bin/sh\necho "{}" > "$3"\nexit 1\n', ["it said nothing"]),
        ('#!/bin/sh\necho "{}" > "$3"\n', ["gave no OBJECT_TYPE", "1.6.7"]),
    ],
)  # fmt: skip
def test_failures_are_one_line(text, parts, tmp_path):
    python = str(tmp_path / "python")
    if text is not None:
        _interpreter(tmp_path / "python", text)
    nothing = [
        boxes.select(values, slice(0)) for values in waymo.load("all_types")[:2]
    ]
    with pytest.raises(errors.UserError) as raised:
        official.evaluate(python, *nothing)
    message = str(raised.value)
    assert message.startswith(f"{python}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message
