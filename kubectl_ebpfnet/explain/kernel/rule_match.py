"""Which packets a routing rule selects: yes, no, or undecided with the reason.

Sources: Linux net/core/fib_rules.c (fib_rule_match), net/ipv4/fib_rules.c (fib4_rule_match),
drivers/net/vrf.c; ip-rule(8). A packet of the namespace itself comes in by `lo`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Rule
from kubectl_ebpfnet.model.net import Address, Network, protocol_name, within


@dataclass(frozen=True, slots=True)
class RoutedPacket:
    """What routing rules can look at.

    Attributes:
        source, destination: addresses.
        in_device: the device it came in by, "" for packets of this namespace.
        out_device: the device that its socket, or a BPF program, is bound to; "" for none.
        mark: its skb mark, None when not known.
        protocol: IP protocol number, None when not known.
        source_port, destination_port: None when not known.
        user: uid of its socket's owner, 0 for a forwarded packet (sock_net_uid), None when not
            known.
        tos: None when not known.
        tunnel_id: of the tunnel that it came out of, 0 for none, None when not known.
        to_client: a destination port that is not known is of CLIENT_PORTS.
        in_vrf: whether it came in by a device of a VRF; None when not known.
        vrf_table: of that VRF, "" when not known.
    """

    source: Address
    destination: Address
    in_device: str = ""
    out_device: str = ""
    mark: int | None = 0
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    user: int | None = None
    tos: int | None = None
    tunnel_id: int | None = 0
    in_vrf: bool | None = False
    vrf_table: str = ""
    to_client: bool = False


def selects(rule: Rule, packet: RoutedPacket) -> bool | str:
    """Tell whether a rule selects a packet.

    Returns:
        True or False, or the reason why that is undecided: the rule and its selector.
    """
    if rule.version not in (None, packet.destination.version):
        return False
    unknown = ""
    for name, hit in _selectors(rule, packet):
        if hit is False:
            return rule.inverted
        if hit is None:
            unknown = unknown or name
    if unknown:
        return f"{rule_text(rule)} may match: {unknown}"
    return not rule.inverted


def _selectors(rule: Rule, packet: RoutedPacket) -> Iterator[tuple[str, bool | None]]:
    """Yield for each selector what is missing, and whether it matches; None for undecided."""
    if rule.source is not None:
        yield "", packet.source in rule.source
    if rule.destination is not None:
        yield "", packet.destination in rule.destination
    if rule.in_device:
        yield "", rule.in_device == (packet.in_device or "lo")
    if rule.out_device:
        yield "", rule.out_device == packet.out_device
    if rule.mark is not None:
        mark, mask = packet.mark, rule.mark_mask
        yield (
            "the packet's mark is not known",
            None if mark is None else not (mark ^ rule.mark) & mask,
        )
    if rule.protocol is not None:
        hit = None if packet.protocol is None else packet.protocol == rule.protocol
        yield "the packet's protocol is not known", hit
    if rule.source_ports:
        yield (
            "the packet's source port is not known",
            within(packet.source_port, *rule.source_ports),
        )
    if rule.destination_ports:
        yield (
            "the packet's destination port is not known",
            within(packet.destination_port, *rule.destination_ports, of_client=packet.to_client),
        )
    if rule.users:
        low, high = rule.users
        hit = None if packet.user is None else low <= packet.user <= high
        yield "the uid that sends it is not known", hit
    if rule.tos:
        yield "the packet's TOS is not known", _same_tos(rule.tos, packet.tos)
    if rule.tunnel_id:
        hit = None if packet.tunnel_id is None else packet.tunnel_id == rule.tunnel_id
        yield "the tunnel id is not known", hit
    if rule.action == "l3mdev":
        yield "it is not known whether its device is in a VRF", packet.in_vrf
    for name in rule.other_selectors:
        yield f"its {name} is not understood", None


def _same_tos(wanted: str, tos: int | None) -> bool | None:
    try:
        return None if tos is None else int(wanted, 0) == tos
    except ValueError:  # a name of /etc/iproute2/rt_dsfield
        return None


def rule_text(rule: Rule) -> str:
    """Return a rule by its priority and, in brackets, its selectors in iproute2's words."""
    words = ["not"] if rule.inverted else []
    words += [f"from {_prefix(rule.source)}"] if rule.source is not None else []
    words += [f"to {_prefix(rule.destination)}"] if rule.destination is not None else []
    words += [f"tos {rule.tos}"] if rule.tos else []
    if rule.mark is not None:
        mask = "" if rule.mark_mask == 0xFFFFFFFF else f"/{rule.mark_mask:#x}"
        words.append(f"fwmark {rule.mark:#x}{mask}")
    words += [f"iif {rule.in_device}"] if rule.in_device else []
    words += [f"oif {rule.out_device}"] if rule.out_device else []
    words += [f"ipproto {protocol_name(rule.protocol)}"] if rule.protocol is not None else []
    for name, bounds in (
        ("sport", rule.source_ports), ("dport", rule.destination_ports), ("uidrange", rule.users),
    ):  # fmt: skip
        if bounds:
            words.append(f"{name} {'-'.join(map(str, dict.fromkeys(bounds)))}")
    words += [f"tun_id {rule.tunnel_id}"] if rule.tunnel_id else []
    words += rule.other_selectors
    return f"rule {rule.priority}" + (f" ({' '.join(words)})" if words else "")


def _prefix(network: Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)
