"""What hubtune costs beside the scripts that people copy and transformers' Trainer: `make bench`, or `python -m benchmarks`."""
