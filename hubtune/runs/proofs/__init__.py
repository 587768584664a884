"""Commands that prove a run or a published model again: verify it, reproduce it."""
