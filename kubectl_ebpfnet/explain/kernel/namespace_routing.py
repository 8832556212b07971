"""What the records tell of a namespace's routing: which rules, and which tables were listed.

`ip route` lists the table main of IPv4 alone, `ip route show table all` and the node side every
table of both versions; `ip rule` lists the rules of IPv4 alone (iproute2's ip/iproute.c, iprule.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.explain.kernel.decision import RoutingTables
from kubectl_ebpfnet.explain.kernel.devices import vrf_of
from kubectl_ebpfnet.explain.kernel.rule_match import RoutedPacket
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import InterfaceAddress, Link, Route, Rule
from kubectl_ebpfnet.model.net import SCTP, TCP, UDP, Address, Flow
from kubectl_ebpfnet.model.protocol.questions import PROGRAM

_PORTS = frozenset({TCP, UDP, SCTP})


def node_tables(node: NodeView, version: int) -> RoutingTables | str:
    """Return what is known of a node's routing of an IP version, or why nothing is."""
    answer = node[q.ROUTES]
    if not answer.known:
        return f"the node's routes could not be read: {answer.missing}"
    if version == 6 and answer.record is not None and not _both_versions(answer.record):
        command = " ".join(answer.record.argv)
        return f"the node's IPv6 routes were not read: `{command}` lists those of IPv4"
    return _tables(answer, node.rules(version), node[q.ADDRESSES].facts)


def pod_tables(netns: PodNetns, version: int) -> RoutingTables | str:
    """Return what is known of a pod's routing of an IP version, or why nothing is."""
    answer = netns.routes(version)
    if not answer.known:
        return f"the pod's routes could not be read: {answer.missing}"
    return _tables(answer, netns.rules(version), netns[q.POD_ADDRESSES].facts)


def _tables(
    routes: Answer[Route], rules: Answer[Rule], addresses: Sequence[InterfaceAddress]
) -> RoutingTables:
    return RoutingTables(
        rules.facts if rules.known else None,
        routes.facts,
        _listed(routes.record),
        frozenset(fact.address for fact in addresses),
        "" if rules.known else rules.missing or "nobody asked",
    )


def _both_versions(record: Record) -> bool:
    return record.argv[0] == PROGRAM or _every_table(record)


def _every_table(record: Record) -> bool:
    return record.argv[-2:] == ("table", "all")


def _listed(record: Record | None) -> frozenset[str] | None:
    """Return the tables that a record of routes lists; None for all."""
    if record is None or record.argv[0] == PROGRAM or _every_table(record):
        return None
    # The file has the routes of every table, and names none.
    by_file = record.argv[-1] == "/proc/net/ipv6_route"
    return frozenset(("main", "local") if by_file else ("main",))


def packet_from_device(node: NodeView, flow: Flow, in_device: str) -> RoutedPacket:
    """Return a packet that a node's stack got by a device, as rules see it, without its mark.

    Args:
        node: the node.
        flow: the packet.
        in_device: name of the device.
    """
    ported = flow.protocol in _PORTS
    tunnelled = in_device.startswith(("cilium_vxlan", "cilium_geneve"))
    return RoutedPacket(
        flow.source,
        flow.destination,
        in_device,
        mark=None,
        protocol=flow.protocol,
        source_port=flow.source_port if ported else 0,
        destination_port=flow.destination_port if ported else 0,
        user=0,
        tunnel_id=None if tunnelled else 0,
        in_vrf=_in_vrf(node, in_device),
        vrf_table=vrf_table(node, vrf_of(node, in_device)),
    )


def own_packet(flow: Flow, *, user: int | None = None, mark: int | None = 0) -> RoutedPacket:
    """Return a packet that a namespace sends itself, as rules see it.

    Args:
        flow: the packet.
        user: uid of its socket's owner, None when not known.
        mark: its skb mark, None when not known.
    """
    ported = flow.protocol in _PORTS
    return RoutedPacket(
        flow.source,
        flow.destination,
        mark=mark,
        protocol=flow.protocol,
        source_port=flow.source_port if ported else None,
        destination_port=flow.destination_port if ported else None,
        user=user,
    )


def way_back(destination: Address, source: Address) -> RoutedPacket:
    """Return a packet to a packet's sender, of which nothing else is known."""
    return RoutedPacket(destination, source, mark=None, tunnel_id=0)


def vrf_table(node: NodeView, vrf: Link | None) -> str:
    """Return the name of a VRF's table as the node's routes have it, "" where that is not known:
    `ip link` prints its number, `ip route` a name where the image has one."""
    table = vrf.vrf_table if vrf is not None else ""
    return table if any(route.table == table for route in node[q.ROUTES].facts) else ""


def _in_vrf(node: NodeView, device: str) -> bool | None:
    """Tell whether a device belongs to a VRF; None where links or their kinds were not read."""
    if not node[q.LINKS].known:
        return None
    link = node.link(device)
    if link is None or not link.master:
        return link is not None and link.kind == "vrf"
    master = node.link(link.master)
    return None if master is None or not master.kind else master.kind == "vrf"
