"""One training step: losses in, one gradient out."""
