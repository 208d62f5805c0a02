"""The experiments, each its own report."""
