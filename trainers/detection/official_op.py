"""Runs the official op on its arguments in a file; see `official`.

    PYTHON official_op.py ARGUMENTS.npz RESULTS.json TYPE_3D

PYTHON is any interpreter with the official package and a TensorFlow that its
compiled op was built for, so nothing else is imported here.
"""

import json
import sys

import numpy as np
from waymo_open_dataset import label_pb2
from waymo_open_dataset.metrics.ops import py_metrics_ops
from waymo_open_dataset.metrics.python import config_util_py
from waymo_open_dataset.protos import breakdown_pb2, metrics_pb2


def make_config(box_type):
    """Makes the configuration of the official command-line tool."""
    config = metrics_pb2.Config(
        matcher_type=metrics_pb2.MatcherProto.TYPE_HUNGARIAN,
        box_type=label_pb2.Label.Box.Type.Value(box_type),
        iou_thresholds=[0.0, 0.7, 0.5, 0.5, 0.5],
        score_cutoffs=[i * 0.01 for i in range(100)] + [1.0],
    )
    for generator in (
        breakdown_pb2.Breakdown.OBJECT_TYPE,
        breakdown_pb2.Breakdown.RANGE,
    ):
        config.breakdown_generator_ids.append(generator)
        config.difficulties.add(
            levels=[label_pb2.Label.LEVEL_1, label_pb2.Label.LEVEL_2]
        )
    return config


def main(arguments_path, results_path, box_type):
    """Reads the arguments and writes AP and APH by name."""
    config = make_config(box_type)
    with np.load(arguments_path) as arguments:
        ap, aph, *_ = py_metrics_ops.detection_metrics(
            config=config.SerializeToString(), **arguments
        )
    names = config_util_py.get_breakdown_names_from_config(config)
    results = {
        name: {"ap": float(ap[row]), "aph": float(aph[row])}
        for row, name in enumerate(names)
    }
    with open(results_path, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
