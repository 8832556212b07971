"""What became of one packet, by the places where it was seen."""

from __future__ import annotations

from kubectl_ebpfnet.explain.trace import words
from kubectl_ebpfnet.model.events import Place
from kubectl_ebpfnet.model.trace import Fate, Lost, Owner, Sighting

SENT = (Place.QUEUE, Place.XMIT)
"""A packet that is seen there first is sent there."""
_RECEIVED = (Place.NETIF_RX, Place.GRO, Place.RECEIVE)
_TAKEN = (
    "tcp_", "udp_", "udpv6_", "icmp_rcv", "icmpv6_rcv", "raw_recvmsg", "rawv6_recvmsg",
    "ping_recvmsg", "skb_consume_udp", "sctp_",
)  # fmt: skip
"""Beginnings of functions that are done with a packet which arrived (net/ipv4, net/ipv6)."""


def owner_name(owner: Owner) -> str:
    """Return whose namespace it is: `pod default/web`, `node n1`, `nginx (123)`."""
    if owner.kind == "pod":
        return f"pod {owner.namespace}/{owner.name}"
    if owner.kind == "node":
        return f"node {owner.name}"
    return f"{owner.name} ({owner.pid})" if owner.kind else "a namespace of nobody known"


def place_name(sighting: Sighting) -> str:
    """Return where it was seen: `eth0 of pod default/web on node1`."""
    device = f"{sighting.event.device} of " if sighting.event.device else ""
    on = "" if sighting.owner.kind == "node" else f" on {sighting.node}"
    return f"{device}{owner_name(sighting.owner)}{on}"


def is_taken(sighting: Sighting) -> bool:
    """Tell whether a process, or the kernel's own answer to it, took the packet there."""
    event = sighting.event
    if event.place is Place.DELIVER:
        return True
    return event.place is Place.CONSUME and (bool(event.pid) or event.where.startswith(_TAKEN))


def fate(
    sightings: tuple[Sighting, ...], ends: frozenset[Owner], *, missing: bool
) -> tuple[Fate, str]:
    """Return what became of a packet, and why: "" for one that was delivered or arrived.

    Args:
        sightings: at least one, in the order of time.
        ends: who sends packets of the other direction: where this one is to arrive.
        missing: events are missing, so that silence says nothing.
    """
    if any(is_taken(each) for each in sightings):
        return Fate.DELIVERED, ""
    last = sightings[-1]
    for each in reversed(sightings):
        if each.lost is Lost.YES:
            return Fate.DROPPED, f"{words.why(each.event)}, at {place_name(each)}"
        if each.lost is Lost.UNDECIDED:
            why = f"a buffer with it was dropped at {place_name(each)}: {words.why(each.event)}"
            return Fate.UNKNOWN, f"{why}; {each.note}"
    if last.event.place in _RECEIVED and last.owner.kind and last.owner in ends:
        return Fate.ARRIVED, ""
    if missing:
        return Fate.UNKNOWN, f"it was last seen at {place_name(last)}, and events are missing"
    if last.event.place in SENT and last.owner.kind == "node":
        return Fate.LEFT, f"it left by {place_name(last)}"
    silent = f"it was last seen at {place_name(last)}"
    if last.event.place is Place.RECEIVE and last.owner.kind in ("pod", "process"):
        return Fate.LAST_SEEN, f"{silent}; what a socket there does with it was not seen"
    return Fate.LAST_SEEN, f"{silent}, and no drop was told"
