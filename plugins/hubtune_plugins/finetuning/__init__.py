"""Strategies that need no package beyond hubtune's own: full fine-tuning and the linear probe."""
