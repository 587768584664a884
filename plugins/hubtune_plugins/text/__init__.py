"""Tasks over text: a family of hubtune plugins, one module per task."""
