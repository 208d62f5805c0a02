import dataclasses

import pytest

from trainers import config, errors


@dataclasses.dataclass(frozen=True)
class _Config(config.FitConfig):
    rate: float = 0.5
    name: str = "plain"
    share: float = config.fraction(0.0)
    batch_size: int = 8


def test_texts_become_values_of_the_fields_type():
    changed = config.override(
        _Config(),
        {"rate": "1e-3", "steps": "200", "jit_compile": "True", "name": "x"},
    )
    assert changed == _Config(steps=200, jit_compile=True, rate=1e-3, name="x")


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("stepz", "1", "unknown field; expected one of batch_size, "),
        ("steps", "many", "got 'many', expected int, such as 1000"),
        ("jit_compile", "maybe", "got 'maybe', expected bool"),
        ("steps", "150", "got 150, expected a multiple of steps_per_epoch"),
        ("batch_size", "0", "got 0, expected more than 0"),
        ("steps", "-100", "got -100, expected more than 0"),
        ("checkpoint_minutes", "-1", "got -1.0, expected 0 or more"),
        ("checkpoint_minutes", "nan", "got nan, expected 0 or more"),
        ("share", "1.0", "got 1.0, expected from 0 to below 1"),
        ("mixed_precision", "half", "got 'half', expected one of none, "),
    ],
)
def test_bad_values_are_refused(field, text, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        config.override(_Config(), {field: text})
    assert str(caught.value).startswith(f"--config.{field}")


def test_differences_name_nested_entries():
    left = {"seed": 0, "config": {"steps": 1, "rate": 2}}
    right = {"seed": 0, "config": {"steps": 3, "rate": 2}, "new": True}
    assert config.difference(left, right) == [
        "config.steps: 1 / 3",
        "new: None / True",
    ]
    assert config.difference(left, left) == []
