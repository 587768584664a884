"""Searches over settings, strategies and models within a budget, scored on validation rows alone."""
