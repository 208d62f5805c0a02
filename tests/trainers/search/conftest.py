import pytest

from tests.trainers.search import bowls
from trainers.experiments import registry


@pytest.fixture
def bowl(monkeypatch):
    # It takes longer than all the rest, and nothing is trained here.
    monkeypatch.setattr("keras.backend.clear_session", lambda: None)
    made = bowls.Bowl()
    monkeypatch.setitem(registry.EXPERIMENTS, "bowl", made)
    return made
