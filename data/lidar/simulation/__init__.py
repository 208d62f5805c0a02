"""Simulated drives, written as v1 of the Waymo Open Dataset."""
