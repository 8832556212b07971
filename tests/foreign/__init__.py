"""The client as macOS and Windows see it, which cannot be run here."""
