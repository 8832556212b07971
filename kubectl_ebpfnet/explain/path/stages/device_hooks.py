"""Base chains of nftables at a device: netdev and inet ingress, netdev egress, and a bridge's.

What comes in meets XDP, then tc (or tcx), then ingress: what a program of Cilium's redirects never
comes there. What leaves meets egress, then tc (Linux net/core/dev.c, __netif_receive_skb_core and
__dev_queue_xmit); what tc redirects to a device meets no egress there (nf_skip_egress in
include/linux/netfilter_netdev.h). Neither stands behind connection tracking of this packet's way
in.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.path.stages import hooks
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables, tables_of
from kubectl_ebpfnet.explain.path.stages.rule_hops import Passing
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.nft import NftChain
from kubectl_ebpfnet.model.path import HopKind

_OF_A_BRIDGE = {"ingress": ("prerouting", "input"), "egress": ("output", "postrouting")}


def pass_device(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    device: str,
    direction: str,
    bypass: str = "",
) -> PacketState | None:
    """Pass nftables' chains at a device of a node; return the packet as it goes on, with its mark
    then, or None where it is lost.

    Args:
        walk: takes the hop of a chain that drops the packet, or may.
        here: the packet on the node, or in its tunnel.
        node: the node.
        device: its name.
        direction: `ingress` or `egress`.
        bypass: why it is not known that the packet comes there, "" where it does.
    """
    flow = here.packet.outer or here.packet.flow
    if direction == "egress" and here.skips_netfilter and here.packet.outer is None:
        return here  # a program redirected it to the device
    rules = tables_of(node, flow.destination.version)
    link = node.link(device)
    bridge = link is not None and link.kind == "bridge"
    chains = device_chains(rules, device, direction, bridge=bridge)
    if not chains:
        return here
    inside = here.packet.outer is None
    context = here.netfilter or hooks.entering(walk, here, node)
    bypass = bypass or (hooks.bypass(walk, here) if inside else "")
    where, context = here.on_node(HopKind.RULE), replace(context, flow=flow)
    passing = Passing(walk, where, here.node, here.packet, context, bypass)
    if not pass_chains(passing, rules, chains, device, direction):
        return None
    if not inside or here.netfilter is None:
        return here
    mark, by = passing.context.mark, passing.context.marked_by
    return here.to(here.stage, netfilter=replace(here.netfilter, mark=mark, marked_by=by))


def device_chains(
    rules: HookTables, device: str, direction: str, *, bridge: bool = False
) -> list[NftChain]:
    """Return nftables' chains at a device in the kernel's order.

    Args:
        rules: of the device's namespace.
        device: its name.
        direction: `ingress` or `egress`.
        bridge: it is a bridge, so that the family bridge sees its packets.
    """
    if rules.native is None:
        return []
    own = [
        chain
        for chain in rules.native.chains
        if chain.hook == direction and (device in chain.devices or not chain.devices)
    ]
    hooks_of_bridge = _OF_A_BRIDGE[direction] if bridge else ()
    of_bridge = [
        chain
        for hook in hooks_of_bridge
        for chain in sorted(rules.native.chains, key=lambda each: each.priority)
        if chain.family == "bridge" and chain.hook == hook
    ]
    own.sort(key=lambda each: each.priority)
    return own + of_bridge if direction == "ingress" else of_bridge + own


def pass_chains(
    passing: Passing, rules: HookTables, chains: list[NftChain], device: str, direction: str
) -> bool:
    """Pass chains at a device; return whether the packet goes on.

    Args:
        passing: the packet.
        rules: of the device's namespace.
        chains: of `device_chains`.
        device: its name.
        direction: `ingress` or `egress`.
    """
    if rules.native is None:
        return True
    bypass = passing.bypass
    for chain in chains:
        if chain.hook == direction and not chain.devices:  # nft before 1.0.7 alone told of it
            passing.bypass = bypass or f"nft did not print at which device {chain.title} is"
        context = at_device(passing.context, chain, device, direction)
        if not passing.passes([rules.native.traverse(chain, context)]):
            return False
        passing.bypass = bypass
    passing.show_doubt()
    return True


def at_device(context: Context, chain: NftChain, device: str, direction: str) -> Context:
    """Return a packet as a chain at a device sees it: on its way in before connection tracking; the
    port of a bridge is not known.

    Args:
        context: the packet.
        chain: at the device.
        device: its name.
        direction: `ingress` or `egress`.
    """
    named = None if chain.family == "bridge" else device
    if direction == "ingress":
        return replace(context, in_device=named, out_device="", tracked=False)
    return replace(context, in_device="" if named else None, out_device=named)
