"""Experiments and the loop that trains them."""
