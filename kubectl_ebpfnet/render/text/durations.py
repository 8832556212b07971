"""Time spans in few characters."""

from __future__ import annotations


def age(seconds: float) -> str:
    """Return a span as kubectl does: `45s`, `5m`, `3h`, `12d` (k8s.io/apimachinery duration)."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 3600 * 2:
        return f"{whole // 60}m"
    if whole < 86400 * 2:
        return f"{whole // 3600}h"
    return f"{whole // 86400}d"
