"""What a machine with one NVIDIA GPU is asked: does everything work on it, and how fast is it beside its peers."""
