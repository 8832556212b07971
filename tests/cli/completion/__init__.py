"""Completion: what words become, and in the shells that ask."""
