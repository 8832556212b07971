"""Walks a packet through the facts of a bundle. Pure: a bundle in, an answer out, no I/O."""
