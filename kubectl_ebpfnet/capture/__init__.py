"""Captures on disk: open a zip, a folder or JSON lines; write records; redact. No network."""
