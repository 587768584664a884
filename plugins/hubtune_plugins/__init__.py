"""The first-party plugins: tasks and strategies, one module each."""
