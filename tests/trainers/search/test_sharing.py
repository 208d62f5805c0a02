import collections
import socket
import threading
import time

import pytest
from keras_tuner.src.distribute import oracle_client

from tests.trainers.search import bowls
from trainers import errors


def test_a_chief_may_come_after_its_workers(bowl, tmp_path):
    (tmp_path / "trials").mkdir()
    assert len(bowls.search(tmp_path).execute()) == 6


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TUNER_ID": "chief"}, "ORACLE_IP, KERASTUNER_ORACLE_PORT: got no"),
        ({"ORACLE_IP": "a", "ORACLE_PORT": "1"}, "TUNER_ID: got nothing"),
        (
            {"TUNER_ID": "a", "ORACLE_IP": "b", "ORACLE_PORT": "http"},
            "got 'http', expected the number",
        ),
    ],
)
def test_half_an_address_is_refused(
    bowl, tmp_path, monkeypatch, variables, message
):
    for name, value in variables.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(errors.UserError, match=message):
        bowls.search(tmp_path / "run").execute()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def address(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    return "127.0.0.1", port


def _wait_until(condition):
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def test_workers_share_the_trials_of_a_chief(
    bowl, tmp_path, monkeypatch, address
):
    results = {}

    def take_part(name):
        results[name] = bowls.search(tmp_path).execute()

    # Each holds its first trial until the other has one too.
    both = threading.Barrier(2, timeout=60.0)
    by_worker = collections.Counter()

    def act(run):
        name = threading.current_thread().name
        by_worker[name] += 1
        if by_worker[name] == 1:
            both.wait()

    bowl.act = act
    threads = []
    for name, is_ready in (
        ("chief", lambda: _listens(address)),
        ("worker0", lambda: by_worker),
        ("worker1", lambda: len(by_worker) == 2),
    ):
        # The environment is the process's: one after the other reads it.
        monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
        thread = threading.Thread(target=take_part, args=[name], name=name)
        thread.start()
        threads.append(thread)
        _wait_until(is_ready)
    for thread in threads:
        thread.join(timeout=60.0)
        assert not thread.is_alive()
    assert results["worker0"] is results["worker1"] is None
    outcomes = results["chief"]
    assert len(outcomes) == 6 == sum(by_worker.values())
    assert set(by_worker) == {"worker0", "worker1"}
    for one in outcomes:
        assert one.result == pytest.approx(bowls.error(one.run), rel=1e-12)
    # One process alone finds what they did.
    for name in "TUNER_ID", "ORACLE_IP", "ORACLE_PORT":
        monkeypatch.delenv(f"KERASTUNER_{name}")
    assert bowls.search(tmp_path).execute() == outcomes


def test_a_worker_without_a_chief_says_so(bowl, tmp_path, monkeypatch, address):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    monkeypatch.setattr(oracle_client, "TIMEOUT", 0.2)
    with pytest.raises(errors.UserError, match="chief of the search") as caught:
        bowls.search(tmp_path).execute()
    assert ":".join(map(str, address)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_chief_whose_port_is_taken_says_so(
    bowl, tmp_path, monkeypatch, address
):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with socket.socket() as taken:
        taken.bind(address)
        taken.listen()
        with pytest.raises(errors.UserError, match="cannot listen") as caught:
            bowls.search(tmp_path).execute()
    assert "\n" not in str(caught.value)
