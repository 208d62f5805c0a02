"""Networks, with their losses and metrics."""
