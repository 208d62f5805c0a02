"""Defines runs and executes them."""
