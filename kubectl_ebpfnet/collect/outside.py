"""What a live `path` from a client outside asks first: who takes its packet in.

The API server's records choose the nodes, by the rule that explains them too
(explain/path/entrance.py), so these are asked after it, at most `MOST` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from kubectl_ebpfnet.cluster.agents import NAMESPACES
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.destination import (
    FarEnd,
    destination_object,
    far_end_of_address,
    far_end_of_object,
)
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.packet import packet_scope, row_addresses
from kubectl_ebpfnet.collect.scope import Scope
from kubectl_ebpfnet.collect.sender import Sender
from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.explain.path.announced import lease_of
from kubectl_ebpfnet.explain.path.entrance import service_outside, ways_in
from kubectl_ebpfnet.explain.path.sender import check_outside
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.settings import setting
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record, bundle_of
from kubectl_ebpfnet.model.kube import Node, Pod, Service
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.request import PathRequest
from kubectl_ebpfnet.parse import kube

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


@dataclass(frozen=True, slots=True)
class FirstReads:
    """What the API server said.

    Attributes:
        far_end: of the destination.
        nodes: all of them.
        cilium_nodes: CiliumNode objects.
        records: of all reads so far.
        cluster: their indexes.
    """

    far_end: FarEnd
    nodes: Sequence[Node]
    cilium_nodes: Sequence[object]
    records: list[Record]
    cluster: ClusterView


def first_reads(
    gatherer: Gatherer, request: PathRequest, policies: Iterable[Callable[[], object]]
) -> FirstReads:
    """Read the objects that say who takes the packet in, and who may have the client's address.

    Args:
        gatherer: asks.
        request: the packet.
        policies: reads of network policies.

    Raises:
        NotFound, UsageError, ClusterError: as `destination_object`; UsageError also where the
            client's address is the cluster's own.
    """
    api = gatherer.api
    gatherer.look_for_answerers(few=True)
    nodes = gatherer.start(api.nodes)
    found = gatherer.start(lambda: destination_object(api, request))
    cilium_nodes = gatherer.start(lambda: api.cilium("ciliumnodes"))
    gatherer.read([
        partial(api.pods, field_selector=f"status.podIP={request.source_address}"),
        *policies,
    ])  # fmt: skip
    there = gatherer.needed(found)
    listed = [kube.node(each) for each in gatherer.tried(nodes)[0] or []]
    end = gatherer.start(lambda: _far_end(api, request, there, listed))
    agents = gatherer.find_answerers()
    far_end, known = gatherer.tried(end)[0] or FarEnd(), gatherer.tried(cilium_nodes)[0] or []
    records = list(gatherer.records())
    cluster = ClusterView(bundle_of(records))
    assert request.source_address is not None
    check_outside(cluster, request.source_address)
    service = service_outside(cluster, request)
    if service is not None and not request.via:
        namespace = next((agent.namespace for agent in agents.values()), NAMESPACES[0])
        lease = f"{LEASES.format(namespace)}/{lease_of(service)}"
        bgp = setting(cluster, "enable-bgp-control-plane") == "true"
        gatherer.read([partial(api.get, lease), *([api.bgp_advertisements] if bgp else [])])
        records += gatherer.records()
        cluster = ClusterView(bundle_of(records))
    return FirstReads(far_end, listed, known, records, cluster)


def _far_end(
    api: RecordingApi, request: PathRequest, there: Pod | Service | Node | None, nodes: list[Node]
) -> FarEnd:
    address = request.destination_address
    if address is None:
        return far_end_of_object(api, there, request.port)
    far_end = far_end_of_address(api, address, nodes, request.port)
    if far_end.nodes or far_end.frontends or not address.is_global:
        return far_end
    return _of_public_address(api, address, far_end)


def _of_public_address(api: RecordingApi, address: Address, far_end: FarEnd) -> FarEnd:
    """Return the far end of a public address, which mostly is a load-balancer's for a client."""
    try:
        services = [kube.service(each) for each in api.services()]
    except ClusterError:
        return far_end  # the record has the reason
    for service in services:
        if address in service.addresses:
            return far_end_of_object(api, service, None)
    return far_end


def places_to_ask(request: PathRequest, found: FirstReads) -> tuple[tuple[str, ...], Scope]:
    """Return the nodes by which the packet may enter, and what it needs of them.

    Args:
        request: the packet.
        found: what the API server said.

    Raises:
        NotFound: there is no node of the name that --via gives.
    """
    ways, far_end, client = ways_in(found.cluster, request), found.far_end, request.source_address
    assert client is not None
    own = [found.cluster.kube_node(name) for name in ways.nodes]
    at_nodes = [a for node in own if node is not None for a in node.internal_addresses]
    far_end.frontends += tuple(at_nodes)
    sender = Sender((client,))
    scope = packet_scope(
        sender, request, frozenset((client.version,)), far_end,
        knows_nodes=bool(found.cilium_nodes),
    )  # fmt: skip
    rows = row_addresses(scope, sender, (far_end,), found.nodes, found.cilium_nodes)
    return ways.nodes, replace(scope, rows=rows)
