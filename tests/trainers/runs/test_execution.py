import dataclasses
import json

import numpy as np
import pytest

import graddrop_tf as gd
from tests.trainers import small_runs
from trainers import errors
from trainers.experiments import registry
from trainers.runs import directory as run_directory
from trainers.runs import execution, experiment


def test_a_run_leaves_config_and_results(tmp_path):
    run = small_runs.small_run(
        "toy", tmp_path / "run", method="graddrop", seed=3
    )
    record = small_runs.finish(run)
    assert record.status == "finished"
    config = json.loads((run.directory / "config.json").read_text())
    assert config == {
        "experiment": "toy",
        "method": "graddrop",
        "seed": 3,
        "config": dataclasses.asdict(run.config),
    }
    results = json.loads((run.directory / "results.json").read_text())
    assert {**config, **results} == results
    assert results["jit_compile"] is False
    assert results["num_replicas"] == 1
    assert results["wall_seconds"] > 0.0
    assert {"tensorflow", "keras", "graddrop_tf"} <= results["versions"].keys()
    assert {"git_commit", "device", "resumed"} <= results.keys()


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("toy", "pcd(primary='loss_2')"),
        ("digits", "pcd(primary='upper_left')"),
        ("digits", "graddrop(leak={'upper_left': 1.0})"),
    ],
)
def test_a_method_may_name_losses(name, method, tmp_path):
    run = small_runs.small_run(name, tmp_path / "run", method=method)
    assert small_runs.finish(run).status == "finished"


def test_a_loss_that_there_is_not_is_refused(tmp_path):
    run = small_runs.small_run(
        "digits", tmp_path / "run", method="pcd(primary='left')"
    )
    with pytest.raises(errors.UserError, match="losses upper_left, lower_righ"):
        execution.check(run)


def test_an_ended_run_is_left_alone(tmp_path):
    run = small_runs.small_run("toy", tmp_path / "run")
    first = small_runs.finish(run)
    written = {p: p.stat().st_mtime_ns for p in run.directory.iterdir()}
    assert small_runs.finish(run) == first
    assert {p: p.stat().st_mtime_ns for p in run.directory.iterdir()} == written


def test_the_seed_decides_all_numbers(tmp_path):
    metrics = [
        small_runs.finish(
            small_runs.small_run(
                "toy", tmp_path / str(index), method="graddrop", seed=seed
            )
        ).results["metrics"]
        for index, seed in enumerate((5, 5, 6))
    ]
    assert metrics[0] == metrics[1] != metrics[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: 0 / 1"),
        (
            {"recipe": gd.Recipe.parse("graddrop")},
            "method: baseline / graddrop",
        ),
        (
            {"config": small_runs.small_config("toy", learning_rate=np.inf)},
            "config.learning_rate: 0.2 / inf",
        ),
    ],
)
def test_another_run_in_the_directory_is_refused(tmp_path, changes, message):
    run = small_runs.small_run("toy", tmp_path / "run")
    small_runs.finish(run)
    other = dataclasses.replace(run, **changes)
    with pytest.raises(errors.UserError) as caught:
        small_runs.finish(other)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_older_than_a_field_goes_on_with_its_default(tmp_path):
    run = small_runs.small_run("toy", tmp_path / "run")
    record = small_runs.finish(run)
    path = run.directory / "config.json"
    identity = json.loads(path.read_text())
    del identity["config"]["start_range"]
    path.write_text(json.dumps(identity))
    assert small_runs.finish(run).results == record.results
    other = small_runs.small_config("toy", start_range=1.0)
    with pytest.raises(errors.UserError, match="start_range: 10.0 / 1.0"):
        small_runs.finish(dataclasses.replace(run, config=other))


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(errors.UserError, match="holds other files"):
        small_runs.finish(small_runs.small_run("toy", tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"seed": 0}',
        '{"experiment": "toy", "method": "baseline", "seed": 0, "config": 1}',
    ],
)
def test_a_damaged_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(errors.UserError, match="config"):
        small_runs.finish(small_runs.small_run("toy", tmp_path))


def test_a_diverged_run_is_marked_failed_and_stays_so(tmp_path):
    run = small_runs.small_run("toy", tmp_path / "run", learning_rate=np.inf)
    record = small_runs.finish(run)
    assert record.status == "failed"
    assert (
        "step 10: 4 of the 4 weights are not finite"
        in run_directory.describe(record)
    )
    assert small_runs.finish(run) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "graddrap"}, "Known names"),
        ({"method": "graddrop(leak=[1, 0])"}, "toy with"),
        ({"method": "penalty(0.1)"}, "leave the penalty out"),
        ({"strategy": "mirrored", "logical_cpus": 2}, "--strategy"),
        ({"data_dir": "somewhere"}, "--data_dir"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path, changes, message
):
    with pytest.raises(errors.UserError, match=message):
        small_runs.finish(
            small_runs.small_run("toy", tmp_path / "run", **changes)
        )
    assert not (tmp_path / "run").exists()


def test_an_unknown_experiment_lists_the_known():
    with pytest.raises(errors.UserError, match="expected one of .*digits, toy"):
        experiment.find(registry.EXPERIMENTS, "tony")


def test_metrics_are_numbers_json_can_hold(tmp_path):
    record = small_runs.finish(small_runs.small_run("toy", tmp_path / "run"))
    assert all(np.isfinite(v) for v in record.results["metrics"].values())
