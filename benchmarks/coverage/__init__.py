"""Which architectures hubtune trains for which task: `python -m benchmarks.coverage`."""
