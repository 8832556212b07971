"""netfilter's hooks on a node: the tables that a packet passes, in the kernel's order.

raw, mangle and nat PREROUTING stand before the routing decision, mangle and filter FORWARD (or
INPUT) behind it, mangle and nat POSTROUTING at the end; a node's own packets pass raw, mangle, nat
and filter OUTPUT instead (Linux include/uapi/linux/netfilter_ipv4.h). Marks go with the packet.
iptables has two back ends, nf_tables and legacy, and a packet passes the rules of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.kernel import routing
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.devices import vrf_of
from kubectl_ebpfnet.explain.kernel.marks import NO_MARK, Mark
from kubectl_ebpfnet.explain.kernel.namespace_routing import node_tables, way_back
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.path.stages.rule_hops import Passing
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, State

IDENTITY_MARK, IDENTITY_BITS = 0x0F00, 0x0F00
"""MARK_MAGIC_IDENTITY: what cil_from_container puts on packets for the stack (bpf/lib/common.h)."""

PROXY_MARKS = {"upstream": Mark(0x0B00, 0x0F00), "answer": Mark(0x0A00)}
"""MARK_MAGIC_PROXY_EGRESS with an identity, MARK_MAGIC_PROXY_INGRESS (bpf/lib/common.h)."""


def entering(walk: PathBuilder, here: PacketState, node: NodeView) -> Context:
    """Return the first packet of a connection, or the first answer to it, as it comes into the
    node's stack.

    Args:
        walk: the walk.
        here: the packet.
        node: the node.
    """
    nodes = walk.cluster.node_addresses
    first = Context(
        here.packet.flow,
        in_device(node, here.in_device),
        "",
        _mark(here, node),
        # pkg/ipmasq and pkg/datapath/ipset: Cilium keeps the nodes' addresses in this set.
        sets={"cilium_node_set_v4": nodes, "cilium_node_set_v6": nodes} if nodes else {},
        local=node.own_addresses or None,
        bridged=_bridged(node, here.in_device),
        back_device=back_device(node, here.packet.flow) if here.in_device else None,
    )
    if walk.forth is None:
        return replace(first, state="INVALID") if here.node in walk.one_sided else first
    return _answering(walk.forth, here, first)


def in_device(node: NodeView, device: str) -> str | None:
    """Return by which device netfilter sees a packet come in: of a device in a VRF, the chains see
    now the device and now the VRF (drivers/net/vrf.c, vrf_rcv_nfhook)."""
    return None if vrf_of(node, device) is not None else device


def _answering(forth: PathBuilder, here: PacketState, context: Context) -> Context:
    """Return an answer with the state and mark of the connection that its packet made here.

    Of TCP, ICMP and SCTP an answer makes no connection: where nf_conntrack does not know it, it is
    INVALID (Linux net/netfilter/nf_conntrack_proto_tcp.c, tcp_new; …_proto_icmp.c).
    """
    proxied = None if forth.redirects else False
    if here.packet.flow.destination in (context.local or ()):
        proxied = False  # to the proxy's own address: no transparent socket
    context = replace(context, to_client=True, proxied=proxied)
    sent = forth.connections.get(here.node)
    if sent is None or sent.state == "UNTRACKED":
        state = "NEW" if context.flow.protocol == UDP else "INVALID"
        return replace(context, state=state)
    state = "ESTABLISHED" if sent.state == "NEW" else ""
    return replace(context, state=state, connmark=sent.connmark, translated=sent.translated)


def back_device(node: NodeView, flow: Flow) -> str | None:
    """Return the device of a node's route to a packet's source; "" for no route, None for not
    known."""
    tables = node_tables(node, flow.source.version)
    if isinstance(tables, str):
        return None
    back = routing.decide(tables, way_back(flow.destination, flow.source))
    if back.undecided or len(back.next_hops) > 1:
        return None
    return back.route.device if back.route is not None else ""


def from_endpoint(node: NodeView, device: str) -> bool:
    """Tell whether what comes in by a device comes from a pod that Cilium manages."""
    return device.startswith("lxc") or bool(device and node.endpoint_at(device) is not None)


def _mark(here: PacketState, node: NodeView) -> Mark:
    """Return the mark that Cilium's programs leave on a packet for the stack, or its proxies on
    what they send; 0 without them."""
    if here.by_proxy:
        return PROXY_MARKS[here.by_proxy]
    if not here.in_device.startswith("cilium_") and not from_endpoint(node, here.in_device):
        return NO_MARK
    if not here.identity:
        return Mark(IDENTITY_MARK, IDENTITY_BITS)
    low, high = here.identity & 0xFFFF, here.identity >> 16 & 0xFF
    return Mark(low << 16 | IDENTITY_MARK | high)


def _bridged(node: NodeView, device: str) -> bool | None:
    if not node[q.LINKS].known:
        return None
    return None if any(link.master == device for link in node[q.LINKS].facts) else False


def passes(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    chain: str,
    tables: Sequence[str],
    *,
    quiet: bool = False,
) -> PacketState | None:
    """Let the packet pass a chain of some tables; return it as it comes out, None if it is lost.

    Args:
        walk: takes the hop.
        here: the packet, with its `netfilter` for this hook.
        node: the node.
        chain: `FORWARD`, …
        tables: in the kernel's order.
        quiet: add no hop where nothing happens.
    """
    context = here.netfilter
    assert context is not None
    rules = tables_of(node, context.flow.destination.version)
    if rules.native is None and not rules.printed:
        walk.presumed.add(f"nftables' own tables on {here.node} (`nft list ruleset`)")
    if rules.missing:
        if not quiet:
            _not_read(walk, here, chain, rules)
        if not rules.back_ends and rules.native is None:
            return here
    where = here.on_node(HopKind.RULE)
    packet = Passing(walk, where, here.node, here.packet, context, bypass(walk, here))
    if not all(packet.passes(rules.traverse(t, chain, packet.context)) for t in tables):
        return None
    shown, last = packet.show_doubt(), packet.last
    if not shown and not quiet and last is not None and not rules.missing:
        walk.hop(
            *where,
            f"netfilter {chain}: accepted by {last.named(last.outcome.end)}",
            State.DERIVED,
            here.packet,
            last.proof(last.outcome.end),
            short=f"{chain}: accepted by {last.named(last.outcome.end)}",
        )
    if walk.forth is None and here.packet.outer is None:
        sure = not bypass(walk, here)
        walk.connections[here.node] = packet.context if sure else replace(packet.context, state="")
    return here.to(here.stage, netfilter=packet.context)


def _not_read(walk: PathBuilder, here: PacketState, chain: str, rules: HookTables) -> None:
    """Add the hop of rules that are not known; an entry of the newest attempt proves that it
    passed, since nf_conntrack keeps what has passed every hook."""
    attempt = walk.attempt
    seen = attempt is not None and attempt.now and attempt.flow.node == here.node
    seen = seen and (walk.forth is None or walk.answered_now())
    if attempt is not None and seen and attempt.flow.netfilter is not None:
        walk.hop(
            *here.on_node(HopKind.RULE), f"netfilter {chain}: passed, nf_conntrack has the flow",
            State.OBSERVED, here.packet, attempt.flow.evidence[-1:],
            short=f"{chain}: passed, nf_conntrack has the flow",
        )  # fmt: skip
        return
    walk.hop(
        *here.on_node(HopKind.RULE),
        f"netfilter {chain}",
        State.UNKNOWN,
        here.packet,
        cite.whole(rules.record),
        reason=rules.missing,
        decides=Decides.DROP
        if rules.printed
        else walk.if_unread(Decides.DROP, f"netfilter's rules on {here.node}"),
        fix=Fix(f"Read the rules on {here.node}.", "iptables-save -c; iptables-legacy-save -c"),
    )


def bypass(walk: PathBuilder, here: PacketState) -> str:
    """Return why it is not known that the packet passes netfilter at all, "" where it does.

    Args:
        walk: the walk.
        here: the packet in the node's stack.
    """
    node, flow = walk.cluster.node(here.node), here.packet.flow
    device = here.in_device if here.netfilter is None else here.netfilter.in_device or ""
    # BPF host routing forwards past the stack; what carries a packet, and what is for the node or
    # sent by it, is the stack's own either way.
    if here.packet.outer is not None or flow.destination in node.own_addresses:
        return ""
    if not device and flow.source in node.own_addresses:
        return ""
    of_pod = from_endpoint(node, device)
    if walk.forth is not None:
        of_pod = of_pod or node.local_endpoint(flow.destination) is not None
    if not of_pod or node.host_routing.bpf is not None:
        return ""
    return f"whether it passes the node's netfilter is not known: {node.host_routing.reason}"
