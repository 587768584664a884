"""Checks of the data before training: what is found in the rows, and what `data.clean` mends."""
