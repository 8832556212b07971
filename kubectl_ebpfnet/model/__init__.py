"""The nouns that every room speaks in: frozen, slotted dataclasses. Standard library only."""
