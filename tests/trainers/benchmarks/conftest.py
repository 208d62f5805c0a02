"""What tests of several suites need."""

import pytest
import tensorflow as tf


@pytest.fixture
def eager():
    """Spares the tests the tracing."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
