"""KITTI frames as a prepared data set."""
