"""Measures how the losses' gradients agree while a model trains."""
