"""A frontend that no backend is behind: why, and what the datapath does to its packets.

Source: Cilium bpf/lib/lb.h and bpf/bpf_lxc.c: with `service-no-backend-response` a packet is
rejected (ICMP) or dropped; versions without that setting drop it in silence ("Service backend not
found"), and those up to 1.11, whose map rows have no slots, let it pass untranslated. kube-proxy
rejects it. A global Service whose affinity is the word `none` loses other clusters' endpoints from
1.18 on until that was mended (cilium/cilium#46623).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.agent_behind import see_agent
from kubectl_ebpfnet.explain.path.no_endpoints import why_no_endpoint
from kubectl_ebpfnet.explain.path.service_address import (
    AFFINITY,
    ServiceAddress,
    affinity_word,
    is_global,
)
from kubectl_ebpfnet.explain.path.state import PathBuilder, Where
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.evidence import API
from kubectl_ebpfnet.model.kube import Service
from kubectl_ebpfnet.model.path import Decides, Fix, HopPlace, Packet, State
from kubectl_ebpfnet.model.shell import word

_PAUSED = frozenset({"quarantined", "maintenance"})
_ZONE = "topology.kubernetes.io/zone"
_LONGEST = 40
"""Characters of an annotation that are shown."""


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
    found = _remedy(walk, service, node, local)
    if where[0] is not HopPlace.NODE and _passes(walk, packet, service, where, node):
        return packet
    does = "refused" if where[0] is HopPlace.NODE else _does(walk, node, service, where)
    name, listed = service.owner_title, kinds.with_states(service.backends)
    walk.drop(
        *where,
        f"{service.title} has no ready backend: {does} {how}",
        State.DERIVED,
        packet,
        service.evidence,
        title=f"{name} has no ready backend",
        detail=f"{_sentence(found.cause)}."
        + (f" Its backends are {listed}." if listed else "")
        + f" {found.fix.text}",
        cause=f"{name} has no ready backend: {found.cause}",
        fix=found.fix,
        object=found.object,
        short=f"{name} has no ready backend: {does} {how}",
    )
    return None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _local_policy(service: ServiceAddress, external: bool) -> str:
    """Return the setting that keeps packets on the node that balances, "" where none does."""
    local = "externalTrafficPolicy" if external else "internalTrafficPolicy"
    flag = "Local" if external else "InternalLocal"
    owner = service.owner
    kept = flag in service.flags or (owner is not None and _setting(owner, local) == "Local")
    return local if kept else ""


def _setting(owner: Service, local: str) -> str:
    external = local == "externalTrafficPolicy"
    return owner.external_traffic_policy if external else owner.internal_traffic_policy


def _remedy(walk: PathBuilder, service: ServiceAddress, node: NodeView, local: str) -> Remedy:
    """Return why there is no backend, and what to edit: by the datapath's map, by the Service's
    objects, and by what holds its traffic on a node or in a zone."""
    own = f"Service {service.namespace}/{service.name}" if service.name else ""
    slices = commands.list_slices(service.namespace or "NAMESPACE", service.name or "NAME")
    if service.unresolved:
        cause = f"{service.unresolved} slots of its map name a backend that Cilium's map lacks"
        return see_agent(walk.cluster, cause, node.name)
    if service.redirects_locally:
        return _no_redirect(service, node)
    found = why_no_endpoint(walk.cluster, service)
    if found is not None:
        return _of_every_cluster(found, service, node)
    if local and service.owner is not None and _setting(service.owner, local) != "Local":
        cause = (
            f"Cilium on {node.name} is behind its Service: that has {local} Cluster, and its "
            "load-balancing map still takes backends of the node alone (Local)"
        )
        return see_agent(walk.cluster, cause, node.name)
    ready = [end for end in service.sliced or () if end.ready]
    if local and kinds.only_elsewhere(service.sliced, node.name):
        where = ", ".join(f"{kinds.text(end)} on {end.node or 'no node'}" for end in ready[:3])
        cause = f"{local} is Local, and no ready endpoint is on {node.name} (ready: {where})"
        return Remedy(cause, take_another_node(service, node.name, local), own)
    kube_node = walk.cluster.kube_node(node.name)
    zone = dict(kube_node.labels).get(_ZONE, "") if kube_node is not None else ""
    zones = kinds.other_zones(ready, zone)
    if zones:
        return _take_another_zone(service, node, zone, zones)
    paused = [b for b in service.backends if b.state in _PAUSED]
    if paused and len(paused) == len(service.backends):
        cause = f"{kinds.with_states(paused)} on {node.name}: that takes no new connections"
        by = see_agent(walk.cluster, cause, node.name)
        text = (
            "See who set that: a health check, the annotation service.cilium.io/weight of an "
            "EndpointSlice, or `service update --states` by hand. "
        )
        return replace(by, fix=Fix(f"{text}{by.fix.text}", node.in_agent("service list")))
    served = {kinds.place(b) for b in service.usable}
    lost = [end for end in ready if kinds.place(end) not in served]
    if lost:
        listed = ", ".join(kinds.text(end) for end in lost[:3])
        cause = (
            f"Cilium on {node.name} is behind its EndpointSlices: they name {listed}, ready, and "
            "its load-balancing map has no such backend"
        )
        return see_agent(walk.cluster, cause, node.name)
    cause = "no pod matches it, or none is ready"
    if service.backends:
        cause = "none of its backends takes new connections"
    elif service.sliced is None and local:
        cause = (
            f"{local} is Local, and {node.name} has no ready pod of it; whether another node has "
            f"one is not known: {_unread_slices(walk)}"
        )
    elif service.sliced is None:
        cause = f"why is not known: {_unread_slices(walk)}"
    return Remedy(cause, Fix("See what the Service has.", slices), own)


def _unread_slices(walk: PathBuilder) -> str:
    """Return that the EndpointSlices were not read, and why."""
    asked = (r for r in walk.cluster.bundle.at(API) if "endpointslices" in r.argv and not r.ok)
    failed = next(asked, None)
    if failed is None:
        return "its EndpointSlices are not recorded"
    return f"its EndpointSlices could not be read: {failed.why_not()}"


def _no_redirect(service: ServiceAddress, node: NodeView) -> Remedy:
    """A local redirect policy takes the frontend's traffic, and has no backend on the node."""
    title = service.redirect_policy
    cause = (
        f"{title or 'a CiliumLocalRedirectPolicy'} sends its traffic to pods of the same node "
        f"alone, and none of these is ready on {node.name}"
    )
    own = ", ".join(kinds.text(end) for end in service.sliced or () if end.ready)
    if own:
        cause += f"; the Service's own endpoints ({own}) get none of it"
    where = f"-n {word(service.namespace)}" if service.namespace else "-A"
    return Remedy(
        cause,
        Fix(
            f"Run one of the policy's backends on {node.name} (a DaemonSet has one on each node), "
            "or delete the policy.",
            f"kubectl get ciliumlocalredirectpolicies {where} -o yaml",
        ),
        title,
    )


def _of_every_cluster(found: Remedy, service: ServiceAddress, node: NodeView) -> Remedy:
    """Say of a global Service without an endpoint that no other cluster gives it one either."""
    owner = service.owner
    if owner is None or not is_global(owner):
        return found
    said = affinity_word(owner)
    if said not in ("", "local", "remote"):
        return Remedy(
            f"{found.cause}; endpoints of other clusters are left out: its annotation "
            f"{AFFINITY} is “{said[:_LONGEST]}”, which some versions of Cilium take for no cluster",
            Fix(
                f"Remove the annotation {AFFINITY}: without it, those of every cluster are used.",
                f"kubectl annotate service -n {word(owner.namespace)} {word(owner.name)} "
                f"{AFFINITY}-",
            ),
            f"Service {owner.namespace}/{owner.name}",
        )
    return replace(
        found,
        cause=f"{found.cause}; the Service is global, and no other cluster of the clustermesh "
        f"gives {node.name} an endpoint of it",
        fix=Fix(
            f"{found.fix.text} Or see to another cluster: its Service of this name and namespace "
            'has to be global, and not service.cilium.io/shared: "false", and the agent on '
            f"{node.name} has to be connected with it (`{node.cilium('status --all-clusters')}`).",
            found.fix.command,
        ),
    )


def take_another_node(service: ServiceAddress, node: str, local: str) -> Fix:
    """Return what to do about a node without a backend of its own.

    Args:
        service: the frontend.
        node: the node's name.
        local: the setting that is Local.
    """
    loses = ""
    if local == "externalTrafficPolicy":
        loses = ", where backends may see a node's address in place of the client's"
    command = (
        f"kubectl patch service -n {word(service.namespace)} {word(service.name)} "
        f'-p \'{{"spec":{{"{local}":"Cluster"}}}}\''
    )
    return Fix(
        f"Run a backend on {node}, or set {local}: Cluster{loses}.",
        command if service.name else "",
    )


def _take_another_zone(service: ServiceAddress, node: NodeView, zone: str, zones: str) -> Remedy:
    cause = (
        f"its endpoints have topology hints for zone {zones}, {node.name} is in {zone}, and Cilium "
        "uses no endpoint of another zone"
    )
    command = commands.edit_service(service.namespace, service.name)
    return Remedy(
        cause,
        Fix(
            f"Run a backend in zone {zone}, or remove trafficDistribution (in older clusters the "
            f"annotation service.kubernetes.io/topology-mode) from Service {service.name}.",
            command if service.name else "",
        ),
        f"Service {service.namespace}/{service.name}" if service.name else "",
    )


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
