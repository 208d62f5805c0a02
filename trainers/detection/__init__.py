"""The Waymo Open Dataset's detection metric; needs no TensorFlow."""
