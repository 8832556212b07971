"""What a capture has in place of an object that it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_ebpfnet.model.spelling import near

_SHOWN = 8


def in_capture(what: str, names: Iterable[str], wanted: str) -> str:
    """Return a hint that lists names, those like the wanted one first.

    Args:
        what: kind of the objects, plural.
        names: of the objects in the capture, with their namespaces.
        wanted: the name that is not among them, in the same form.
    """
    known = list(dict.fromkeys(names))
    shown, meant = like(known, wanted), _near(known, wanted)
    if not shown:
        return f"this capture holds no {what}"
    question = f"did you mean {meant[0]}? " if meant else ""
    return f"{question}{what} in this capture: {shown}"


def like(names: Iterable[str], wanted: str) -> str:
    """Return some of the names, those like the wanted one first."""
    known = list(dict.fromkeys(names))
    return ", ".join(list(dict.fromkeys([*_near(known, wanted), *known]))[:_SHOWN])


def _near(names: Sequence[str], wanted: str) -> list[str]:
    """Return the names whose last part starts with that of the wanted one or is near it, those of
    its namespace first."""
    place, _, bare = wanted.rpartition("/")
    there = [name.rpartition("/")[2] for name in names]
    found = [*(name for name in there if bare and name.startswith(bare)), *near(bare, there)]
    order = {each: at for at, each in enumerate(dict.fromkeys(found))}
    near_names = [name for name in names if name.rpartition("/")[2] in order]

    def key(name: str) -> tuple[bool, int]:
        namespace, _, last = name.rpartition("/")
        return namespace != place, order[last]

    return sorted(near_names, key=key)
