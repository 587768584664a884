"""What is reported about the data before a training."""
