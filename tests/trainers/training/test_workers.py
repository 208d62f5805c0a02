import json

import pytest

from trainers import errors
from trainers.training import workers

_SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_JOB_ID": "1001",
    "SLURM_STEP_NODELIST": "node[2,10]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


_WITH_CHIEF = {"chief": ["c:1"], "worker": ["a:1"]}


def _config(cluster, kind, index):
    return json.dumps(
        {"cluster": cluster, "task": {"type": kind, "index": index}}
    )


def test_a_process_alone_reads_and_writes_all(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "not looked at")
    for name in "auto", "one", "mirrored":
        worker = workers.find(name)
        assert (worker.index, worker.count, worker.is_chief) == (0, 1, True)
        assert (worker.shard.index, worker.shard.count) == (0, 1)


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, "worker", 1, (1, ("a:1", "b:1"))),
        (_WITH_CHIEF, "chief", 0, (0, ("c:1", "a:1"))),
        (_WITH_CHIEF, "worker", 0, (1, ("c:1", "a:1"))),
        ({"worker": ["a:1", "b:1"]}, "worker", "0", (0, ("a:1", "b:1"))),
    ],
)
def test_tf_config(cluster, kind, index, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", _config(cluster, kind, index))
    worker = workers.find("multi_worker")
    assert (worker.index, worker.addresses) == expected
    assert worker.is_chief == (expected[0] == 0)
    assert (worker.shard.index, worker.shard.count) == (expected[0], 2)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        _config({"worker": ["a:1"]}, "worker", 1),
        _config({"worker": ["a:1"]}, "worker", -1),
        _config({"worker": ["a:1"]}, "evaluator", 0),
        _config({"worker": ["a:1"]}, "chief", 0),
        _config(["a:1"], "worker", 0),
    ],
)
def test_a_tf_config_that_is_none(text):
    with pytest.raises(errors.UserError, match="TF_CONFIG: got"):
        workers.from_tf_config(text)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node7", ["node7"]),
        ("a,b", ["a", "b"]),
        ("n[08-10,12]", ["n08", "n09", "n10", "n12"]),
        ("x[1-2]-ib,y,z[3]", ["x1-ib", "x2-ib", "y", "z3"]),
    ],
)
def test_hosts(text, hosts):
    assert workers.expand_hosts(text) == hosts


def test_slurm(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in _SLURM.items():
        monkeypatch.setenv(name, value)
    worker = workers.find("multi_worker")
    assert worker.index == 2
    hosts, ports = zip(*(a.split(":") for a in worker.addresses), strict=True)
    # Tasks are numbered in the order of the list, not of the names.
    assert hosts == ("node2", "node2", "node10", "node10")
    assert int(ports[1]) == int(ports[0]) + 1
    assert ports[:2] == ports[2:]
    other = workers.from_slurm({**_SLURM, "SLURM_JOB_ID": "1002"})
    assert not set(other.addresses) & set(worker.addresses)
    assert all(1024 < int(port) < 65536 for port in ports)


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_PROCID": "4"},
        {"SLURM_PROCID": "x"},
        {"SLURM_STEP_TASKS_PER_NODE": "2(x3)"},
        {"SLURM_STEP_TASKS_PER_NODE": "two"},
    ],
)
def test_slurm_variables_that_do_not_fit(changes):
    with pytest.raises(errors.UserError, match="Slurm's variables"):
        workers.from_slurm({**_SLURM, **changes})
