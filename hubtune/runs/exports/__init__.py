"""Models in other formats: traced, proven in a clean process, and published beside the weights."""
