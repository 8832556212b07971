"""The tables of flows, programs and leftovers."""
