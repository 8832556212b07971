"""What the demos of `--from` are made of, and how."""
