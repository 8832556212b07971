"""What kube-proxy's rules say of a Service, as a cause that a person can mend: the Service, its
endpoints, its source ranges, or kube-proxy itself where its rules are behind them.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.chain_ends import ChainEnd
from kubectl_ebpfnet.explain.kernel.kube_proxy_refusals import Refused, refused
from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.no_endpoints import why_no_endpoint
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.stages.no_backend import take_another_node
from kubectl_ebpfnet.explain.path.stages.passage import BackEnd, Passage
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint
from kubectl_ebpfnet.model.net import Address, Flow, protocol_name
from kubectl_ebpfnet.model.path import Fix

_NAMED = 3
"""Endpoints that a sentence names."""


def remedy(walk: PathBuilder, node: str, passage: Passage, end: ChainEnd) -> Remedy | None:
    """Return why a rule of kube-proxy loses a packet, and what to edit; None where the rule is not
    kube-proxy's, or whose Service it is for is not known.

    Args:
        walk: the walk.
        node: whose rules they are.
        passage: of the chain that loses the packet.
        end: of its outcome.
    """
    back_end = passage.back_end
    why = refused(end, back_end.ruleset if isinstance(back_end, BackEnd) else None)
    if why is None or walk.forth is not None:
        return None
    return by_reason(walk, node, end.context.flow, why, passage.named(end))


def by_reason(walk: PathBuilder, node: str, flow: Flow, why: Refused, named: str) -> Remedy | None:
    """Return what to edit about a packet that kube-proxy keeps from a Service's endpoints; None
    where the Service is not known.

    Args:
        walk: the walk.
        node: whose rules they are.
        flow: of the packet there.
        why: the rules keep it.
        named: the rule or chain, in words.
    """
    if why in (Refused.NO_SUCH_PORT, Refused.NO_SUCH_ADDRESS):
        return _no_frontend(walk, node, flow, why)
    service = walk.ends.service
    if service is None or service.owner is None or flow.destination != service.address:
        return None
    by = f"{named} of kube-proxy on {node}"
    if why is Refused.SOURCE_RANGES:
        return _outside_ranges(service.owner, flow.source, node, by)
    local = why is Refused.NO_LOCAL_ENDPOINTS
    return _without_endpoint(walk, service, service.owner, node, by, local=local)


def restart(node: str) -> Fix:
    """Return how to let kube-proxy of a node write its rules anew."""
    return Fix(
        f"Restart kube-proxy on {node}: it writes its rules anew. Its log tells why it is behind.",
        f"kubectl delete pod -n kube-system -l k8s-app=kube-proxy {commands.pods_on(node)}",
    )


def title(node: str) -> str:
    """Return how kube-proxy of a node is named as what a person mends."""
    return f"kube-proxy on {node}"


def traffic_policy(service: ServiceAddress) -> str:
    """Return the setting of a Service that kube-proxy asks for a packet to this address."""
    return "internalTrafficPolicy" if service.type == "ClusterIP" else "externalTrafficPolicy"


def policy_of(service: ServiceAddress) -> str:
    """Return the value of that setting: `Local`, or what counts as `Cluster`."""
    owner = service.owner
    if owner is None:
        return ""
    inside = traffic_policy(service) == "internalTrafficPolicy"
    return owner.internal_traffic_policy if inside else owner.external_traffic_policy


def listed(ends: tuple[ServiceEndpoint, ...] | list[ServiceEndpoint]) -> str:
    """Return the first endpoints in words."""
    return few(ends, _NAMED, kinds.text)


def _without_endpoint(
    walk: PathBuilder, service: ServiceAddress, owner: Service, node: str, by: str, *, local: bool
) -> Remedy:
    ready = [e for e in service.sliced or () if e.ready and (not local or e.node == node)]
    if ready:
        return Remedy(
            f"kube-proxy's rules on {node} are behind {service.owner_title}: its EndpointSlices "
            f"name {listed(ready)}, ready, and {by} finds no endpoint",
            restart(node),
            title(node),
        )
    setting = traffic_policy(service) if local else ""
    if local and policy_of(service) != "Local":
        return Remedy(
            f"kube-proxy's rules on {node} are behind {service.owner_title}: its {setting} is "
            f"Cluster, and {by} is for Local",
            restart(node),
            title(node),
        )
    elsewhere = [end for end in service.sliced or () if end.ready]
    if local and (elsewhere or service.sliced is None):
        return _only_elsewhere(service, owner, node, elsewhere)
    found = why_no_endpoint(walk.cluster, service)
    if found is not None:
        return replace(found, cause=f"{service.owner_title} has no endpoint: {found.cause}")
    slices = commands.list_slices(owner.namespace, owner.name)
    cause = f"{service.owner_title} has no endpoint: {by} says so"
    return Remedy(cause, Fix("See what the Service has.", slices), _named(owner))


def _only_elsewhere(
    service: ServiceAddress, owner: Service, node: str, elsewhere: list[ServiceEndpoint]
) -> Remedy:
    """The traffic policy is Local, and the node has no endpoint."""
    setting = traffic_policy(service)
    others = few(elsewhere, _NAMED, lambda e: f"{kinds.text(e)} on {e.node or 'no node'}")
    cause = (
        f"{service.owner_title} has no endpoint on {node}: {setting} is Local, and no ready "
        f"endpoint is on {node} "
        + (f"(ready: {others})" if others else "(its EndpointSlices are not recorded)")
    )
    return Remedy(cause, take_another_node(service, node, setting), _named(owner))


def _named(owner: Service) -> str:
    return f"Service {owner.namespace}/{owner.name}"


def _outside_ranges(owner: Service, source: Address, node: str, by: str) -> Remedy:
    name = f"svc {owner.namespace}/{owner.name}"
    ranges = [each for each in owner.source_ranges if each.version == source.version]
    if any(source in each for each in ranges):
        return Remedy(
            f"kube-proxy's rules on {node} are behind {name}: its loadBalancerSourceRanges hold "
            f"{source}, and {by} does not",
            restart(node),
            title(node),
        )
    has = ", ".join(map(str, ranges)) or "none of this IP version"
    if not owner.source_ranges:
        has = "none: its annotation may hold them, or kube-proxy is behind"
    return Remedy(
        f"{name} does not let {source} in: its loadBalancerSourceRanges are {has}",
        Fix(
            f"Add {source}/{source.max_prefixlen}, or its network, to loadBalancerSourceRanges.",
            commands.edit_service(owner.namespace, owner.name),
        ),
        _named(owner),
    )


def _no_frontend(walk: PathBuilder, node: str, flow: Flow, why: Refused) -> Remedy:
    """Nothing serves the port of a ClusterIP, or nobody has it."""
    asked = f"{flow.destination_port}/{protocol_name(flow.protocol)}"
    fix = Fix("Ask a port that a Service has.", "kubectl get services -A")
    wanted = (flow.destination_port, flow.protocol)
    for service in walk.cluster.index.services_with(flow.destination):
        if flow.destination in service.cluster_addresses:
            offered = ", ".join(f"{p.port}/{protocol_name(p.protocol)}" for p in service.ports)
            name = f"{service.namespace}/{service.name}"
            if any((p.port, p.protocol) == wanted for p in service.ports):
                behind = (
                    f"kube-proxy's rules on {node} are behind svc {name}, which has port {asked}"
                )
                return Remedy(behind, restart(node), title(node))
            cause = f"svc {name} does not serve port {asked}: it serves {offered or 'nothing'}"
            return Remedy(cause, fix, f"Service {name}")
    if why is Refused.NO_SUCH_PORT:
        return Remedy(f"no Service serves port {asked} of the ClusterIP {flow.destination}", fix)
    return Remedy(f"no Service has the ClusterIP {flow.destination}", fix)
