"""What became of one packet, by the places where it was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kubectl_ebpfnet.explain.trace import reasons, words
from kubectl_ebpfnet.model.events import Copies, Place
from kubectl_ebpfnet.model.net import RST
from kubectl_ebpfnet.model.trace import Fate, Lost, Owner, Sighting

SENT = (Place.QUEUE, Place.XMIT)
"""A packet that is seen there first is sent there."""
_FRESH = (64, 128, 255)
"""What a TTL begins with (net.ipv4.ip_default_ttl, other systems, raw sockets)."""
_RECEIVED = (Place.NETIF_RX, Place.GRO, Place.RECEIVE)
_BESIDE = (Place.PROGRAM, Place.KERNEL)
"""Seen only where the kernel has BPF trampolines: they say more of a place, and are none."""
_ENDS = (Place.DROP, Place.CONSUME, Place.DELIVER)
_TAPS = ("packet_recvmsg", "packet_rcv", "tpacket_rcv")
"""What packet sockets read with (net/packet/af_packet.c)."""
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
    # The process of any other end is whoever runs as the buffer is freed (skb_defer_free_flush).
    return event.place is Place.CONSUME and event.where.startswith(_TAKEN)


def senders(packets: Iterable[tuple[Sighting, ...]]) -> frozenset[Owner]:
    """Return who sends these packets of one direction, so that those of the other end there.

    Not who forwards them, even where the first places of a packet were not seen; nor who sends a
    RST or an ICMP error, which may be a router or filter on the way.
    """
    found: set[Owner] = set()
    forwarders: set[Owner] = set()
    for each_of_them in packets:
        sightings = [each for each in each_of_them if each.event.place not in _BESIDE]
        if not sightings:
            continue
        first = sightings[0].event
        if first.icmp_error or first.tcp_flags & RST:
            continue
        if first.place in SENT and first.ttl in _FRESH:
            found.add(sightings[0].owner)
        received: set[Owner] = set()
        for each in sightings:
            if each.event.place in SENT and each.owner in received:
                forwarders.add(each.owner)
            elif each.event.place in _RECEIVED:
                received.add(each.owner)
    return frozenset(found - forwarders)


def settled(
    sightings: tuple[Sighting, ...], *, missing: bool, nodes: frozenset[str] | None = None
) -> tuple[Sighting, ...]:
    """Return a packet's sightings with what is known of its drops once all are there.

    A drop is no loss where the packet is seen behind it, or taken elsewhere. One of a copy is a
    loss where it comes before any socket and the packet is seen nowhere behind it: what a tap has
    of it goes nowhere. One for another MAC address is no loss where it was not to come: switches
    flood frames to addresses that they do not know (IEEE 802.1Q, 8.8).

    Args:
        sightings: in the order of time.
        missing: events are missing, so that silence says nothing.
        nodes: that it passes by the tables; None where these were not asked.
    """
    return tuple(_settled(each, sightings, missing, nodes) for each in sightings)


def _settled(
    drop: Sighting,
    sightings: tuple[Sighting, ...],
    missing: bool,
    nodes: frozenset[str] | None,
) -> Sighting:
    if reasons.by_verdict(drop.event):
        return _settled_verdict(drop, sightings)
    if drop.event.place is not Place.DROP or drop.event.reason in words.NO_LOSS:
        return drop
    if drop.event.reason == "OTHERHOST" and nodes is not None and drop.node not in nodes:
        return replace(drop, lost=Lost.UNDECIDED, note="it was for another node, and this is none "
                       "of its way: a switch may have sent it to all")  # fmt: skip
    if any(_is_behind(each, drop, sightings) for each in sightings):
        if drop.lost is Lost.YES:
            return replace(drop, lost=Lost.UNDECIDED, note="it, or one like it, is seen behind it")
        return drop
    final = reasons.of(drop.event).final
    if final and drop.event.copies is not Copies.NONE and not missing:
        return replace(drop, lost=Lost.YES, note="a copy of it was seen nowhere behind it")
    return drop


def _settled_verdict(answer: Sighting, sightings: tuple[Sighting, ...]) -> Sighting:
    """Of a program that drops: the kernel's drop behind it is the loss, else the answer itself
    where it is a driver's XDP, which drops in silence."""
    if any(program_of(each, sightings) == answer for each in sightings):
        return answer
    if any(_is_behind(each, answer, sightings) for each in sightings):
        return replace(answer, lost=Lost.UNDECIDED, note="it, or one like it, is seen behind it")
    if answer.event.where == "xdp":
        return replace(answer, lost=Lost.YES, note="the kernel tells no drop of a driver's XDP")
    return replace(answer, lost=Lost.UNDECIDED, note="the kernel told no drop behind it")


def program_of(drop: Sighting, sightings: Iterable[Sighting]) -> Sighting | None:
    """Return the program whose answer made the kernel drop a packet; None where none is known.

    Args:
        drop: of the kernel.
        sightings: of the packet, in the order of time.
    """
    if drop.event.place is not Place.DROP or not reasons.may_be_of_program(drop.event):
        return None
    before = None
    for each in sightings:
        if each == drop:
            break
        if (each.node, each.event.netns) == (drop.node, drop.event.netns):
            same = each.event.ifindex == drop.event.ifindex
            if each.event.place is not Place.KERNEL:
                before = each if same and reasons.by_verdict(each.event) else None
    return before


def why_lost(drop: Sighting, sightings: Iterable[Sighting]) -> str:
    """Return why a packet was dropped: by which program where that is known."""
    program = program_of(drop, sightings)
    reason = words.why(drop.event)
    return f"{words.why(program.event)}: {reason}" if program is not None else reason


def _is_behind(other: Sighting, drop: Sighting, sightings: tuple[Sighting, ...]) -> bool:
    if is_taken(other):
        if _is_tap(other, sightings):
            return False
        here = (other.node, other.event.netns) == (drop.node, drop.event.netns)
        return not (here and reasons.of(drop.event).final)
    if other.event.place in _ENDS:
        return False
    if other.node == drop.node:
        return other.event.time_ns > drop.event.time_ns
    return 0 < other.event.ttl < drop.event.ttl


def fate(
    sightings: tuple[Sighting, ...], ends: frozenset[Owner], *, missing: bool
) -> tuple[Fate, str]:
    """Return what became of a packet, and why: "" for one that was delivered or arrived.

    Args:
        sightings: at least one, in the order of time, settled.
        ends: who sends answers to this direction: where this one is to arrive.
        missing: events are missing, so that silence says nothing.
    """
    lost = next((each for each in reversed(sightings) if each.lost is Lost.YES), None)
    if lost is not None:
        return Fate.DROPPED, f"{why_lost(lost, sightings)}, at {place_name(lost)}"
    if any(is_taken(each) and not _is_tap(each, sightings) for each in sightings):
        return Fate.DELIVERED, ""
    places = [each for each in sightings if each.event.place not in (*_ENDS, *_BESIDE)]
    last = places[-1] if places else sightings[-1]
    if last.event.place in _RECEIVED and last.owner.kind and last.owner in ends:
        return Fate.ARRIVED, ""
    for each in reversed(sightings):
        if each.lost is Lost.UNDECIDED:
            why = f"a buffer with it was dropped at {place_name(each)}: {words.why(each.event)}"
            return Fate.UNKNOWN, f"{why}; {each.note}"
    if missing:
        return Fate.UNKNOWN, f"it was last seen at {place_name(last)}, and events are missing"
    if last.event.place in SENT and last.owner.kind == "node":
        return Fate.LEFT, f"it left by {place_name(last)}"
    silent = f"it was last seen at {place_name(last)}"
    if last.event.place is Place.RECEIVE and last.owner.kind in ("pod", "process"):
        return Fate.LAST_SEEN, f"{silent}; what a socket there does with it was not seen"
    return Fate.LAST_SEEN, f"{silent}, and no drop was told"


def _is_tap(reader: Sighting, sightings: tuple[Sighting, ...]) -> bool:
    """Whether who reads the packet may be a packet socket (tcpdump): it goes on from there, or is
    dropped there before any socket."""
    if reader.event.place is not Place.DELIVER:
        return False
    here = (reader.node, reader.event.netns)
    same = [each.event for each in sightings if (each.node, each.event.netns) == here]
    return any(
        each.place in SENT or (each.place is Place.DROP and reasons.of(each).final) for each in same
    )
