"""The report of doctor as text."""
