"""One weight, five losses."""
