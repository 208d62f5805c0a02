"""Cases over devices, losses and chunks."""

import numpy as np

from trainers.benchmarks import measuring
from trainers.benchmarks.suites import scaling
from trainers.benchmarks.suites.scaling import Case


def test_cases_are_all_of_them():
    found = scaling.cases()
    assert len(set(found)) == len(found) == 3 * 6 * 2
    assert found[:4] == [
        Case(1, 2, None),
        Case(2, 2, None),
        Case(4, 2, None),
        Case(1, 2, 1),
    ]
    assert found[-1] == Case(4, 64, 32)


def test_rows_by_hand():
    times = {
        Case(1, 8, 4): [0.010, 0.020],
        Case(4, 8, 4): [0.020, 0.080],
    }
    rows = scaling.rows(times)
    found = [(row.case, row.against, row.quantity, row.median) for row in rows]
    one, four = (
        f"8 losses, chunks of 4, {n}" for n in ("1 device", "4 devices")
    )
    np.testing.assert_allclose(
        [r.pop() for r in map(list, found)], [15, 50, 0.375]
    )
    assert [f[:3] for f in found] == [
        (one, "", "ms"),
        (four, "", "ms"),
        (four, one, "speed"),
    ]


def test_a_step_trains_on_all_devices(eager, monkeypatch):
    monkeypatch.setattr(scaling, "IMAGE_SHAPE", (8, 8, 3))
    monkeypatch.setattr(scaling, "CHANNELS", (1,))
    monkeypatch.setattr(scaling, "BATCH_SIZE", 4)
    models = []
    training_step = measuring.training_step

    def noted(model, x, y):
        models.append(model)
        return training_step(model, x, y)

    monkeypatch.setattr(measuring, "training_step", noted)
    steps = [
        scaling.make_step(case) for case in (Case(1, 3, None), Case(2, 4, 2))
    ]
    assert [m.distribute_strategy.num_replicas_in_sync for m in models] == [
        1,
        2,
    ]
    steps[1]()
    assert models[1].optimizer.iterations.numpy() == 1
