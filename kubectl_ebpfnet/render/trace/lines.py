"""A line for each place of a packet, as it is seen."""

from __future__ import annotations

from collections import Counter

from kubectl_ebpfnet.model.events import Direction, Place
from kubectl_ebpfnet.model.net import Flow, endpoint_text
from kubectl_ebpfnet.model.trace import Lost, Notice, Owner, Sighting
from kubectl_ebpfnet.render.text.style import Style
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.text.wrap import columns, hanging

PLACES = {
    Place.QUEUE: "sent by",
    Place.XMIT: "driver of",
    Place.NETIF_RX: "came to",
    Place.GRO: "came to",
    Place.RECEIVE: "received by",
    Place.DROP: "dropped at",
    Place.CONSUME: "taken",
    Place.DELIVER: "read",
    Place.PROGRAM: "program at",
    Place.KERNEL: "in",
}
_DETAILS = (Place.XMIT, Place.NETIF_RX, Place.GRO, Place.CONSUME, Place.KERNEL)
"""Places that say the same as their neighbour, or end a buffer and no packet: shown in wide."""
_ARROWS = {Direction.FORTH: "→", Direction.BACK: "←", Direction.NONE: "·"}
_TIME = 10
_FIRST = 5
"""Packets of each direction that are shown place by place; of later ones losses alone."""
_NOTICES = 10
"""Notices of Cilium of each direction that are shown; of later ones drops alone."""


def owner_text(owner: Owner) -> str:
    """Return `pod default/web`, `node n1`, `nginx (123)`, or `?` where nobody is known."""
    if owner.kind == "pod":
        return f"pod {owner.namespace}/{owner.name}"
    if owner.kind == "node":
        return f"node {owner.name}"
    return f"{owner.name} ({owner.pid})" if owner.kind else "?"


def flow_text(flow: Flow) -> str:
    """Return `10.0.0.1:5 → 10.0.0.2:80`."""
    return (
        f"{endpoint_text(flow.source, flow.source_port)} → "
        f"{endpoint_text(flow.destination, flow.destination_port)}"
    )


class Lines:
    """Turns sightings into lines, one after the other."""

    def __init__(self, view: View, *, wide: bool) -> None:
        """`wide` shows every place, and the kernel's numbers."""
        self._view, self._wide = view, wide
        self._style = Style(view.color)
        self._shown: dict[Direction, set[int]] = {}
        self._folded = False
        self._notices: Counter[Direction] = Counter()

    def of(self, sighting: Sighting, packet: int, what: str) -> list[str]:
        """Return the lines of a sighting, [] for one that is not shown.

        Args:
            sighting: where and when.
            packet: its number.
            what: what the packet is.
        """
        event, loss = sighting.event, sighting.lost is not Lost.NO
        shown = self._shown.setdefault(event.direction, set())
        if not self._wide and not loss:
            if event.place in _DETAILS or (event.place is Place.DROP):
                return []
            if packet not in shown and len(shown) >= _FIRST:
                return self._fold()
        shown.add(packet)
        view = self._view
        mark = {Lost.YES: "✗", Lost.UNDECIDED: "?"}.get(sighting.lost, _ARROWS[event.direction])
        at = event.where if event.place is Place.KERNEL else event.device
        device = f" {at}" if at else ""
        place = view.text(f"{PLACES[event.place]}{device}")
        owner = view.text(owner_text(sighting.owner))
        if sighting.owner.kind not in ("node", ""):
            owner += view.text(f" on {sighting.node}")
        head = f"{sighting.seconds:{_TIME}.6f} {view.text(mark)} "
        name = view.text(what)
        line = f"{head}{owner:<34} {place:<22} {name}"
        lines = [line]
        if view.width and columns(line) > view.width:
            indent = " " * len(head)
            lines = hanging(head, f"{owner}  {place}", view.width)
            lines += hanging(f"{indent}  ", name, view.width)
        for text in self._more(sighting):
            lines += hanging(f"{' ' * len(head)}  ", text, view.width)
        if sighting.lost is Lost.YES:
            lines[0] = self._style.mark(view.text("✗"), lines[0])
        return lines

    def of_notice(self, notice: Notice) -> list[str]:
        """Return the lines of a notice of Cilium."""
        event, view = notice.event, self._view
        dropped = event.kind == "drop"
        self._notices[notice.direction] += 1
        if not self._wide and not dropped and self._notices[notice.direction] > _NOTICES:
            return self._fold()
        mark = view.text("✗" if dropped else _ARROWS[notice.direction])
        head = f"{notice.seconds:{_TIME}.6f} {mark} "
        place = f"node {notice.node}  Cilium: {notice_text(notice)}"
        lines = hanging(head, view.text(place), view.width)
        if event.flow is not None:
            text = view.text(flow_text(event.flow))
            lines += hanging(f"{' ' * len(head)}  ", text, view.width)
        if dropped:
            lines[0] = self._style.mark(mark, lines[0])
        return lines

    def _fold(self) -> list[str]:
        if self._folded:
            return []
        self._folded = True
        return [f"{' ' * _TIME}   (of what is later, losses alone: -o wide shows all)"]

    def _more(self, sighting: Sighting) -> list[str]:
        event, more = sighting.event, []
        if sighting.changed and event.flow is not None:
            more.append(flow_text(event.flow))
            if event.tunnel:
                tunnel = event.tunnel
                more.append(f"in {tunnel.kind} {tunnel.id}: {tunnel.source} → {tunnel.destination}")
        more += details_of(sighting)
        if self._wide:
            more.append(
                f"netns {event.netns} ifindex {event.ifindex} packet {event.fingerprint:016x}"
                f" by {event.matched_by} {event.length} bytes ttl {event.ttl}"
            )
        return [self._view.text(text) for text in more]


def details_of(sighting: Sighting) -> list[str]:
    """Return what is known of a place beside its name: why it drops, who reads it."""
    event, more = sighting.event, []
    if event.place is Place.DROP:
        reason = event.reason or "this kernel tells no reason"
        more.append(f"{reason}{f', {event.where}' if event.where else ''}")
    if sighting.note:
        more.append(sighting.note)
    if event.program:
        more.append(f"{event.program} at {event.where}: {event.verdict}")
    if event.command:
        more.append(f"process {event.command} ({event.pid})")
    return more


def notice_text(notice: Notice) -> str:
    """Return what Cilium says: `-> stack, SYN, new, app=client → world`."""
    event = notice.event
    what = f"drops it: {event.summary}" if event.kind == "drop" else event.summary
    if event.kind == "policy-verdict":
        what = f"policy verdict {event.summary}{f', {event.direction}' if event.direction else ''}"
    ends = " → ".join(filter(None, (notice.source, notice.destination)))
    seen = (what, ", ".join(event.tcp_flags) or event.icmp, event.state, ends, event.code)
    return ", ".join(filter(None, seen))
