from trainers.experiments import registry
from trainers.reporting import tables

_DIGITS = registry.EXPERIMENTS["digits"]


def _samples(**values):
    """Returns samples of the error by method; the keys are the seeds."""
    return {
        method: {_DIGITS.compared: {(seed, 0): x for seed, x in one.items()}}
        for method, one in values.items()
    }


def test_a_method_without_a_common_sample_gets_no_difference():
    table = tables.differences(
        _DIGITS,
        _samples(baseline={0: 5.0, 1: 6.0}, pcgrad={2: 1.0}, mgda={1: 4.0}),
    )
    assert table.rows == [
        ["pcgrad", "", "", "0", "no sample in common"],
        ["mgda", "-2.00", "", "1", "one sample: cannot be told from noise"],
    ]


def test_few_samples_are_pointed_out():
    few, many = (
        _samples(
            baseline=dict.fromkeys(range(number), 1.0),
            graddrop=dict.fromkeys(range(number), 1.0),
        )
        for number in (9, 10)
    )
    assert "With 9 seeds the interval is wide" in tables.caution(_DIGITS, few)
    assert "the interval is wide" not in tables.caution(_DIGITS, many)
