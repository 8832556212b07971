"""A packet's size at the places that it passes: each has its limit, which `--size` is held to."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel import mtu
from kubectl_ebpfnet.explain.kernel.mtu import Limit
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, Larger, State
from kubectl_ebpfnet.model.shell import word


def sent_by_pod(walk: PathBuilder, here: PacketState, netns: PodNetns, route: Route | None) -> bool:
    """Note how large a packet the source pod sends; return whether it sends this one.

    Args:
        walk: takes the sender, and the drop of a larger packet.
        here: the packet in the pod.
        netns: of the pod.
        route: that it takes, None where that was not read.
    """
    flow = here.packet.flow
    lookup = netns[q.FIB.about(*q.packet_words(flow.source, flow.destination))].facts
    learned = lookup[0].mtu if lookup else None
    if route is not None:
        walk.sends = mtu.sender_of_pod(walk.source_pod, netns, route, learned)
    return _is_sent(walk, here, walk.in_source_pod(HopKind.ROUTE))


def sent_by_node(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Note how large a packet the node itself sends; return whether it sends this one."""
    if walk.sends is not None or not walk.from_node or here.route is None:
        return True
    walk.sends = mtu.sender_of_node(node, here.route)
    return _is_sent(walk, here, here.on_node(HopKind.ROUTE))


def _is_sent(walk: PathBuilder, here: PacketState, where: Where) -> bool:
    sender, size = walk.sends, walk.size
    if size is None or (sender is not None and size <= sender.mtu):
        return True
    walk.outdate()  # what was answered was not of this size
    if sender is None:
        reason = f"how large a packet {where[1]} sends as one was not read"
        _not_read(walk, here, where, reason, Fix("Read it.", "ip link; ip route show table all"))
        return True
    own = sender.by.removeprefix("its ")
    said = f"{size} bytes are more than the sender's {own} takes (MTU {sender.mtu})"
    walk.drop(
        *where, f"{said}: its kernel does not send them as one", State.DERIVED, here.packet,
        sender.evidence,
        title=f"{sender.name}: {said}",
        detail="send() fails with EMSGSIZE; TCP sends smaller segments, and what may be fragmented "
        "goes in pieces.",
        fix=Fix(f"Send at most {sender.mtu} bytes at once."),
    )  # fmt: skip
    return False


def out_of_pod(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the packet pass from the pod to its host side device; return whether it does."""
    return passes(walk, here, mtu.coming_in(node, device, 0))


def out_of_node(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Let the packet pass the egress device of a node; return whether it does.

    Args:
        walk: takes the limit, and hops where it is exceeded.
        here: the packet at its egress device, with what encapsulates it.
        node: the node that it leaves.
    """
    larger = mtu.becomes(here.packet, here.encrypted, by_bpf=here.skips_netfilter)
    # Neither a redirect nor what encrypts looks at the MTU of the packet's own route.
    own = not here.encrypted and larger is not Larger.UNKNOWN
    return passes(
        walk, here, mtu.leaving(node, here.device, here.route if own else None, here.added, larger)
    )


def into_node(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the packet come in by a device of the receiving node; return whether it does."""
    return passes(walk, here, mtu.coming_in(node, device, here.added))


def into_pod(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Let the packet pass the host side device of the receiving pod; return whether it does."""
    larger = Larger.UNKNOWN if here.skips_netfilter else Larger.TOLD
    return passes(walk, here, mtu.leaving(node, device, None, 0, larger))


def passes(walk: PathBuilder, here: PacketState, limit: Limit) -> bool:
    """Note the limit of a place; return whether the packet of `--size` passes it, and report what
    becomes of one that is larger.

    Args:
        walk: takes the limit, and the hop.
        here: the packet.
        limit: of the place.
    """
    walk.limits.append(limit)
    if walk.size is None:
        return True
    where = here.on_node(HopKind.LINK)
    if limit.mtu is None:
        walk.outdate()
        reason = f"the MTU of {limit.device} of {limit.node} was not read"
        _not_read(walk, here, where, reason, Fix("Read it.", f"ip link show {word(limit.device)}"))
        return True
    size = walk.size + limit.added
    if limit.added and walk.pieces is not None:
        size = min(size, walk.pieces)
    if size <= limit.mtu + limit.beyond:
        return True
    if limit.larger is not Larger.FRAGMENTED:
        walk.outdate()
    said = f"{size} bytes are more than {limit.by} takes (MTU {limit.mtu})"
    fix = _fix(limit, size)
    if limit.larger is Larger.FRAGMENTED:
        walk.pieces = limit.mtu
        walk.hop(
            *where, f"{said}: the outer packet is sent in fragments", State.DERIVED, here.packet,
            limit.evidence,
        )  # fmt: skip
        return True
    if limit.larger is Larger.UNKNOWN:
        walk.hop(
            *where, said, State.UNKNOWN, here.packet, limit.evidence, decides=Decides.DROP, fix=fix,
            reason=f"whether {limit.device} of {limit.node} passes {size} bytes is not known: its "
            f"MTU is {limit.mtu}, and the driver decides",
        )  # fmt: skip
        return True
    told = "tells the sender by ICMP" if limit.larger is Larger.TOLD else "tells nobody"
    walk.drop(
        *where, f"{said}: {here.node} drops it and {told}", State.DERIVED, here.packet,
        limit.evidence, title=f"a packet of {walk.size} bytes is too large for {limit.text}",
        detail=f"{fix.text} `{fix.command}`", fix=fix, object=f"{limit.by} of node {limit.node}",
    )  # fmt: skip
    return False


def _not_read(walk: PathBuilder, here: PacketState, where: Where, reason: str, fix: Fix) -> None:
    """Leave it open whether a place takes the packet of `--size`."""
    walk.hop(
        *where, f"a packet of {walk.size} bytes", State.UNKNOWN, here.packet, reason=reason,
        decides=Decides.DROP, fix=fix,
    )  # fmt: skip


def _fix(limit: Limit, size: int) -> Fix:
    text = f"Send at most {limit.fits} bytes, or raise the MTU of {limit.by} on {limit.node}."
    if limit.by != limit.device:
        return Fix(text, f"ip route show table all | grep 'mtu {limit.mtu}'")
    return Fix(text, f"ip link set {word(limit.device)} mtu {size}")
