"""Shared by tasks that learn to write text, whatever they read."""
