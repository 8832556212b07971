"""Encapsulation: the packet goes into VXLAN or Geneve, its identity as the tunnel id.

Cilium's device takes the other end and the id from each packet (`external`). Any other one looks
the other end up by the MAC, of which it has none, and takes in packets of its own id alone.

Sources: Cilium bpf/lib/encap.h; Linux drivers/net/vxlan/vxlan_core.c (vxlan_xmit, vxlan_rcv: a
header without VXLAN_HF_VNI is nobody's), drivers/net/geneve.c (geneve_udp_encap_recv: whose type is
not ETH_P_TEB is dropped); ports: cilium-facts 4.4 (8472 vxlan, 6081 geneve).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.explain.path.stages import losses, outer, xdp
from kubectl_ebpfnet.explain.path.stages.missing_programs import into_tunnel
from kubectl_ebpfnet.explain.path.stages.program_hops import show_programs
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import HOST, REMOTE_NODE
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.net import UDP, Address, Flow
from kubectl_ebpfnet.model.path import Evidence, Fix, HopKind, State
from kubectl_ebpfnet.model.shell import word

PORTS = {"vxlan": 8472, "geneve": 6081}
_TITLES = {"vxlan": "VXLAN", "geneve": "Geneve"}


def device_of(node: NodeView) -> tuple[str, Link | None]:
    """Return name and link of a node's tunnel device; the link is None where not read."""
    agents = next((one.tunnel_protocol for one in node[q.STATUS].facts), "")
    # The cluster's settings are those of an agent that starts now.
    wanted = (agents,) if agents else tuple(filter(None, (node.config.tunnel_protocol, *PORTS)))
    there = [name for name in (f"cilium_{each}" for each in wanted) if node.link(name)]
    name = there[0] if there else f"cilium_{wanted[0]}"
    return name, node.link(name)


def is_open(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether a node's tunnel device takes packets, and drop the packet where it does not.

    Args:
        walk: takes hops and findings.
        here: the packet at the sender, or encapsulated at the receiver.
        node: the node whose device it is.
    """
    name, link = device_of(node)
    found = _fault(walk, here, node)
    if found is None:
        return True
    walk.drop(
        *here.on_node(HopKind.LINK), found.what, found.state, here.packet,
        device_evidence(node, link),
        title=f"tunnel device {name} of {here.node}: {found.what}", detail=found.detail,
        fix=found.fix,
    )  # fmt: skip
    return False


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a tunnel device takes no packet, what to do about it, and how that is known."""

    what: str
    detail: str
    fix: Fix | None = None
    state: State = State.DERIVED


def _fault(walk: PathBuilder, here: PacketState, node: NodeView) -> _Fault | None:
    name, link = device_of(node)
    outer = here.packet.outer
    port = outer.destination_port if outer is not None else None
    if link is not None and not link.up:
        return _Fault(
            f"{name} is down",
            f"`ip link set {word(name)} up` on the node, or restart its Cilium agent.",
            Fix(f"Set the device of node {here.node} up.", f"ip link set {word(name)} up"),
            State.OBSERVED,
        )
    kind = _protocol(node)
    if outer is not None and here.tunnel and kind and here.tunnel != kind:
        return _other_protocol(walk, here, kind)
    if link is None and node[q.LINKS].known:
        detail = "The agent makes it: see its log, and the setting of the tunnel's protocol."
        return _Fault(f"no tunnel device {name}", detail)
    if link is not None and port and link.tunnel_port not in (None, port):
        return _Fault(
            f"{name} listens at UDP port {link.tunnel_port}, not at {port}",
            "The nodes have different tunnel ports (tunnel-port).",
        )
    # `external` stands beside the port, in what `ip -d` alone tells.
    if link is not None and link.tunnel_port is not None and not link.tunnel_external:
        return _Fault(
            f"{name} is no device of Cilium's: it does not take the tunnel's end and id from each "
            "packet (external)",
            "Something else made it. Delete it, and restart the node's Cilium agent, which makes "
            "its own.",
            Fix(
                f"Delete the device of node {here.node}, and restart its Cilium agent, which makes "
                "it anew.",
                f"ip link del {word(name)}",
            ),
        )
    return None


def _other_protocol(walk: PathBuilder, here: PacketState, kind: str) -> _Fault:
    """Say that the sender's tunnel has another protocol than that of the node it comes to."""
    wanted = walk.cluster.settings.tunnel_protocol
    setting = f"ConfigMap cilium-config ({_TITLES[wanted]})" if wanted in _TITLES else "the other"
    return _Fault(
        f"it comes in {_TITLES[here.tunnel]}, and {here.node} has {_TITLES[kind]}",
        "The agents have different tunnel protocols (tunnel-protocol): an agent takes it from "
        "ConfigMap cilium-config as it starts.",
        Fix(
            f"Restart the agents that run with another tunnel protocol than {setting}.",
            "kubectl rollout restart -n kube-system daemonset/cilium",
        ),
    )


def _protocol(node: NodeView) -> str:
    """Return what a node's tunnel surely is: by its device, or its agent; "" where neither was
    read."""
    name, link = device_of(node)
    if link is not None:
        return name.removeprefix("cilium_")
    protocol = next((one.tunnel_protocol for one in node[q.STATUS].facts), "")
    return protocol if protocol in PORTS else ""


def device_evidence(node: NodeView, link: Link | None) -> tuple[Evidence, ...]:
    """Cite a tunnel device; the whole list of devices where it has none."""
    record = node[q.LINKS].record
    keep = ("ifindex", "ifname", "flags", "mtu", "linkinfo")
    return cite.of(record, link.span.head(), keep=keep) if link is not None else cite.whole(record)


def encapsulate(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Encapsulate the packet for the tunnel's other end, whose address is `here.device`, and route
    the outer packet."""
    node = walk.cluster.node(here.node)
    end: Address = ip_address(here.device)
    name, link = device_of(node)
    if not here.by_xdp and not is_open(walk, here, node):
        return None
    evidence = device_evidence(node, link)
    source = outer.node_address(walk, here.node, end.version)
    if source is None:
        reason = f"the address of {here.node} is not known"
        walk.hop(
            *here.in_cilium(HopKind.TUNNEL, name), f"encapsulated for {end}",
            State.UNKNOWN, here.packet, evidence, reason=reason,
        )  # fmt: skip
        walk.unknown(reason)
        return None
    port = (link.tunnel_port if link else None) or PORTS.get(node.config.tunnel_protocol, 8472)
    # The receiver sees packets of the node itself as a remote node's (__encap_with_nodeid).
    identity = REMOTE_NODE if here.identity == HOST else here.identity
    packet = replace(here.packet, outer=Flow(UDP, source, None, end, port), vni=identity or None)
    here = here.to(here.stage, tunnel=_protocol(node))
    if not here.by_xdp:
        into_tunnel(walk, here, name, show_programs(walk, here, name, "egress"))
        if not losses.sends(walk, here, node, name):
            return None
    protocol = name.removeprefix("cilium_").upper()
    vni = f", VNI {identity} (the sender's identity)" if identity else ""
    walk.hop(
        *here.in_cilium(HopKind.TUNNEL, name),
        f"encapsulated by {xdp.PROGRAM if here.by_xdp else name} ({protocol}): outer {source} → "
        f"{address_text(walk.cluster, end)}, UDP port {port}{vni}",
        State.DERIVED,
        packet,
        evidence,
        short=f"{xdp.PROGRAM if here.by_xdp else name} ({protocol}) to "
        f"{address_text(walk.cluster, end)}",
    )
    if here.by_xdp:
        return xdp.send_out(walk, here.to(here.stage, packet=packet), node)
    left = outer.leave(walk, here.to(here.stage, packet=packet), node)
    return left.to(Stage.DEVICE) if left is not None else None
