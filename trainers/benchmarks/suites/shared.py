"""Compares methods on CelebA's network, whose 40 losses share the heads."""

from trainers.benchmarks import measuring, methods
from trainers.benchmarks.methods import (
    BARE,
    BASELINE,
    CHUNKED,
    GRADDROP,
    METHODS,
)


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    network = methods.make()
    steps = {}
    for index, method in enumerate(METHODS):
        progress.say(f"building {method.name} ({index + 1}/{len(METHODS)})")
        steps[method.name] = methods.make_step(method, *network)
        steps[method.name]()
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))
    counts = {
        method.name: methods.multiply_adds(method, *network)
        for method in METHODS
    }

    def row(method, against, **notes) -> measuring.Row:
        allowed = counts[against.name] / counts[method.name]
        return measuring.speed_row(
            times, method.name, against.name, allowed=allowed, **notes
        )

    return [
        *(
            row(method, BASELINE, target=method.target, paper=method.paper)
            for method in METHODS[1:]
        ),
        row(GRADDROP, BARE, target=0.93),
        row(CHUNKED, GRADDROP, target=0.5),
    ]


SUITE = measuring.Suite(
    f"step speed; CelebA network, {methods.NUM_LOSSES} losses with "
    f"shared heads, {methods.IMAGE_SIZE} x {methods.IMAGE_SIZE}, "
    f"batch {methods.BATCH_SIZE}",
    _measure,
)
