"""Transparent encryption between nodes: WireGuard's cilium_wg0, or IPsec.

Source: Cilium bpf/lib/wireguard.h (wg_maybe_redirect_to_encrypt), bpf/lib/encrypt.h: a packet whose
destination has a key in the ipcache is encrypted for that node; what a node itself sends, only with
node encryption.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import HOST, IpcacheEntry
from kubectl_ebpfnet.model.path import Decides, HopKind, Severity, State

WIREGUARD_DEVICE, WIREGUARD_PORT = "cilium_wg0", 51871
_WIREGUARD_KEY = 255
"""The key that WireGuard's entries have (pkg/wireguard/types); IPsec's are 1 to 15."""


def encrypt(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Encrypt a packet for another node, where Cilium is set to.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.

    Returns:
        The packet, with what travels in its place; None when it is dropped.
    """
    target = here.packet.flow.destination
    if node.config.encryption in ("disabled", "ztunnel") or not walk.cluster.in_cluster(target):
        return here
    if not node[q.IPCACHE].known and node.config.encryption:
        walk.hop(
            *here.in_cilium(HopKind.TUNNEL),
            f"encrypted by {_title(node.config.encryption)}, or not",
            State.UNKNOWN,
            here.packet,
            cite.whole(node[q.IPCACHE].record),
            reason=f"whether {target} has a key is not known: {node[q.IPCACHE].missing}",
            decides=Decides.DROP,
        )
        return here
    entry = node.ipcache_of(target)
    mode = node.config.encryption or _mode(node, entry)
    if entry is None or not entry.encrypt_key or not mode or _of_the_node(walk, here, node):
        return here
    return _encrypted(walk, here, node, entry, mode)


def _mode(node: NodeView, entry: IpcacheEntry | None) -> str:
    """Return the mode that an entry's key and the node's devices show where no setting says it."""
    if entry is None or not entry.encrypt_key:
        return ""
    wireguard = entry.encrypt_key == _WIREGUARD_KEY or node.link(WIREGUARD_DEVICE) is not None
    return "wireguard" if wireguard else "ipsec"


def _of_the_node(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether the packet is the node's own, which is encrypted with node encryption alone."""
    own = here.identity == HOST or walk.from_node
    return own and not node.config.node_encryption


def _encrypted(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry, mode: str
) -> PacketState | None:
    flow = here.packet.outer or here.packet.flow
    evidence = cite.of(node[q.IPCACHE].record, entry.span)
    device = WIREGUARD_DEVICE if mode == "wireguard" else here.device
    link = node.link(WIREGUARD_DEVICE) if mode == "wireguard" else None
    where = here.in_cilium(HopKind.TUNNEL, device)
    if link is not None:
        evidence += cite.of(node[q.LINKS].record, link.span.head())
    if link is not None and not link.up:
        walk.drop(
            *here.on_node(HopKind.LINK),
            f"{WIREGUARD_DEVICE} is down",
            State.OBSERVED,
            here.packet,
            evidence,
            title=f"{WIREGUARD_DEVICE} of {here.node} is down",
            detail=f"`ip link set {WIREGUARD_DEVICE} up` on the node, or restart its agent.",
        )
        return None
    if mode == "wireguard" and link is None and node[q.LINKS].known:
        walk.hop(
            *where, "encrypted by WireGuard", State.UNKNOWN, here.packet, evidence,
            reason=f"{here.node} has no {WIREGUARD_DEVICE}", decides=Decides.DROP,
        )  # fmt: skip
        return here
    what = f"UDP port {WIREGUARD_PORT}" if mode == "wireguard" else "ESP (IP protocol 50)"
    end = address_text(walk.cluster, entry.tunnel_endpoint or flow.destination)
    walk.hop(
        *where,
        f"encrypted by {_title(mode)} for {end}: only {what} travels between the nodes",
        State.DERIVED,
        here.packet,
        evidence,
    )
    walk.finding(
        Severity.INFO,
        f"{_title(mode)} encrypts it between the nodes: a firewall there sees {what} alone",
        f"What tcpdump or a filter on the wire shows of {flow} is {what}.",
        evidence,
    )
    return here.to(here.stage, encrypted=f"{_title(mode)}, {what}")


def _title(mode: str) -> str:
    return {"wireguard": "WireGuard", "ipsec": "IPsec"}.get(mode, mode)
