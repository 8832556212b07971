"""What a node's kernel does not show `trace`: the same words before a trace and after it."""

from __future__ import annotations

from collections.abc import Iterable


def not_seen(names: Iterable[str]) -> str:
    """Return the words for programs of trace that a node does not take, each name once."""
    return f"does not see {', '.join(sorted(set(names)))} (-o json says why)"
