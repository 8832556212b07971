"""Whether the kernel forwards what came in by a device: forwarding, IPv6, and the source's check.

`net.ipv4.ip_forward` sets the `forwarding` of every device, and the device's own value decides. A
packet whose source would be answered by another device is dropped where rp_filter is strict, the
higher of `all` and the device's; where it is loose, too, if the device has no IPv4 address.

Sources: Linux net/ipv4/route.c (ip_route_input_slow), net/ipv4/fib_frontend.c
(__fib_validate_source), net/ipv6/ip6_output.c (ip6_forward), net/ipv6/ip6_input.c,
net/core/filter.c (bpf_ipv4_fib_lookup); Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.decision import Decision, RoutingTables
from kubectl_ebpfnet.explain.kernel.routing import decide
from kubectl_ebpfnet.explain.kernel.rule_match import RoutedPacket
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import FibAnswer

_STRICT, _LOOSE = 1, 2


@dataclass(frozen=True, slots=True)
class Barrier:
    """A sysctl that keeps a packet from being forwarded.

    Attributes:
        text: what it does to the packet, one line.
        sysctls: the names that decide, paths below /proc/sys.
        setting: the sysctl that would let it pass, as `sysctl -w` takes it; "" for none.
        undecided: why it is not known whether it drops the packet, "" when it does.
    """

    text: str
    sysctls: tuple[str, ...]
    setting: str = ""
    undecided: str = ""


def sysctls_of(version: int, device: str) -> str:
    """Return the sysctls that decide about a packet from a device, in words."""
    if version == 6:
        return "net.ipv6.conf.all.forwarding, nf_conntrack_count and nf_conntrack_max"
    return (
        f"net.ipv4.ip_forward, forwarding and rp_filter of {device}, nf_conntrack_count and "
        "nf_conntrack_max"
    )


def told_apart(decision: Decision, answer: FibAnswer) -> Decision:
    """Return a decision by the kernel's own look-up with what its error means where the tables have
    a route: then the device that the packet came in by decides.

    Args:
        decision: of `with_kernel_answer`.
        answer: the kernel's.
    """
    if not (answer.error and answer.in_device and decision.differs):
        return decision
    for error, meaning in _ERRORS.items():
        if answer.error.startswith(error):
            refused = f"{meaning.format(device=answer.in_device)}: the kernel's look-up for "
            refused += f"{answer.destination} fails ({error}), though the tables have a route"
            return replace(decision, refused=refused)
    return decision


# What strerror(3) says, and what it means for a packet that came in by a device and has a route.
_ERRORS = {
    "No route to host": "forwarding is off at {device}",
    "Invalid cross-device link": "rp_filter of {device} refuses the source",
    # Linux 6.14 and later answer so for rp_filter too (inet_rtm_getroute).
    "Invalid argument": "the source is refused at {device}, by rp_filter or as a martian",
}


def forwarding_off(node: NodeView, version: int, device: str) -> Barrier | None:
    """Return the sysctl that keeps a node from forwarding packets of a device; None for none.

    Args:
        node: the node.
        version: of the packet, 4 or 6.
        device: that it came in by.
    """
    if version == 6:
        disabled = f"net/ipv6/conf/{device}/disable_ipv6"
        if node.sysctl(disabled):
            return Barrier(f"IPv6 is off at {device}", (disabled,), _assignment(disabled, 0))
        everywhere = "net/ipv6/conf/all/forwarding"
        here = f"net/ipv6/conf/{device}/force_forwarding"
        if node.sysctl(everywhere) == 0 and not node.sysctl(here):
            text = "the node forwards no IPv6: net.ipv6.conf.all.forwarding is 0"
            return Barrier(text, (everywhere, here), _assignment(everywhere, 1))
        return None
    own = f"net/ipv4/conf/{device}/forwarding"
    if node.sysctl(own) != 0:
        return None
    if node.sysctl("net/ipv4/ip_forward") == 0:
        text = "the node forwards nothing: net.ipv4.ip_forward is 0"
        return Barrier(text, ("net/ipv4/ip_forward", own), "net.ipv4.ip_forward=1")
    text = f"what comes in by {device} is not forwarded: {_dotted(own)} is 0"
    return Barrier(text, (own,), _assignment(own, 1))


def source_refused(
    node: NodeView, tables: RoutingTables, packet: RoutedPacket, decision: Decision
) -> Barrier | None:
    """Return the check of the source that a packet does not pass, or may not; None where it does.

    Args:
        node: the node.
        tables: its routing.
        packet: came in by a device; IPv4.
        decision: its route.
    """
    device = packet.in_device
    if packet.destination.version == 6:
        return None
    if packet.source in node.own_addresses:
        return _own_source(node, packet)
    names = tuple(f"net/ipv4/conf/{name}/rp_filter" for name in ("all", device))
    strictness = max(node.sysctl(name) or 0 for name in names)
    if not strictness:
        return None
    back = decide(tables, _reversed(node, packet, decision))
    devices = {hop.device for hop in back.next_hops}
    word = "strict" if strictness == _STRICT else "loose"
    rule = f"rp_filter is {word} ({strictness}) at {device}"
    if back.undecided:
        text = f"{rule}, and the route back to {packet.source} is not known"
        return Barrier(text, names, undecided=back.undecided)
    if device in devices:
        return None
    by = f"by {', '.join(sorted(devices))}" if devices else "nowhere"
    has_address = any(
        fact.device == device and fact.address.version == 4 for fact in node[q.ADDRESSES].facts
    )
    if strictness == _LOOSE and devices and has_address:
        return None
    text = f"{rule}, and the route back to {packet.source} leads {by}: the packet is a martian"
    return Barrier(text, names, _assignment(names[1], 0))


def _own_source(node: NodeView, packet: RoutedPacket) -> Barrier | None:
    """Return the check that a packet does not pass which comes in with the node's own address."""
    names = tuple(f"net/ipv4/conf/{name}/accept_local" for name in ("all", packet.in_device))
    values = [node.sysctl(name) for name in names]
    if None in values or any(values):
        return None
    text = f"{packet.source} is the node's own address, and came in by {packet.in_device}"
    return Barrier(f"{text}: the packet is a martian", names, _assignment(names[1], 1))


def _reversed(node: NodeView, packet: RoutedPacket, decision: Decision) -> RoutedPacket:
    """Return the packet that the kernel looks up to check the source: from the packet's destination
    to its source, as if it came in by the device that the packet leaves by."""
    marked = node.sysctl(f"net/ipv4/conf/{packet.in_device}/src_valid_mark") or node.sysctl(
        "net/ipv4/conf/all/src_valid_mark"
    )
    leaves = decision.route.device if decision.route is not None and not decision.local else ""
    return replace(
        packet,
        source=packet.destination,
        destination=packet.source,
        in_device=leaves,
        mark=packet.mark if marked else 0,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        tunnel_id=0,
    )


def _assignment(name: str, value: int) -> str:
    return f"{_dotted(name)}={value}"


def _dotted(name: str) -> str:
    """Return a sysctl as sysctl(8) writes it: a dot in a device's name becomes a slash."""
    return name.translate(str.maketrans("/.", "./"))
