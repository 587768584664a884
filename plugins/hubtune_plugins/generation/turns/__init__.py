"""Turns of conversations: their fields in one form, and what a chat template writes of them."""
