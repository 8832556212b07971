"""netfilter and a tunnel's outer packet, which is a packet of the nodes themselves."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.marks import NO_MARK, Mark
from kubectl_ebpfnet.explain.path.stages import hooks
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views.node import NodeView

_NOT_CILIUMS = 0xF000
"""Bits of a mark that no program of Cilium sets (bpf/lib/common.h, MARK_MAGIC_*)."""


def may_leave(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the outer packet pass OUTPUT and POSTROUTING; return whether it goes on.

    Args:
        walk: takes the hop of a rule that drops it, or may.
        here: the packet in the tunnel.
        node: the node that sends it.
        device: by which it leaves.
    """
    mark = Mark(0, _NOT_CILIUMS)
    after = ("POSTROUTING", ("mangle", "filter"))
    output = (("OUTPUT", ("raw", "mangle", "filter")), after)
    return _passes(walk, here, node, _context(here, node, "", device, mark), output)


def may_come_in(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the outer packet pass PREROUTING and INPUT; return whether it goes on.

    Args:
        walk: takes the hop of a rule that drops it, or may.
        here: the packet in the tunnel.
        node: the node that receives it.
        device: by which it comes in.
    """
    before = ("PREROUTING", ("raw", "mangle", "filter"))
    chains = (before, ("INPUT", ("mangle", "filter")))
    return _passes(walk, here, node, _context(here, node, device, "", NO_MARK), chains)


def _context(
    here: PacketState, node: NodeView, in_device: str, out_device: str, mark: Mark
) -> Context:
    assert here.packet.outer is not None
    own = node.own_addresses or None
    return Context(here.packet.outer, in_device, out_device, mark, local=own, bridged=False)


def _passes(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    context: Context,
    chains: tuple[tuple[str, tuple[str, ...]], ...],
) -> bool:
    passed: PacketState | None = here.to(here.stage, netfilter=context)
    for chain, tables in chains:
        if passed is not None:
            passed = hooks.passes(walk, passed, node, chain, tables, quiet=True)
    return passed is not None
