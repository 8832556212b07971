"""A WireGuard peer of Cilium's: which one takes a packet, and what is wrong with it.

The sender's peer is the one whose allowed addresses hold the destination, by the longest prefix.
The receiver takes a packet whose sender's key it knows, if the source inside is among the allowed
addresses of that peer. A handshake of the last 180 s (REJECT_AFTER_TIME) shows that both keys and
both ways were right then; an idle pair has none, since Cilium sets no keepalive.

Sources: Linux drivers/net/wireguard/device.c (wg_xmit), allowedips.c, receive.c, messages.h; Cilium
pkg/wireguard/agent (UpdatePeer: the peers' keys are those of the CiliumNode objects).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.encryption import WireGuardDevice, WireGuardPeer
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence

DEVICE = "cilium_wg0"
VALID_S = 180
"""Seconds for which a session is used after its handshake."""


@dataclass(frozen=True, slots=True)
class PeerFault:
    """What is wrong with a peer: in a few words, in one sentence with its reason, and the proof."""

    what: str
    why: str
    evidence: tuple[Evidence, ...]


def device_of(node: NodeView) -> WireGuardDevice | None:
    """Return Cilium's device of a node, None where it has none or was not read."""
    return next((each for each in node[q.WIREGUARD].facts if each.name == DEVICE), None)


def peer_for(node: NodeView, target: Address) -> WireGuardPeer | None:
    """Return the peer of a node's device that takes a destination: each prefix has one peer."""
    holding = [
        (prefix.prefixlen, number, peer)
        for number, peer in enumerate(_peers(node))
        for prefix in peer.allowed
        if target in prefix
    ]
    return max(holding)[2] if holding else None


def peer_with(node: NodeView, key: str) -> WireGuardPeer | None:
    """Return the peer of a node's device that has a public key."""
    return next((peer for peer in _peers(node) if key and peer.public_key == key), None)


def _peers(node: NodeView) -> list[WireGuardPeer]:
    return [peer for peer in node[q.WIREGUARD_PEERS].facts if peer.device == DEVICE]


def is_fresh(peer: WireGuardPeer) -> bool:
    """Tell whether a handshake shows that keys, addresses and ports are right."""
    return peer.handshake_age is not None and peer.handshake_age < VALID_S


def of_sender(cluster: ClusterView, node: NodeView, far: str, target: Address) -> PeerFault | None:
    """Return why a node's device cannot send to another node; None where nothing shows it.

    Args:
        cluster: all nodes.
        node: the sender.
        far: name of the receiver, "" where it is not known.
        target: destination of the packet that is to be encrypted.
    """
    answer, peer = node[q.WIREGUARD_PEERS], peer_for(node, target)
    if not answer.known:
        return None
    if peer is None:
        return PeerFault(
            f"no peer of {DEVICE} takes {target}",
            f"{DEVICE} of {node.name} has no peer whose allowed addresses hold {target}"
            + (f" of {far}" if far else ""),
            cite.whole(answer.record),
        )
    evidence = cite.of(answer.record, peer.span)
    if peer.endpoint is None:
        why = f"{DEVICE} of {node.name} does not know where its peer for {target} is"
        return PeerFault(f"the peer of {DEVICE} for {target} has no endpoint", why, evidence)
    receiver = cluster.node(far)
    device = device_of(receiver)
    if is_fresh(peer) or device is None:
        return None
    evidence += cite.of(receiver[q.WIREGUARD].record, device.span)
    if device.public_key and device.public_key != peer.public_key:
        return PeerFault(
            f"{DEVICE} has another key for {far} than {far} itself",
            f"{DEVICE} of {node.name} has the public key {peer.public_key} for {far}, whose own is "
            f"{device.public_key}, and no handshake is recent",
            evidence,
        )
    return _sent_elsewhere(cluster, node, receiver, peer, device, evidence)


def _sent_elsewhere(
    cluster: ClusterView,
    node: NodeView,
    receiver: NodeView,
    peer: WireGuardPeer,
    device: WireGuardDevice,
    evidence: tuple[Evidence, ...],
) -> PeerFault | None:
    """Return that a peer's endpoint is not where its node receives: another port of the node's
    address, or an address of another node. Any other address may be translated to it."""
    assert peer.endpoint is not None
    named = cluster.kube_node(receiver.name)
    own = {a for a in receiver.own_addresses if not a.is_loopback}
    own |= set(named.internal_addresses if named is not None else ())
    if peer.endpoint in own:
        elsewhere = device.port is not None and peer.port != device.port
    else:
        elsewhere = cluster.node_of(peer.endpoint) not in ("", receiver.name)
    if not elsewhere:
        return None
    end = f"{peer.endpoint} port {peer.port}"
    return PeerFault(
        f"{DEVICE} sends to {end}, where {receiver.name} does not receive",
        f"{DEVICE} of {node.name} sends to {end}, {receiver.name} receives at port {device.port} "
        "of its own addresses, and no handshake is recent",
        evidence,
    )


def of_receiver(node: NodeView, sender: NodeView, source: Address) -> PeerFault | None:
    """Return why a node's device refuses what another node sends; None where nothing shows it.

    Args:
        node: the receiver.
        sender: the other node.
        source: of the packet inside.
    """
    answer, device = node[q.WIREGUARD_PEERS], device_of(sender)
    if not answer.known or device is None or not device.public_key:
        return None
    peer = peer_with(node, device.public_key)
    of_sender = cite.of(sender[q.WIREGUARD].record, device.span)
    if peer is None:
        return PeerFault(
            f"{DEVICE} has no peer with the key of {sender.name}",
            f"{DEVICE} of {node.name} has no peer with {sender.name}'s public key "
            f"{device.public_key}",
            cite.whole(answer.record) + of_sender,
        )
    if peer_for(node, source) is peer:
        return None
    return PeerFault(
        f"{DEVICE} does not take {source} from {sender.name}",
        f"{DEVICE} of {node.name} lacks {source} among the allowed addresses of its peer for "
        f"{sender.name}",
        cite.of(answer.record, peer.span) + of_sender,
    )
