"""Measures how the gradients of the losses interact during training."""
