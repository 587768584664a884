"""Exporters: formats in which a tuned model runs elsewhere."""
