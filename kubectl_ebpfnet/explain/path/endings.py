"""How a walk ends: the tables let the packet through, a stage drops it, or a fact is missing.

What was undecided on the way stands beside the end; verdict.py weighs both.
"""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Decides, Direction, Drop, Finding, Fix


class Destination(StrEnum):
    """Where a walk that the tables let through ends."""

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Arrived:
    """The tables let the packet through: to what, and as which packet (one line)."""

    destination: Destination
    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The walk cannot go on: a fact that decides is missing.

    Attributes:
        reason: which fact is missing, and why.
        fix: how to get it, None when nothing is known to help.
        besides: what can be said all the same, one sentence.
    """

    reason: str
    fix: Fix | None = None
    besides: str = ""


@dataclass(frozen=True, slots=True)
class Undecided:
    """A hop that is not known, on a walk that goes on: its number, and what may happen there, to
    the packet or to its answer."""

    hop: int
    decides: Decides
    reason: str
    fix: Fix | None = None
    direction: Direction = Direction.PACKET


@dataclass(frozen=True, slots=True)
class Dropped:
    """The walk ends at a hop that drops the packet.

    Attributes:
        drop: where, and by what.
        reason: one sentence for the verdict.
        cause: why, one sentence.
        fix: what to do about it.
        after: undecided hops that stand before it.
        finding: the drop's own among the walk's.
        besides: what else the verdict says, one sentence.
    """

    drop: Drop
    reason: str
    cause: str
    fix: Fix | None
    after: tuple[Undecided, ...]
    finding: Finding
    besides: str = ""


End = Arrived | Stopped | Dropped
"""The three ways in which a walk ends."""
