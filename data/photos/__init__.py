"""A folder of photos and their labels as a prepared data set."""
