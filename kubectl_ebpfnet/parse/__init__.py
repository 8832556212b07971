"""Bytes of one producer → facts of the model. No I/O; ParseError is the only error."""
