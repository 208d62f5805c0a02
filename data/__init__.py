"""Input pipelines on tf.data."""
