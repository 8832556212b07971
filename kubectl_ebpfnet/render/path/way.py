"""The way of a packet: its hops by place, a line each, the mark first.

A line is the mark, what acts, and what it does; the packet's tuple stands beside it where it
changes, in a column of its own if there is room, else on the line below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import groupby

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Hop, HopKind, HopPlace, Packet
from kubectl_ebpfnet.render.path import phrases
from kubectl_ebpfnet.render.path.frames import WORDS, mark
from kubectl_ebpfnet.render.text.evidence import Proofs
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import columns, wrap

LEGEND = tuple(f"{mark} {words}" for mark, words in WORDS.items())
_KIND_COLUMNS = 11
_GAP = 2
_LEAST_TEXT = 16


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the way.

    Attributes:
        mark: of the hop; "" for the name of a place.
        label: the kind, or the name of the place.
        text: what happens.
        packet: the packet's tuple from here on, "" where it does not change.
        below: lines under it, ready to print.
    """

    mark: str
    label: str
    text: str = ""
    packet: str = ""
    below: list[str] = field(default_factory=list)


def place_of(hop: Hop) -> str:
    """Return the place whose hops stand together: `pod default/client`, `node1`, `outside the
    cluster`; "" for the wire, which is between two of them."""
    if hop.place is HopPlace.WIRE:
        return ""
    if hop.place is HopPlace.POD:
        return f"pod {hop.where}"
    return "outside the cluster" if hop.place is HopPlace.WORLD else hop.node or hop.where


def places(hops: Sequence[Hop]) -> Iterator[tuple[str, list[Hop]]]:
    """Yield (place, its hops) in the packet's order; hops on the wire are those of their sender."""
    last = ""
    named = []
    for hop in hops:
        last = place_of(hop) or last
        named.append((last, hop))
    for place, group in groupby(named, key=lambda pair: pair[0]):
        yield place, [hop for _, hop in group]


def kind_of(hop: Hop, before: Packet | None) -> str:
    """Return a short word for what acts on the packet.

    Args:
        hop: the hop.
        before: the packet as it came to it.
    """
    if hop.place is HopPlace.WIRE:
        return "wire"
    if hop.kind is HopKind.NAT and before is not None:
        old, new = before.flow, hop.packet.flow
        if (old.source, old.source_port) != (new.source, new.source_port):
            return "snat"
        if (old.destination, old.destination_port) != (new.destination, new.destination_port):
            return "dnat"
    return hop.kind.short


class Way:
    """Lays the hops of a way out.

    Args:
        view: the terminal.
        proofs: prints evidence, for -v.
        wide: with numbers, devices, full sentences and the numbers of records.
    """

    def __init__(self, view: View, proofs: Proofs, *, wide: bool) -> None:
        self._view = view
        self._proofs = proofs
        self._wide = wide
        self._number = 4 if wide else 0

    @property
    def indent(self) -> int:
        """Columns before what a hop does."""
        return self._number + 3 + _KIND_COLUMNS + 1

    def lines(
        self, hops: Sequence[Hop], last: Line | None = None, sent: Packet | None = None
    ) -> list[str]:
        """Return the lines of hops.

        Args:
            hops: in the packet's order.
            last: a further line of the last place.
            sent: the packet as it was sent; as it leaves the first hop where None.
        """
        rows: list[tuple[int, Line]] = []
        before: Packet | None = sent
        begun = False
        shown = ""
        for place, there in places(hops):
            first = phrases.tuple_of(sent or there[0].packet) if not begun else ""
            begun = True
            rows.append((0, Line("", place, packet=first)))
            shown = shown or first
            for hop in there:
                tuple_text = phrases.tuple_of(hop.packet)
                changed = tuple_text if tuple_text != shown else ""
                shown = tuple_text
                rows.append((hop.number, self._line(hop, before, changed)))
                before = hop.packet
        if last is not None:
            rows.append((0, last))
        return self._laid_out(rows)

    def _line(self, hop: Hop, before: Packet | None, changed: str) -> Line:
        text = phrases.does(hop) if self._wide else phrases.in_short(hop)
        if self._wide:
            details = (
                [hop.where] if hop.where not in (hop.node, "") and hop.where not in text else []
            )
            if hop.packet.mark is not None:
                details.append(f"mark {hop.packet.mark:#x}")
            if hop.packet.vni is not None:
                details.append(f"vni {hop.packet.vni}")
            records = dict.fromkeys(str(item.record) for item in hop.evidence)
            if records:
                details.append(f"record {','.join(records)}")
            text += f" [{'; '.join(details)}]" if details else ""
        below = self._proofs.lines(hop.evidence, " " * self.indent) if self._view.evidence else []
        return Line(mark(hop), kind_of(hop, before), text, changed, below)

    def _laid_out(self, rows: Sequence[tuple[int, Line]]) -> list[str]:
        view = self._view
        width = view.width if self._wide else view.prose
        room = max(width - self.indent, _LEAST_TEXT) if width else 0
        heads: list[tuple[list[str], Line]] = []
        for number, line in rows:
            heads.append((self._head(number, line, room, width), line))
        column = self._column(heads, width)
        shown: list[str] = []
        for head, line in heads:
            shown += self._with_packet(head, line, column, width)
            shown += line.below
        return shown

    def _head(self, number: int, line: Line, room: int, width: int) -> list[str]:
        view = self._view
        if not line.mark:
            return wrap(view.text(line.label), width)
        first, *rest = wrap(view.text(line.text), room)
        before = f"{number or '':>3} " if self._wide else ""
        label = f"{before} {view.text(line.mark)} {line.label:<{_KIND_COLUMNS}} "
        return [label + first, *(" " * self.indent + each for each in rest)]

    def _column(self, heads: Sequence[tuple[list[str], Line]], width: int) -> int:
        """Return the column of the tuples that fit beside their lines."""
        ends = []
        for head, line in heads:
            packet = self._view.text(line.packet)
            if packet and (not width or columns(head[0]) + _GAP + len(packet) <= width):
                ends.append((columns(head[0]) + _GAP, len(packet)))
        if not ends:
            return 0
        column = max(end for end, _ in ends)
        longest = max(length for _, length in ends)
        return column if not width or column + longest <= width else 0

    def _with_packet(self, head: list[str], line: Line, column: int, width: int) -> list[str]:
        colored = self._colored(head, line)
        packet = self._view.text(line.packet)
        if not packet:
            return colored
        end = columns(head[0])
        at = max(column, end + _GAP)
        if not width or at + len(packet) <= width:
            return [colored[0] + " " * (at - end) + packet, *colored[1:]]
        indent = " " * (self.indent if line.mark else 2)
        room = max(width - len(indent), _LEAST_TEXT)
        return [*colored, *(indent + each for each in wrap(packet, room))]

    def _colored(self, head: list[str], line: Line) -> list[str]:
        if not line.mark or not self._view.color:
            return head
        shown = self._view.text(line.mark)
        painted = Style(True).mark(line.mark, shown)
        return [head[0].replace(shown, painted, 1), *head[1:]]
