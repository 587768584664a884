"""What tasks that read or write text share: texts as token ids, and token ids as padded tensors."""
