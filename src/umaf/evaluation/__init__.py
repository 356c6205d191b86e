"""Tasks and metrics in, records out."""
