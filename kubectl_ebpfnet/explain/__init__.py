"""Opinions: pure functions from a bundle to an answer. No I/O, no clock, no network."""
