import keras
import pytest

import graddrop_tf as gd
from trainers.training import schedules


def test_a_recipe_gets_the_product_of_its_methods_factors():
    factors = schedules.parse_factors("rates", " mgda=0.01, gradnorm = 5,")
    assert factors == {"mgda": 0.01, "gradnorm": 5.0}
    recipe = gd.Recipe.parse("gradnorm+mgda+graddrop+clip(1.0)")
    assert schedules.factor_for(factors, recipe) == pytest.approx(0.05)
    assert schedules.factor_for(factors, gd.Recipe()) == 1.0
    assert schedules.parse_factors("rates", "") == {}


@pytest.mark.parametrize(
    "text", ["sgd=1", "mgda", "mgda=x", "mgda=0", "mgda=inf", "mgda=nan"]
)
def test_bad_factors(text):
    with pytest.raises(ValueError, match=f"rates: got '{text}', expected"):
        schedules.parse_factors("rates", text)


def test_a_delayed_schedule_keeps_its_first_value_until_it_starts():
    halving = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    delayed = schedules.Delayed(halving, 10)
    rebuilt = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(delayed)
    )
    for schedule in delayed, rebuilt:
        values = [float(schedule(step)) for step in (0, 9, 10, 11, 13)]
        assert values == [1.0, 1.0, 1.0, 0.5, 0.125]
