"""Checkpoints of models with methods, also of the code before."""

import keras
import numpy as np
import pytest

from tests.graddrop_tf.models import HEADS
from trainers import errors
from trainers.training import checkpoints

RECIPE = "gradnorm+graddrop"


def trained(directory, recipe=RECIPE, steps=3):
    keras.backend.clear_session()
    model = HEADS.compiled(recipe)
    if steps:
        HEADS.train(model, steps=steps)
    return model, checkpoints.Checkpoints(directory, model)


def rewrite(path, change):
    """Changes the names and arrays of a file."""
    with np.load(path) as archive:
        names = archive["paths"].tolist()
        arrays = {n: archive[f"{i:05d}"] for i, n in enumerate(names)}
        step = archive["step"]
    arrays = change(arrays)
    np.savez(
        path,
        step=step,
        paths=list(arrays),
        num_metrics=0,
        **{f"{i:05d}": array for i, array in enumerate(arrays.values())},
    )


def values(model):
    return {v.path: v.numpy() for v in model.variables}


def test_state_of_methods_is_restored(tmp_path):
    model, store = trained(tmp_path)
    store.save(3)
    other, store = trained(tmp_path, steps=0)
    assert store.restore() == 3
    assert values(other).keys() == values(model).keys()
    for path, value in values(model).items():
        np.testing.assert_array_equal(values(other)[path], value)


def test_a_file_of_the_code_before_is_restored(tmp_path):
    """It has another order, no seeds, and a variable more."""
    model, store = trained(tmp_path)
    path = store.save(3)

    def older(arrays):
        kept = {n: a for n, a in arrays.items() if "/seed" not in n}
        assert len(kept) == len(arrays) - 1
        return {
            "grad_norm_1/older()": np.float32(1),
            **dict([*kept.items()][::-1]),
        }

    rewrite(path, older)
    other, store = trained(tmp_path, steps=0)
    seed = values(other)["grad_drop_1/seed"]
    assert store.restore() == 3
    assert seed == values(other)["grad_drop_1/seed"]
    for name, value in values(model).items():
        if name != "grad_drop_1/seed":
            np.testing.assert_array_equal(values(other)[name], value)
    assert values(other)["chain/step"] == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {**arrays, "dense_9/kernel(2, 2)": np.ones([2, 2])},
        lambda arrays: dict([*arrays.items()][1:]),
        lambda arrays: {f"x{name}": a for name, a in arrays.items()},
    ],
)
def test_another_model_is_refused(change, tmp_path):
    model, store = trained(tmp_path)
    path = store.save(3)
    assert "trunk_dense/kernel" in next(iter(values(model)))
    rewrite(path, change)
    _, store = trained(tmp_path, steps=0)
    with pytest.raises(errors.UserError, match="another model"):
        store.restore()
