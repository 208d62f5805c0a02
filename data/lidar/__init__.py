"""Lidar frames and their labels, as examples for a detector."""
