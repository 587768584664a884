"""Shared by tasks that read or write text: texts as token ids, and token ids as padded tensors."""
