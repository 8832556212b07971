"""The source that a rule of nat POSTROUTING gives a packet, and whether answers to it come back.

Sources: Linux net/netfilter/nf_nat_core.c (find_best_ips_proto: one of a range by a hash of the
packet's addresses); iptables-extensions(8), SNAT, MASQUERADE and NETMAP.
"""

from __future__ import annotations

import re
from dataclasses import replace

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.kernel.chain_ends import TRANSLATING, ChainEnd
from kubectl_ebpfnet.explain.path import masquerade_address, snat_ports
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, Severity, State
from kubectl_ebpfnet.model.untrusted import address, network

_NAMED = 3
"""Addresses that a sentence names."""
_TRIED = 256
"""Addresses of a range that are looked for among local routes."""


def source_of(node: NodeView, here: PacketState, end: ChainEnd) -> Address | None:
    """Return the source that an end gives the packet; None where that is not known."""
    if end.target not in TRANSLATING:
        return here.packet.flow.source
    text = end.to_address
    if end.target == "SNAT":
        text = text.removeprefix("[").partition("]")[0] if text[:1] == "[" else text
        host = text.partition(":")[0] if text.count(":") == 1 else text
        try:
            return address(host, "a rule")
        except ParseError:  # a range of addresses
            return None
    if end.target == "NETMAP" and isinstance(end.rule, NetfilterRule):
        return _mapped(here.packet.flow.source, end.rule.option("--to"))
    if end.target == "MASQUERADE":
        next_hop = here.next_hop or here.packet.flow.destination
        found = masquerade_address.of_netfilter(node, here.device, next_hop)
        return found[0] if len(found) == 1 else None
    return None


def _mapped(source: Address, text: str) -> Address | None:
    """Return a source with the first bits of NETMAP's prefix (man iptables-extensions)."""
    try:
        prefix = network(text, "a rule", 1, version=source.version)
    except ParseError:
        return None
    return type(source)(int(prefix.network_address) | int(source) & int(prefix.hostmask))


def _range_of(end: ChainEnd) -> tuple[Address, Address] | None:
    """Return the first and the last address of a range that a rule gives, None for others."""
    low, dash, rest = end.to_address.partition("-")
    if end.target != "SNAT" or not dash:
        return None
    high = rest.partition(":")[0] if rest.count(":") == 1 else rest  # with ports behind it
    try:
        first, last = address(low, "a rule"), address(high, "a rule")
    except ParseError:
        return None
    same = first.version == last.version and int(first) <= int(last)
    return (first, last) if same else None


def ports_of(to: str) -> range:
    """Return the ports that `--to-source` or `--to-ports` gives: its range, else those that need no
    privilege."""
    read = re.search(r"(?:^|:)([0-9]{1,5})(?:-([0-9]{1,5}))?$", to)
    if read is None or (to.count(":") > 1 and "]" not in to):
        return snat_ports.UNPRIVILEGED
    return range(int(read[1]), int(read[2] or read[1]) + 1)


def to_one_of_several(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    end: ChainEnd,
    evidence: tuple[Evidence, ...],
) -> PacketState:
    """Add the hop of a source that is one of several, or not known: answers to those that are not
    the node's are lost, unless the network routes them to it. Go on with the likeliest of the
    node's own, else with the source as it is.

    Args:
        walk: takes the hop, the doubt and the finding.
        here: the packet at its egress device.
        node: the node that it leaves.
        end: of the chain, with the rule that translates.
        evidence: of the rule.
    """
    assert end.rule is not None
    where, title = here.on_node(HopKind.NAT), end.rule.title
    bounds = _range_of(end)
    if bounds is None:
        return _to_one_of_the_nodes(walk, here, node, end, evidence)
    first, last = bounds
    said, many = f"{first} to {last}", int(last) - int(first) + 1
    walk.hop(
        *where, f"netfilter masquerades the source to one of {said} by {title}", State.UNKNOWN,
        here.packet, evidence, reason=f"which of {said} {title} gives it is not known",
    )  # fmt: skip
    own = {one for one in node.own_addresses if one.version == first.version}
    numbers = range(int(first), int(first) + min(many, _TRIED))
    own |= {one for number in numbers if _is_own(node, one := type(first)(number))}
    ours = sum(int(first) <= int(one) <= int(last) for one in own)
    if not node[q.ADDRESSES].known or ours >= many:
        return here
    text = (
        f"the source becomes one of {said}, of which {here.node} has {ours or 'none'}: answers to "
        "the others come back only if the network routes them to it"
    )
    fix = Fix(f"Translate to addresses of {here.node}, or use MASQUERADE.", "ip -br addr")
    walk.doubt(text, Decides.DROP, fix)
    walk.finding(
        Severity.WARNING,
        f"netfilter translates to {said}, of which {here.node} has {ours or 'none'}",
        f"By {title}, {text}. {fix.text}",
        evidence + cite.whole(node[q.ADDRESSES].record),
    )
    return here


def _to_one_of_the_nodes(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    end: ChainEnd,
    evidence: tuple[Evidence, ...],
) -> PacketState:
    assert end.rule is not None
    title, packet = end.rule.title, here.packet
    masquerades = end.target == "MASQUERADE"
    found: tuple[Address, ...] = ()
    if masquerades:
        next_hop = here.next_hop or packet.flow.destination
        found = masquerade_address.of_netfilter(node, here.device, next_hop)
    what, which = "it", f"which address {title} gives it is not known"
    if found:
        which = "which of them is not known"
        what = f"the source to one of {few(found, _NAMED)}"
        packet = replace(packet, flow=packet.flow.with_source(found[0], None))
    walk.hop(
        *here.on_node(HopKind.NAT), f"netfilter masquerades {what} by {title}", State.UNKNOWN,
        packet, evidence, reason=which,
        decides=Decides.NOTHING if masquerades else Decides.DROP,
        fix=Fix("Send a packet, and see which source it gets.", "conntrack -L"),
    )  # fmt: skip
    return here.to(here.stage, packet=packet)


def check_owner(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    new: Address,
    evidence: tuple[Evidence, ...],
) -> None:
    """Report a source that answers do not come back to: this node lacks it.

    Args:
        walk: takes the doubt and the finding.
        here: the packet at its egress device.
        node: the node that it leaves.
        new: the source.
        evidence: of the rule.
    """
    if not node[q.ADDRESSES].known or _is_own(node, new):
        return
    owner = walk.cluster.node_of(new)
    if owner == here.node:
        return
    severity = Severity.ERROR
    if owner:
        who = f"node {owner} has it, which knows nothing of this flow"
    elif _on_link(node, here.device, new):
        who = f"no node has it, though it is of the network of {here.device}"
    else:
        severity = Severity.WARNING
        who = "no node has it: answers come back only if the network routes it to this node"
    text = f"the source becomes {new}, which {here.node} does not have: {who}"
    fix = Fix(f"Translate to an address of {here.node}, or use MASQUERADE.", "ip -br addr")
    walk.doubt(text, Decides.DROP, fix)
    walk.finding(
        severity,
        f"netfilter translates to {new}, which {here.node} does not have",
        f"Answers to {new} are lost: {who}.",
        evidence + cite.whole(node[q.ADDRESSES].record),
    )


def _is_own(node: NodeView, one: Address) -> bool:
    if one in node.own_addresses:
        return True
    return any(r.type == "local" and one in r.destination for r in node[q.ROUTES].facts)


def _on_link(node: NodeView, device: str, one: Address) -> bool:
    return any(
        route.device == device and route.gateway is None and one in route.destination
        for route in node[q.ROUTES].facts
        if route.destination.prefixlen
    )
