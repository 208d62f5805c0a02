"""Waymo segments as a data set of TensorFlow Datasets."""
