"""A frontend that no backend is behind: why, and what the datapath does to its packets.

Source: Cilium bpf/lib/lb.h and bpf/bpf_lxc.c: with `service-no-backend-response` a packet is
rejected (ICMP) or dropped; versions without that setting drop it in silence ("Service backend not
found"), and those up to 1.11, whose map rows have no slots, let it pass untranslated. kube-proxy
rejects it.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path.services import ServiceAddress
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.path import Decides, Fix, HopPlace, Packet, State

_ZONE = "topology.kubernetes.io/zone"


def without_backend(
    walk: PathBuilder,
    packet: Packet,
    service: ServiceAddress,
    where: Where,
    how: str,
    *,
    external: bool,
) -> Packet | None:
    """Refuse or drop the packet, or let it pass, as the node's datapath does.

    Args:
        walk: takes hops and findings.
        packet: for the frontend.
        service: the frontend, without a usable backend.
        where: what balances.
        how: in words, as loadbalancing.rewrite takes it.
        external: it came in from outside of the node.

    Returns:
        The packet as it is where it passes; None when it is dropped.
    """
    node = walk.cluster.node(where[2])
    local = _local_policy(service, external)
    cause = _cause(walk, service, node, local)
    if where[0] is not HopPlace.NODE and _passes(walk, packet, service, where, node):
        return packet
    does = "refused" if where[0] is HopPlace.NODE else _does(walk, node, service, where)
    name, listed = (
        service.owner_title,
        ", ".join(f"{kinds.text(b)} {b.state}".strip() for b in service.backends),
    )
    slices = (
        f"kubectl get endpointslices -n {service.namespace or 'NAMESPACE'} "
        f"-l kubernetes.io/service-name={service.name or 'NAME'}"
    )
    fix = Fix("See what the Service has.", slices)
    if local and kinds.only_elsewhere(service.sliced, node.name):
        fix = _take_another_node(service, node, local)
    walk.drop(
        *where,
        f"{service.title} has no ready backend: {does} {how}",
        State.DERIVED,
        packet,
        service.evidence,
        title=f"{name} has no ready backend",
        detail=f"{_sentence(cause)}."
        + (f" Its backends are {listed}." if listed else "")
        + f" `{slices}` shows what it has.",
        cause=f"{name} has no ready backend: {cause}",
        fix=fix,
        object=f"Service {service.namespace}/{service.name}" if service.name else "",
    )
    return None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _local_policy(service: ServiceAddress, external: bool) -> str:
    """Return the setting that keeps packets on the node that balances, "" where none does."""
    owner = service.owner
    if external:
        local = (owner is not None and owner.external_traffic_policy == "Local") or (
            "Local" in service.flags
        )
        return "externalTrafficPolicy" if local else ""
    local = (owner is not None and owner.internal_traffic_policy == "Local") or (
        "InternalLocal" in service.flags
    )
    return "internalTrafficPolicy" if local else ""


def _take_another_node(service: ServiceAddress, node: NodeView, local: str) -> Fix:
    loses = ""
    if local == "externalTrafficPolicy":
        loses = ", where backends may see a node's address in place of the client's"
    command = (
        f"kubectl patch service -n {service.namespace} {service.name} "
        f'-p \'{{"spec":{{"{local}":"Cluster"}}}}\''
    )
    return Fix(
        f"Run a backend on {node.name}, or set {local}: Cluster{loses}.",
        command if service.name else "",
    )


def _cause(walk: PathBuilder, service: ServiceAddress, node: NodeView, local: str) -> str:
    owner = service.owner
    kube_node = walk.cluster.kube_node(node.name)
    zone = dict(kube_node.labels).get(_ZONE, "") if kube_node is not None else ""
    if service.unresolved:
        return f"{service.unresolved} slots of its map name a backend that Cilium's map lacks"
    found = kinds.why_none(
        service.sliced,
        node=node.name,
        zone=zone,
        local=local,
        selector=bool(owner is not None and owner.selector),
    )
    if found:
        return found
    named = {kinds.place(end): end for end in service.sliced or () if end.ready}
    lost = [end for at, end in named.items() if at not in {kinds.place(b) for b in service.usable}]
    if lost:
        listed = ", ".join(kinds.text(end) for end in lost[:3])
        return (
            f"Cilium on {node.name} is behind its EndpointSlices: they name {listed}, ready, and "
            "its load-balancing map has no such backend"
        )
    if service.backends:
        return "none of its backends takes new connections"
    if service.redirects_locally:
        return f"no pod of the local redirect policy is ready on {node.name}"
    if service.sliced is None and local:
        return (
            f"{local} is Local, and {node.name} has no ready pod of it; whether another node has "
            "one is not known: its EndpointSlices are not recorded"
        )
    if service.sliced is None:
        return "no pod matches it or none is ready; its EndpointSlices are not recorded"
    return "no pod matches it, or none is ready"


def _does(walk: PathBuilder, node: NodeView, service: ServiceAddress, where: Where) -> str:
    response, at_socket = node.config.no_backend_response, where[0] is HopPlace.POD
    default = not response and service.by_protocol  # since 1.15 an agent rejects unless told
    if response == "reject" or default or at_socket:  # connect() returns an error
        return "refused"
    # Versions without the setting have no key for it in the ConfigMap; the status never tells it.
    without = service.slotted and walk.cluster.settings_record is not None
    if response == "drop" or without:
        return "dropped in silence (Service backend not found)"
    return "refused or dropped in silence"


def _passes(
    walk: PathBuilder,
    packet: Packet,
    service: ServiceAddress,
    where: Where,
    node: NodeView,
) -> bool:
    """Tell whether the datapath lets the packet pass as it is, and add the hop."""
    if node.config.no_backend_response or service.slotted is not False:
        return False
    tracked = walk.tracked
    entry = tracked.cilium_ct if tracked is not None and tracked.node == node.name else None
    seen = entry is not None and entry.flow.destination == service.address
    walk.hop(
        *where,
        f"{service.title} has no ready backend: it passes untranslated"
        + (", as Cilium's conntrack shows" if seen else ""),
        State.OBSERVED if seen else State.UNKNOWN,
        packet,
        service.evidence + (tracked.evidence[:1] if tracked is not None and seen else ()),
        reason=""
        if seen
        else "Cilium up to 1.11 lets what has no backend pass, later versions drop it, and nothing "
        "recorded tells which",
        decides=Decides.WAY,
    )
    return True
