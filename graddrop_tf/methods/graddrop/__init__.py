"""Gradient Sign Dropout: the function, its arguments, the layers."""
