"""Shared by tasks that predict labels, whatever they read."""
