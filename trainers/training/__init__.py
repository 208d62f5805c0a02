"""Trains a compiled model to its last step, across interruptions."""
