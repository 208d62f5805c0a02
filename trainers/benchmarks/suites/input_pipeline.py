"""Compares the CelebA pipeline with the training step that it feeds."""

import tempfile

import numpy as np

from data import attribute_sets, streams
from data.drawn_faces import builder as drawn_faces
from trainers.benchmarks import measuring, methods
from trainers.models import attribute_network

NUM_IMAGES = 256
SHAPE = attribute_sets.Shape(218, 178)


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    batch_size = methods.BATCH_SIZE
    with tempfile.TemporaryDirectory() as folder:
        progress.say(f"drawing {NUM_IMAGES} faces")
        drawn_faces.prepare(
            folder, drawn_faces.Contents(NUM_IMAGES, validation=1, test=1)
        )
        faces = attribute_sets.AttributeSet(
            "drawn_faces", ["attributes"], folder
        )

        batches = faces.training_batches(
            "train", SHAPE, streams.Reading(batch_size, seed=0)
        ).take(NUM_IMAGES // batch_size)

        def read() -> None:
            # Restarted each time, so that nothing was prefetched before.
            for _ in batches:
                pass

        progress.say("building the model")
        network = attribute_network.make_network(
            (SHAPE.height, SHAPE.width, faces.channels), len(faces.names)
        )
        step = methods.make_step(methods.BASELINE, *network)
        steps = {"reading": read, "training": step}
        times = measuring.take_turns(
            steps, rounds, progress=progress.start(rounds)
        )
    # Seconds per image: one step reads all of them, or trains on a batch.
    each = {
        "reading": np.divide(times["reading"], NUM_IMAGES),
        "training": np.divide(times["training"], batch_size),
    }
    return [
        *(measuring.rate_row(each, case, 1, "images") for case in each),
        measuring.speed_row(each, "reading", "training", target=3.0),
    ]


SUITE = measuring.Suite(
    "images per second through the CelebA pipeline alone, and through the "
    f"baseline's training; {SHAPE.height} x {SHAPE.width}, batch "
    f"{methods.BATCH_SIZE}",
    _measure,
)
