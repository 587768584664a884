"""Distributions to begin a plugin with, and their templates."""
