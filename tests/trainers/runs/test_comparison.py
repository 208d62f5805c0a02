import math

import pytest

import graddrop_tf as gd
from tests.trainers import small_runs
from trainers import errors, files
from trainers.experiments import registry
from trainers.runs import comparison


def test_methods_are_split_outside_brackets():
    assert comparison.split_methods("graddrop(leak=[1, 0]), mgda") == [
        "graddrop(leak=[1, 0])",
        "mgda",
    ]
    with pytest.raises(errors.UserError, match="--methods: got 'a,,b', exp"):
        comparison.split_methods("a,,b")


def test_seeds():
    assert comparison.split_seeds("0, 12,3") == [0, 12, 3]
    for text in ("", "1,", "-1", "a", "1.5"):
        with pytest.raises(errors.UserError, match="--seeds: got"):
            comparison.split_seeds(text)


def test_slugs_are_plain_and_never_shared():
    texts = [
        "gradnorm+graddrop",
        "graddrop(leak=[1, 0])",
        "graddrop(leak=[10])",
        "graddrop(leak=[1], k=0)",
    ]
    slugs = [comparison.slug(text) for text in texts]
    assert slugs[0] == texts[0]
    assert len(set(slugs)) == len(slugs)
    assert not set("".join(slugs)) & set("()[]/ ,=")


def _comparison(
    directory, methods=("baseline", "graddrop"), seeds=(0, 1), **values
):
    return comparison.Comparison(
        registry.EXPERIMENTS["toy"],
        [gd.Recipe.parse(method) for method in methods],
        list(seeds),
        small_runs.small_config("toy", **values),
        directory,
    )


def test_a_comparison_does_what_is_not_done_yet(tmp_path, capsys):
    assert _comparison(tmp_path, seeds=[0]).execute() == 0
    capsys.readouterr()
    assert _comparison(tmp_path).execute() == 0
    # A slow run prints its progress in between, indented.
    lines = [
        line
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith(" ")
    ]
    assert [line[:5] for line in lines] == ["[1/4]", "[2/4]"] + [
        f"[{i}/4]" for i in (3, 3, 4, 4)
    ]
    assert all("already ended" in line for line in lines[:2])
    assert not any("already ended" in line for line in lines[2:])
    found = sorted(tmp_path.glob("toy/*/seed*/results.json"))
    assert len(found) == 4


def test_a_failed_run_does_not_stop_the_others(tmp_path, capsys):
    assert _comparison(tmp_path, learning_rate=math.inf).execute() == 4
    assert capsys.readouterr().out.count("failed at step 10") == 4


def test_one_impossible_run_stops_the_comparison_at_its_start(tmp_path):
    with pytest.raises(errors.UserError, match="penalty"):
        _comparison(tmp_path, methods=["baseline", "penalty(1.0)"]).execute()
    assert not list(tmp_path.iterdir())


def test_what_comes_twice_is_refused(tmp_path):
    for changes in {"methods": ["mgda", "mgda"]}, {"seeds": [1, 1]}:
        with pytest.raises(errors.UserError, match="more than once"):
            _comparison(tmp_path, **changes).execute()


def test_the_plan_grows(tmp_path):
    _comparison(tmp_path, methods=["baseline"], seeds=[0]).execute()
    _comparison(tmp_path, methods=["baseline"]).execute()
    plan = files.read_json(tmp_path / "toy" / comparison.PLAN)
    assert plan["runs"] == ["baseline/seed0", "baseline/seed1"]
