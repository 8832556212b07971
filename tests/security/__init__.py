"""docs/security.md: its tests exist; and attacks that are of no room alone."""
