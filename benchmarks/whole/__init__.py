"""Whole commands on all cores: `hubtune train` beside the script that a user of the peer library writes."""
