"""Redaction: the same replacement for the same name or address, in every record."""
