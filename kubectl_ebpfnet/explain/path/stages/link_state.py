"""A device that is down, or has no carrier, drops what is to pass it, on the way out and in."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.devices import why_down
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.path import Evidence, Fix, HopKind, State
from kubectl_ebpfnet.model.shell import word

_KEEP = ("ifindex", "ifname", "flags", "mtu", "operstate", "address")


def link_evidence(node: NodeView, *devices: str) -> tuple[Evidence, ...]:
    """Cite devices in the record of links."""
    links = (node.link(device) for device in devices)
    spans = [link.span.head() for link in links if link is not None]
    return cite.of(node[q.LINKS].record, *spans, keep=_KEEP)


def takes_packets(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str, called: str
) -> bool:
    """Tell whether a device of a node takes packets, and drop the packet where it does not.

    Args:
        walk: takes the drop.
        here: the packet on the node.
        node: the node.
        device: by which the packet comes or goes; one that was not read is taken to be up.
        called: the device in the finding's title, e.g. `device eth0 of node a`.
    """
    down = why_down(node[q.LINKS].facts, device)
    if down is None:
        return True
    cause = down.causes[0]
    causes = " and ".join(down.causes)
    if down.links[-1].up:  # nothing on this node is down
        fix = Fix(
            f"See what {cause} of node {here.node} is joined to: its cable, switch or peer.",
            f"ip -s -d link show {word(cause)}",
        )
    else:
        fix = Fix(f"Set {causes} of node {here.node} up.", f"ip link set {word(cause)} up")
    said = down.what.removeprefix(f"{device} ")
    walk.drop(
        *here.on_node(HopKind.LINK), down.what, State.OBSERVED, here.packet,
        link_evidence(node, *(link.name for link in down.links)),
        title=f"{called} {said}", detail=f"`{fix.command}` on {here.node}.", fix=fix,
    )  # fmt: skip
    return False
