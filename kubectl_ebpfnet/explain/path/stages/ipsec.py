"""IPsec between nodes: the states (security associations) of the sender and of the receiver.

The sender's state names the ends of the ESP packet and the SPI, which is the key's number in the
ipcache; the receiver finds its own by destination, SPI and protocol. Keys are never read, so
whether they are the same shows in the receiver's counters alone (XfrmInStateProtoError).

In tunnel mode ESP may travel in VXLAN, between the nodes' cilium_host addresses, or VXLAN in ESP,
between the nodes' own: the states tell which.

Sources: Linux net/xfrm/xfrm_output.c, xfrm_input.c, Documentation/networking/xfrm_proc.rst; Cilium
pkg/datapath/linux/ipsec.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path.stages import ipsec_policies, outer
from kubectl_ebpfnet.explain.path.stages.wireguard import restart
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import IpcacheEntry
from kubectl_ebpfnet.model.encryption import XfrmState
from kubectl_ebpfnet.model.net import ESP, Address, Flow
from kubectl_ebpfnet.model.path import Decides, Evidence, HopKind, Packet, Severity, State

TITLE = "IPsec"
_LIST = "ip -s xfrm state list nokeys"
_WHAT = "ESP (IP protocol 50)"
_COUNTERS = {
    "XfrmInNoStates": "ESP came with an SPI that the node has no state for",
    "XfrmInStateProtoError": "the integrity check failed: the nodes have different keys",
    "XfrmInStateMismatch": "a state was found that is not for this packet",
    "XfrmInStateSeqError": "a sequence number was old, or repeated",
    "XfrmInNoPols": "no policy takes what was decrypted",
    "XfrmInPolBlock": "a policy drops what was decrypted",
    "XfrmInTmplMismatch": "a policy wants another state",
    "XfrmOutNoStates": "a policy wants encryption, and no state does it",
    "XfrmOutPolBlock": "a policy drops what is sent",
    "XfrmOutStateExpired": "the sender's state has expired",
    "XfrmInStateExpired": "the receiver's state has expired",
}
"""Counters of /proc/net/xfrm_stat, and what they mean; others are shown by their name."""


def seal(
    walk: PathBuilder, here: PacketState, node: NodeView, entry: IpcacheEntry
) -> PacketState | None:
    """Encrypt a packet by the node's IPsec; see `wireguard.seal`."""
    flow = here.packet.outer or here.packet.flow
    end = entry.tunnel_endpoint or flow.destination
    far = outer.far_node(walk, here, end)
    evidence = cite.of(node[q.IPCACHE].record, entry.span)
    states = node[q.XFRM]
    _count(walk, node)
    if not states.known:
        walk.presumed.add(f"IPsec's states on {here.node} (`{_LIST}`)")
        encrypted = ipsec_policies.lets_out(walk, here, node, None, restart(here.node))
        if not encrypted:
            return here if encrypted is False else None
        _hop(walk, here, address_text(walk.cluster, end), evidence)
        return here.to(here.stage, encrypted=TITLE)
    ends, version = _ends(walk, far, end), flow.destination.version
    leading = [state for state in states.facts if state.destination in ends]
    state = _used([s for s in leading if s.destination.version == version], entry.encrypt_key)
    encrypted = ipsec_policies.lets_out(walk, here, node, state, restart(here.node))
    if not encrypted:
        return here if encrypted is False else None
    if not leading and not _of_nobody(walk, states.facts):
        what = f"no IPsec state leads to {far or end}"
        _drop(walk, here, what, evidence + cite.whole(states.record))
        return None
    if state is None:
        walk.hop(
            *here.in_cilium(HopKind.TUNNEL),
            f"encrypted by IPsec for {address_text(walk.cluster, end)}",
            State.UNKNOWN,
            here.packet,
            evidence + cite.whole(states.record),
            reason=f"which state of {here.node} encrypts it is not known: none of IPv{version} is "
            f"certainly the one for {far or end} with SPI {entry.encrypt_key}",
            decides=Decides.DROP,
        )
        return here.to(here.stage, encrypted=TITLE)
    evidence += cite.of(states.record, state.span)
    between_nodes = state.destination in walk.cluster.node_addresses - _routers(walk, far)
    sealed = here.to(here.stage, encrypted=TITLE)
    if not between_nodes:
        _hop(walk, here, address_text(walk.cluster, end), evidence, state)
        return sealed
    packet = replace(here.packet, outer=Flow(ESP, state.source, None, state.destination, None))
    sealed = sealed.to(sealed.stage, packet=packet, sealed=here.packet)
    _hop(walk, sealed, address_text(walk.cluster, state.destination), evidence, state)
    return outer.leave(walk, sealed, node)


def _used(found: list[XfrmState], key: int) -> XfrmState | None:
    """Return the state that encrypts: the one of the ipcache's key, or the only one; while keys are
    changed, Cilium takes the older of both nodes' (get_min_encrypt_key)."""
    named = [state for state in found if state.spi == key]
    if not named and len({state.spi for state in found}) > 1:
        return None
    return next(iter(named or found), None)


def _of_nobody(walk: PathBuilder, states: tuple[XfrmState, ...]) -> bool:
    """Tell whether a state leads to an address that no known node has."""
    return any(not walk.cluster.node_of(state.destination) for state in states)


def _routers(walk: PathBuilder, name: str) -> frozenset[Address]:
    """Return the addresses of a node's cilium_host."""
    named = [node.router_addresses for node in walk.cluster.cilium_nodes if node.name == name]
    known = (address for addresses in named for address in addresses)
    return frozenset(known) | walk.cluster.node(name).router_addresses


def _ends(walk: PathBuilder, name: str, end: Address) -> frozenset[Address]:
    """Return all addresses of a node."""
    named = [node.addresses for node in walk.cluster.cilium_nodes if node.name == name]
    kube_node = walk.cluster.kube_node(name)
    known = {address for addresses in named for address in addresses}
    known |= set(kube_node.internal_addresses if kube_node is not None else ())
    return frozenset(known | {end}) | _routers(walk, name)


def _hop(
    walk: PathBuilder,
    here: PacketState,
    end: str,
    evidence: tuple[Evidence, ...],
    state: XfrmState | None = None,
) -> None:
    spi = f" with SPI {state.spi}" if state is not None else ""
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL),
        f"encrypted by IPsec{spi} for {end}: only {_WHAT} travels between the nodes",
        State.DERIVED,
        here.packet,
        evidence,
    )
    walk.finding(
        Severity.INFO,
        f"IPsec encrypts it between the nodes: a firewall there sees {_WHAT} alone",
        f"What tcpdump or a filter on the wire shows of {here.packet.flow} is {_WHAT}.",
        evidence,
    )


def _drop(walk: PathBuilder, here: PacketState, what: str, evidence: tuple[Evidence, ...]) -> None:
    walk.drop(
        *here.in_cilium(HopKind.TUNNEL),
        what,
        State.DERIVED,
        here.packet,
        evidence,
        title=f"IPsec of {here.node}: {what}",
        detail="Cilium's agent sets the states by its key file and the CiliumNode objects: see its "
        f"log, `{_LIST}` and /proc/net/xfrm_stat on the node, and restart it.",
        cause=f"{what} on {here.node}",
        fix=restart(here.node),
        object=f"IPsec state on {here.node}",
    )


def unseal(walk: PathBuilder, here: PacketState, node: NodeView) -> PacketState | None:
    """Decrypt a packet by the receiving node's state; see `encryption.decrypt`."""
    packet, sent = here.sealed, here.packet.outer
    assert packet is not None
    assert sent is not None
    _count(walk, node)
    states, spi = node[q.XFRM], _spi(walk, packet, sent)
    found: XfrmState | None = None
    if states.known and spi is not None:
        found = next(
            (s for s in states.facts if (s.destination, s.spi) == (sent.destination, spi)), None
        )
        if found is None:
            what = f"no IPsec state for {sent.destination} has SPI {spi}"
            _drop(walk, here, what, cite.whole(states.record))
            return None
    elif not states.known:
        walk.presumed.add(f"IPsec's states on {here.node} (`{_LIST}`)")
    evidence = cite.of(states.record, found.span) if found is not None else ()
    inside = here.to(here.stage, packet=packet, sealed=None, encrypted="")
    _decrypted(walk, inside, found, evidence)
    ipsec_policies.lets_in(walk, inside, node, restart(here.node))
    return inside


def _spi(walk: PathBuilder, packet: Packet, sent: Flow) -> int | None:
    """Return the SPI by which the sender's state sends a packet, None where it is not known."""
    sender = walk.cluster.node(walk.cluster.node_of(sent.source))
    entry = sender.ipcache_of(packet.flow.destination)
    found = [state for state in sender[q.XFRM].facts if state.destination == sent.destination]
    used = _used(found, entry.encrypt_key if entry is not None else 0)
    return used.spi if used is not None else None


def _decrypted(
    walk: PathBuilder, here: PacketState, state: XfrmState | None, evidence: tuple[Evidence, ...]
) -> None:
    """Add the hop of the receiver's state: its counters tell of different keys."""
    where = here.in_cilium(HopKind.TUNNEL)
    broken = state is not None and state.failed and not state.packets
    if state is None or not broken or walk.answered_now():
        walk.hop(*where, "decrypted by IPsec", State.DERIVED, here.packet, evidence)
        return
    walk.hop(
        *where,
        "decrypted by IPsec, or not",
        State.UNKNOWN,
        here.packet,
        evidence,
        reason=f"the integrity check of all {state.failed} packets that came by SPI {state.spi} "
        "failed: the nodes seem to have different keys, which are not read",
        decides=Decides.DROP,
        fix=restart(here.node),
    )


def _count(walk: PathBuilder, node: NodeView) -> None:
    """Report what IPsec of a node has lost since it started."""
    lost = node[q.XFRM_ERRORS]
    if not lost.facts:
        return
    said = [
        f"{counter.name} {counter.value}"
        + (f" ({_COUNTERS[counter.name]})" if counter.name in _COUNTERS else "")
        for counter in lost.facts
    ]
    walk.finding(
        Severity.INFO if walk.answered_now() else Severity.WARNING,
        f"IPsec of {node.name} has lost packets since it started: {lost.facts[0].name}",
        f"{'; '.join(said)}. A counter that grows while the packet is sent is the reason.",
        cite.of(lost.record, *(counter.span for counter in lost.facts)),
    )
