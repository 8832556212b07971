"""What a capture has in place of an object that it lacks."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 8


def in_capture(what: str, names: Iterable[str], wanted: str) -> str:
    """Return a hint that lists names, those like the wanted one first.

    Args:
        what: kind of the objects, plural.
        names: of the objects in the capture, with their namespaces.
        wanted: the name that is not among them, in the same form.
    """
    shown = like(names, wanted)
    return f"{what} in this capture: {shown}" if shown else f"this capture holds no {what}"


def like(names: Iterable[str], wanted: str) -> str:
    """Return some of the names, those like the wanted one first."""
    import difflib  # for this alone

    known = list(dict.fromkeys(names))
    near = difflib.get_close_matches(wanted, known)
    return ", ".join(list(dict.fromkeys([*near, *known]))[:_SHOWN])
