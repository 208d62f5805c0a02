"""Rows of combiners and of their solvers."""

import numpy as np
import pytest

import graddrop_tf as gd
from trainers.benchmarks import measuring
from trainers.benchmarks.suites import combiners


class Remembers(gd.RandomCombiner):
    """Adds up the gradients of the first loss."""

    def initial_state(self, num_losses):
        return {"total": np.zeros(combiners.SHAPE, np.float32)}

    def combine(self, gradients, activations):
        total = self.state["total"] + gradients[0]
        self.keep(total=total)
        draw = self.uniform([])
        return [total, *(0.0 * draw * g for g in gradients[1:])]


class Halve(gd.GramianCombiner):
    """Halves every gradient."""

    def weigh(self, gram):
        return [0.5] * gram.shape[0]


@pytest.fixture
def small(eager, monkeypatch):
    """Has a few small gradients, in steps that are taken once."""
    monkeypatch.setattr(combiners, "SHAPE", (2, 3))
    monkeypatch.setattr(combiners, "NUM_LOSSES", 3)
    monkeypatch.setattr(combiners, "SOLVER_LOSSES", (2, 3))
    taken = []

    def take_turns(steps, rounds, progress):
        taken.append({name: step() for name, step in steps.items()})
        # A reference is the first case.
        return {
            name: [0.01 * (1 + index), 0.03 * (1 + index)]
            for index, name in enumerate(steps)
        }

    monkeypatch.setattr(measuring, "take_turns", take_turns)
    return taken


def measure():
    return combiners.SUITE.measure(2, measuring.Progress("combiners"))


def test_every_combiner_has_a_row(small):
    rows = measure()
    found = {(row.case, row.against) for row in rows}
    assert len(found) == len(rows)
    for name, method in gd.METHODS.items():
        is_combiner = issubclass(method, gd.Combiner)
        assert ((name, "sum") in found) == is_combiner, name
        is_gramian = issubclass(method, gd.GramianCombiner)
        for count in (2, 3):
            row = (
                f"solver of {name}, {count} losses",
                f"Gram matrix, {count} losses",
            )
            assert (row in found) == is_gramian, row
    combined, *solved = small
    assert {value.shape for value in combined.values()} == {(2, 3), (3, 3)}
    for count, values in zip((2, 3), solved):
        shapes = {value.shape for value in values.values()}
        assert shapes == {(count,), (count, count)}
    for value in [v for values in small for v in values.values()]:
        assert np.isfinite(value).all()


def test_rows_of_new_methods(small, monkeypatch):
    methods = {"remembers": Remembers, "halve": Halve, "gradnorm": gd.GradNorm}
    monkeypatch.setattr(gd, "METHODS", methods)
    found = [
        (row.case, row.against, row.quantity, row.median, row.verdict)
        for row in measure()
    ]
    two, three = "Gram matrix, 2 losses", "Gram matrix, 3 losses"
    np.testing.assert_allclose(
        [row[3] for row in found], [20, 2, 3, 4, 20, 2, 20, 2]
    )
    assert [(*row[:3], row[4]) for row in found] == [
        ("sum", "", "ms", ""),
        (three, "sum", "time", ""),
        ("remembers", "sum", "time", ""),
        ("halve", "sum", "time", ""),
        (two, "", "ms", ""),
        ("solver of halve, 2 losses", two, "time", ""),
        (three, "", "ms", ""),
        # Twice the time of the Gram matrix.
        ("solver of halve, 3 losses", three, "time", "missed"),
    ]
    gradients = np.stack(combiners.random_gradients(3))
    combined = small[0]
    flat = gradients.reshape([3, -1])
    for name, want in {
        "sum": gradients.sum(axis=0),
        three: flat @ flat.T,
        "remembers": gradients[0],
        "halve": 0.5 * gradients.sum(axis=0),
    }.items():
        np.testing.assert_allclose(combined[name], want, rtol=1e-5, atol=1e-6)


def test_a_step_runs_as_a_graph(monkeypatch):
    monkeypatch.setattr(combiners, "SHAPE", (2, 3))
    gradients = combiners.random_gradients(3)
    step = combiners.combining_step(Remembers, gradients)
    for times in (1, 2):
        np.testing.assert_allclose(
            step(), times * gradients[0].numpy(), rtol=1e-6
        )
    gram = combiners.gram_step(gradients)()
    weights = combiners.solving_step(gd.PCGrad, gram)()
    assert weights.shape == (3, 3)
