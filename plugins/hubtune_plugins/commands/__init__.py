"""Subcommands of hubtune that need no more than its public names."""
