"""What strategies share that go by a model's blocks: where these are, and letting parts of a model learn."""
