"""Strategies from the library PEFT: a family of hubtune plugins, one module per method."""
