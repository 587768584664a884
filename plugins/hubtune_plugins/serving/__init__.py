"""The HTTP endpoint of `hubtune serve`."""
