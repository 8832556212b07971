"""WireGuard between nodes: cilium_wg0 of the sender, and cilium_wg0 of the receiver.

Sources: Linux drivers/net/wireguard (wireguard_peers.py has more); Cilium pkg/wireguard/agent.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.marks import Mark
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.stages import losses, outer
from kubectl_ebpfnet.explain.path.stages import wireguard_peers as peers
from kubectl_ebpfnet.explain.path.stages.program_hops import show_programs
from kubectl_ebpfnet.explain.path.stages.wireguard_peers import DEVICE, PeerFault
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.at_device import at_device
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import IpcacheEntry
from kubectl_ebpfnet.model.encryption import WireGuardPeer
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    Fix,
    HopKind,
    Outcome,
    Severity,
    State,
)

PORT, TITLE = 51871, "WireGuard"
_MARK = 0x0E00
"""MARK_MAGIC_ENCRYPT, which the device puts on what it sends (Cilium pkg/wireguard/agent)."""


def seal(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry
) -> PacketState | None:
    """Encrypt a packet by the node's WireGuard device.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node.
        entry: of the packet's destination in the ipcache.

    Returns:
        The packet in WireGuard's, at the device by which that leaves; None when it is dropped.
    """
    link = node.link(DEVICE)
    evidence = cite.of(node[q.IPCACHE].record, entry.span) + _of_device(node)
    if _is_down(walk, here, node, evidence):
        return None
    if link is None and node[q.LINKS].known:
        walk.hop(
            *here.in_cilium(HopKind.TUNNEL, DEVICE), "encrypted by WireGuard", State.UNKNOWN,
            here.packet, evidence, reason=f"{here.node} has no {DEVICE}", decides=Decides.DROP,
        )  # fmt: skip
        return here
    here = _without_tunnel(here, node)
    flow = here.packet.outer or here.packet.flow
    end = entry.tunnel_endpoint or flow.destination
    far = outer.far_node(walk, here, end)
    fault = peers.of_sender(walk.cluster, node, far, flow.destination)
    if fault is not None:
        _drop(walk, here, fault)
        return None
    peer, own = peers.peer_for(node, flow.destination), peers.device_of(node)
    port = PORT
    if peer is None:
        walk.presumed.add(f"the peers of {DEVICE} on {here.node} (a node pod reads them)")
    else:
        end, port = peer.endpoint or end, peer.port or port
        evidence += cite.of(node[q.WIREGUARD_PEERS].record, peer.span)
    source = outer.node_address(walk, here.node, end.version)
    sealed = here.to(here.stage, encrypted=TITLE)
    if source is not None:
        own_port = (own.port if own is not None else None) or PORT
        packet = replace(here.packet, outer=Flow(UDP, source, own_port, end, port), vni=None)
        sealed = sealed.to(here.stage, packet=packet, sealed=here.packet)
    if at_device(node, DEVICE, "egress").programs:  # cil_to_wireguard since Cilium 1.17
        show_programs(walk, here, DEVICE, "egress")
    if not losses.sends(walk, here, node, DEVICE):
        return None
    _say(walk, sealed, address_text(walk.cluster, end), port, peer, evidence)
    if peer is None:
        _doubt_key(walk, here, far)
    if source is None:
        return sealed
    mark = own.mark if own is not None and own.mark is not None else _MARK
    return outer.leave(walk, sealed, node, Mark(mark))


def _without_tunnel(here: PacketState, node: NodeView) -> PacketState:
    """Return the packet as Cilium before 1.15 gives it to WireGuard, which its peers show: what has
    a key does not go into the tunnel, and only the pods' addresses are allowed."""
    packet = here.packet
    if packet.outer is None or peers.peer_for(node, packet.outer.destination) is not None:
        return here
    if peers.peer_for(node, packet.flow.destination) is None:
        return here
    return here.to(here.stage, packet=replace(packet, outer=None, vni=None))


def _of_device(node: NodeView) -> tuple[Evidence, ...]:
    link = node.link(DEVICE)
    return cite.of(node[q.LINKS].record, link.span.head()) if link is not None else ()


def _is_down(
    walk: PathBuilder, here: PacketState, node: NodeView, evidence: tuple[Evidence, ...]
) -> bool:
    """Drop the packet where a node's device is down."""
    link = node.link(DEVICE)
    if link is None or link.up:
        return False
    walk.drop(
        *here.on_node(HopKind.LINK),
        f"{DEVICE} is down",
        State.OBSERVED,
        here.packet,
        evidence,
        title=f"{DEVICE} of {here.node} is down",
        detail=f"`ip link set {DEVICE} up` on the node, or restart its agent.",
        fix=Fix(f"Set the device of node {here.node} up.", f"ip link set {DEVICE} up"),
    )
    return True


def _drop(walk: PathBuilder, here: PacketState, fault: PeerFault) -> None:
    """Drop the packet for a peer that the node's agent has set wrong, or not at all."""
    walk.drop(
        *here.in_cilium(HopKind.TUNNEL, DEVICE),
        fault.what,
        State.DERIVED,
        here.packet,
        fault.evidence,
        title=f"WireGuard of {here.node}: {fault.what}",
        detail=f"{fault.why}. Cilium's agent sets the peers by the CiliumNode objects "
        "(annotation network.cilium.io/wg-pub-key): see its log, and restart it.",
        cause=fault.why,
        fix=restart(here.node),
        object=f"peers of {DEVICE} on {here.node}",
    )


def restart(node: str) -> Fix:
    """Return how to let a node's agent set what it keeps in the kernel anew."""
    return Fix(
        f"Restart Cilium's agent on {node}: it sets keys and peers anew.",
        f"kubectl delete pod -n kube-system -l k8s-app=cilium {commands.pods_on(node)}",
    )


def _say(
    walk: PathBuilder,
    here: PacketState,
    end: str,
    port: int,
    peer: WireGuardPeer | None,
    evidence: tuple[Evidence, ...],
) -> None:
    """Add the hop of the sender's device."""
    what, handshake = f"UDP port {port}", ""
    if peer is not None:
        age = peer.handshake_age
        handshake = ", no handshake yet" if age is None else f", latest handshake {age} s ago"
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL, DEVICE),
        f"encrypted by WireGuard for {end}: only {what} travels between the nodes{handshake}",
        State.DERIVED,
        here.packet,
        evidence,
    )
    inner = here.sealed or here.packet
    walk.finding(
        Severity.INFO,
        f"WireGuard encrypts it between the nodes: a firewall there sees {what} alone",
        f"What tcpdump or a filter on the wire shows of {inner.outer or inner.flow} is {what}.",
        evidence,
    )


def _doubt_key(walk: PathBuilder, here: PacketState, far: str) -> None:
    """Say where the other nodes learn another key of a node than it has: their peers follow the
    CiliumNode objects."""
    device = peers.device_of(walk.cluster.node(far))
    said = (node.wireguard_key for node in walk.cluster.cilium_nodes if node.name == far)
    announced = next(said, "")
    if device is None or not device.public_key or announced in ("", device.public_key):
        return
    if walk.answered_now():
        return
    reason = (
        f"CiliumNode {far} announces the WireGuard key {announced}, and {DEVICE} of {far} has "
        f"{device.public_key}: which one {here.node} sends with is not known"
    )
    walk.doubt(reason, fix=restart(far))
    walk.finding(
        Severity.WARNING,
        f"CiliumNode {far} announces another WireGuard key than {far} has",
        f"{reason}. A restart of {far}'s agent writes the object anew.",
        cite.of(walk.cluster.node(far)[q.WIREGUARD].record, device.span),
    )


def unseal(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Decrypt a packet by the receiving node's device; see `encryption.decrypt`."""
    packet, sent = here.sealed, here.packet.outer
    assert packet is not None
    assert sent is not None
    if _is_down(walk, here, node, _of_device(node)):
        return None
    sender = walk.cluster.node(walk.cluster.node_of(sent.source))
    fault = peers.of_receiver(node, sender, (packet.outer or packet.flow).source)
    if fault is not None:
        _drop(walk, here, fault)
        return None
    own = peers.device_of(sender)
    peer = peers.peer_with(node, own.public_key) if own is not None else None
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL, DEVICE),
        f"decrypted by {DEVICE}",
        State.DERIVED,
        packet,
        _of_device(node)
        + (cite.of(node[q.WIREGUARD_PEERS].record, peer.span) if peer is not None else ()),
    )
    _doubt_handshake(walk, here, sender)
    inside = here.to(here.stage, packet=packet, sealed=None, encrypted="")
    show_programs(walk, inside, DEVICE, "ingress")
    return inside.to(here.stage, device=DEVICE)


def _doubt_handshake(walk: PathBuilder, here: PacketState, sender: NodeView) -> None:
    """Say where handshakes fail though keys, ports and rules of both nodes are right."""
    inner, sent = here.sealed, here.packet.outer
    assert inner is not None
    assert sent is not None
    peer = peers.peer_for(sender, (inner.outer or inner.flow).destination)
    if peer is None or walk.answered_now():
        return
    attempt = walk.attempt
    tried = attempt is not None and attempt.now and attempt.outcome is Outcome.UNANSWERED
    if peer.handshake_age is None and peer.sent:
        said = f"{DEVICE} of {sender.name} sent {peer.sent} bytes and got no handshake answered"
    elif not peers.is_fresh(peer) and peer.handshake_age is not None and tried:
        said = (
            f"{DEVICE} of {sender.name} has had no handshake for {peer.handshake_age} s, though "
            "this flow was sent within the last minute"
        )
    else:
        return
    port = f"UDP port {sent.destination_port}"
    reason = f"{said}: whether {port} gets from {sender.name} to {here.node} and back is not known"
    fix = Fix(
        f"See on {here.node} whether it arrives: a firewall between the nodes may drop it.",
        f"tcpdump -ni any udp port {sent.destination_port} and host {sent.source}",
    )
    walk.doubt(reason, fix=fix)
    walk.finding(
        Severity.WARNING,
        f"no WireGuard handshake between {sender.name} and {here.node}",
        f"{reason}. `{fix.command}` on {here.node} shows it.",
        cite.of(sender[q.WIREGUARD_PEERS].record, peer.span),
    )
