import numpy as np

from trainers.reporting import curves
from trainers.runs import experiment


def _records(method, errors):
    return [
        experiment.Record(
            None,
            {"method": method, "seed": seed},
            {"status": "finished", "metrics": {"error": error}},
        )
        for seed, error in errors.items()
    ]


def _find(argument, runs):
    records = {method: _records(method, e) for method, e in runs.items()}
    return curves.find_sweeps(records, argument, "error")


def test_methods_that_differ_in_one_argument_make_a_curve():
    found = _find(
        "k",
        {
            "graddrop(leak=0.5, k=2)": {0: 5.0, 1: 6.0},
            "baseline": {0: 1.0, 1: 1.0},
            "graddrop(leak=0.5)": {1: 4.0, 0: 3.0},
            "graddrop(leak=0.25)": {0: 9.0, 1: 9.0},
            "graddrop(leak=0.5, k=0)": {2: 9.0, 0: 1.0, 1: 2.0},
        },
    )
    ((common, (values, errors)),) = found.items()
    assert common == "graddrop(leak=0.5)"
    # Without k it is 1; seed 2 has no partners.
    np.testing.assert_array_equal(values, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(errors, [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])


def test_of_a_list_the_first_counts_and_names_are_left_out():
    found = _find(
        "leak",
        {
            "gradnorm+graddrop(leak=[1, 0], k=0.25)": {0: 1.0},
            "gradnorm+graddrop(leak=[0.5, 0.5], k=0.25)": {0: 2.0},
            "gradnorm+graddrop(leak={'source': 1}, k=0.25)": {0: 3.0},
            "graddrop(leak=[0.5, 0.5], k=0.25)": {0: 4.0},
            "graddrop(leak=0.1, k=0.25)": {0: 5.0},
        },
    )
    assert {k: v[0].tolist() for k, v in found.items()} == {
        "gradnorm+graddrop(k=0.25)": [0.5, 1.0],
        "graddrop(k=0.25)": [0.1, 0.5],
    }
    assert found["graddrop(k=0.25)"][1].tolist() == [[5.0, 4.0]]


def test_nothing_to_compare():
    assert _find("k", {"graddrop(k=0)": {0: 1.0}, "mgda": {0: 1.0}}) == {}
    apart = {"graddrop(k=0)": {0: 1.0}, "graddrop(k=1)": {1: 1.0}}
    assert _find("k", apart) == {}
