"""Transparent encryption between nodes: WireGuard's cilium_wg0, or IPsec.

Source: Cilium bpf/lib/wireguard.h (wg_maybe_redirect_to_encrypt, strict_allow), bpf/lib/encrypt.h:
a packet whose destination has a key in the ipcache is encrypted for that node; what a node itself
sends, only with node encryption.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.stages import ipsec, wireguard
from kubectl_ebpfnet.explain.path.stages.missing_programs import is_ciliums
from kubectl_ebpfnet.explain.path.stages.wireguard_peers import DEVICE
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.at_device import Presence
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import HOST, REMOTE_NODE, IpcacheEntry
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, State

_WIREGUARD_KEY = 255
"""The key that WireGuard's entries have (pkg/wireguard/types); IPsec's are 1 to 15."""

_KUBE_APISERVER = 7
"""Identity of nodes that run the API server (pkg/identity)."""


def encrypt(
    walk: PathBuilder, here: PacketState, node: NodeView, cilium: Presence
) -> PacketState | None:
    """Encrypt a packet for another node, where Cilium is set to; strict mode drops what is not.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
        cilium: whether cil_to_netdev, which gives packets to WireGuard, is at the device.

    Returns:
        The packet, in what travels in its place; None when it is dropped.
    """
    absent = cilium is Presence.ABSENT and is_ciliums(node, here.device)
    if absent and _key_of(walk, here, node)[0] == "wireguard":
        walk.doubt(f"no program at {here.device} gives it to WireGuard", Decides.WAY)
        return here
    sent = _encrypted(walk, here, node)
    if sent is None or sent.encrypted or not _must_be_encrypted(here, node):
        return sent
    target = here.packet.flow.destination
    entry = node.ipcache_of(target)
    walk.drop(
        *here.in_cilium(HopKind.PROGRAM),
        f"strict mode of encryption drops it: {target} has no key (Traffic is unencrypted)",
        State.DERIVED,
        here.packet,
        (cite.of(node[q.IPCACHE].record, entry.span) if entry is not None else ())
        or cite.whole(node[q.IPCACHE].record),
        title=f"strict mode of encryption on {here.node} drops it: {target} has no key",
        detail=f"What leaves unencrypted within {node.config.strict_encryption} is dropped, and "
        f"the ipcache of {here.node} has no key for {target}: the other node has no encryption, or "
        "this agent does not know of it yet.",
        proof=cite.whole(walk.cluster.settings_record),
        cause=f"the ipcache of {here.node} has no key for {target}, and strict mode drops what "
        "leaves unencrypted",
        fix=Fix(
            f"See that the node of {target} has encryption enabled, and what {here.node} knows of "
            "it.",
            node.in_agent(f"bpf ipcache get {target}"),
        ),
        object="ConfigMap cilium-config: encryption strict mode",
    )
    return None


def _must_be_encrypted(here: PacketState, node: NodeView) -> bool:
    """Tell whether strict mode, which is of IPv4 alone, drops a packet that leaves as it is."""
    strict, flow = node.config.strict_encryption, here.packet.flow
    if strict is None or here.packet.outer is not None or not node[q.IPCACHE].known:
        return False
    if node.config.encryption not in ("wireguard", "ipsec"):
        return False
    if flow.source in node.router_addresses | node.own_addresses:
        return False
    entry = node.ipcache_of(flow.destination)
    to_node = entry is not None and entry.identity in (HOST, REMOTE_NODE, _KUBE_APISERVER)
    if to_node and (node.config.strict_but_nodes or node.config.routing_mode == "tunnel"):
        return False
    return flow.source in strict and flow.destination in strict


def _encrypted(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
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
    mode, entry = _key_of(walk, here, node)
    if entry is None:
        return here
    if mode == "wireguard":
        return wireguard.seal(walk, here, node, entry)
    return ipsec.seal(walk, here, node, entry)


def _key_of(
    walk: PathBuilder, here: PacketState, node: NodeView
) -> tuple[str, IpcacheEntry | None]:
    """Return the mode and the ipcache's entry by which a packet is encrypted, None without one."""
    target = here.packet.flow.destination
    if node.config.encryption in ("disabled", "ztunnel") or not walk.cluster.in_cluster(target):
        return "", None
    entry = node.ipcache_of(target)
    mode = node.config.encryption or _mode(node, entry)
    if entry is None or not entry.encrypt_key or not mode or _of_the_node(walk, here, node):
        return "", None
    return mode, entry


def encrypted_before(walk: PathBuilder, here: PacketState, node: NodeView) -> str:
    """Return why it is not known that a packet comes to its egress device before it is encrypted,
    "" where it does: cil_to_netdev gives it to WireGuard there, and to IPsec since Cilium 1.18;
    before, the stack encrypts what cil_from_container has marked (bpf/lib/encrypt.h).

    Args:
        walk: the walk.
        here: the packet at its egress device.
        node: the device's node.
    """
    if here.packet.outer is not None or _key_of(walk, here, node)[0] != "ipsec":
        return ""
    return (
        f"whether it comes to {here.device} before IPsec encrypts it is not known: before Cilium "
        "1.18 it does not"
    )


def decrypt(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Decrypt a packet at the node that it was encrypted for.

    Args:
        walk: takes hops and findings.
        here: the encrypted packet; its device is the one that it came in by.
        node: the node.

    Returns:
        The packet as it was before, at the device that it comes out of; None when it is dropped.
    """
    if here.encrypted == wireguard.TITLE:
        return wireguard.unseal(walk, here, node)
    return ipsec.unseal(walk, here, node)


def _mode(node: NodeView, entry: IpcacheEntry | None) -> str:
    """Return the mode that an entry's key and the node's devices show where no setting says it."""
    if entry is None or not entry.encrypt_key:
        return ""
    by_device = node.link(DEVICE) is not None
    return "wireguard" if by_device or entry.encrypt_key == _WIREGUARD_KEY else "ipsec"


def _of_the_node(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether the packet is the node's own, which is encrypted with node encryption alone. A
    tunnel's packet is encrypted whoever sends it (since Cilium 1.15)."""
    own = here.identity == HOST or walk.from_node
    return own and here.packet.outer is None and not node.config.node_encryption


def _title(mode: str) -> str:
    return {"wireguard": wireguard.TITLE, "ipsec": ipsec.TITLE}.get(mode, mode)
