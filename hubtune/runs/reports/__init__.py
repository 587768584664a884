"""Reports of the data, before a training."""
