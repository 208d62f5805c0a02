"""Waymo Open Dataset: lidar frames and labels as training examples."""
