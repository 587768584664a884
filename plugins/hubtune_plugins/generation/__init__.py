"""Tasks that write text: instruction tuning, preference tuning, translation and summarisation."""
