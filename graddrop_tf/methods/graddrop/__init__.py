"""Gradient Sign Dropout: mathematics, arguments, layer."""
