"""Pieces of text that every format shares: colour, escaping, wrapping, durations, evidence."""
