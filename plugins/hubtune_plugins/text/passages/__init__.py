"""Passages of a query: how rows give them, losses over their scores, and negatives that an embedding model finds."""
