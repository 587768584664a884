"""Optional faster ways to compute a step, each held to the plain way by a test."""
