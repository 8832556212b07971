"""Between the nodes, and out of the cluster."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import commands, node_state
from kubectl_ebpfnet.explain.path.agent_behind import without_frontend
from kubectl_ebpfnet.explain.path.endings import Destination
from kubectl_ebpfnet.explain.path.other_clusters import cluster_of
from kubectl_ebpfnet.explain.path.stages import tunnel_end
from kubectl_ebpfnet.explain.path.stages.missing_programs import was_without_cilium
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import address_text
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import Address, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, HopPlace, Severity, State
from kubectl_ebpfnet.model.shell import word


def cross(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Carry the packet over the wire, to another node or out of the cluster."""
    target = (here.packet.outer or here.packet.flow).destination
    by = f" by {here.next_hop}" if here.next_hop else ""
    node = _next_node(walk, here)
    if tunnel_end.to_nobody(walk, here):
        return None
    if node and node == here.node:
        walk.unknown(f"it leaves {here.node}{by} for {target}, which is on {here.node}")
    elif node:
        return _to_node(walk, here, node)
    elif walk.forth is not None and target == walk.ends.flow.source and walk.from_outside:
        _to_client(walk, here)
    elif walk.forth is not None:
        walk.unknown(f"it leaves {here.node}{by} for {target}, which is no node's")
    elif not _untranslated(walk, here):
        _leave_cluster(walk, here)
    return None


def _to_node(walk: PathBuilder, here: PacketState, node: str) -> PacketState | None:
    flow = here.packet.outer or here.packet.flow
    if (here.node, node, here.packet) in walk.crossings:
        _loop(walk, here, node)
        return None
    walk.crossings.add((here.node, node, here.packet))
    walk.links.append((here.node, here.device))
    how = f"encrypted by {here.encrypted}"
    if not here.encrypted:
        how = "in the tunnel" if here.packet.outer else "unencapsulated"
    reason = _by_router(walk, here, node)
    _by_other_node(walk, here, node)
    walk.hop(
        HopPlace.WIRE,
        f"{here.node} → {node}",
        "",
        HopKind.LINK,
        f"sent to {node} {how}: {endpoint_text(flow.source, flow.source_port)} → "
        f"{endpoint_text(flow.destination, flow.destination_port)}"
        + (f", by router {here.next_hop}" if reason else ""),
        State.UNKNOWN if reason else State.DERIVED,
        here.packet,
        reason=reason,
        decides=Decides.DROP,
        fix=_route_to(walk, here, node) if reason else None,
        short=f"to {node} {how}" + (f", by router {here.next_hop}" if reason else ""),
    )
    walk.visited_nodes.append(node)
    if walk.forth is None:
        node_state.warn(walk, node)
    identity, inner = here.identity, here.sealed or here.packet
    changed = inner.flow.source != walk.ends.flow.source
    if inner.outer is None and (changed or walk.from_node):
        # After source NAT, and for packets of a node, the identity follows from the address.
        entry = walk.cluster.node(node).ipcache_of(inner.flow.source)
        identity = entry.identity if entry is not None else 0
    return here.to(
        Stage.ARRIVAL, node=node, device="", in_device="", skips_netfilter=False,
        netfilter=None, identity=identity, by_proxy="",
    )  # fmt: skip


def _leave_cluster(walk: PathBuilder, here: PacketState) -> None:
    walk.links.append((here.node, here.device))
    seen = here.packet.flow
    source = endpoint_text(seen.source, seen.source_port)
    for hop in walk.hops:
        if hop.kind is HopKind.NAT and hop.state is State.UNKNOWN:
            source = f"an address that is not known ({hop.reason})"
    tracked = walk.tracked
    replied = walk.answered_now()
    if here.packet.outer is not None:
        source += f", in the tunnel to {here.packet.outer.destination}"
        other = cluster_of(walk.cluster.node(here.node), seen.destination)
        source += f", a node of cluster {other} of the clustermesh" if other is not None else ""
    walk.hop(
        HopPlace.WORLD,
        str(seen.destination),
        "",
        HopKind.DELIVERY,
        f"{address_text(walk.cluster, seen.destination)} sees {source}"
        + (", and answered" if replied else ""),
        State.OBSERVED if replied else State.DERIVED,
        here.packet,
        tracked.evidence[:1] if replied and tracked is not None else (),
        short="replies came back" if replied else "it leaves; beyond is not known",
    )
    walk.arrived(Destination.OUTSIDE, f"as {source}")


def _to_client(walk: PathBuilder, here: PacketState) -> None:
    """Let the answer to a client outside leave the cluster."""
    walk.links.append((here.node, here.device))
    flow, replied = here.packet.flow, walk.answered_now()
    walk.hop(
        HopPlace.WORLD, str(flow.destination), "", HopKind.DELIVERY,
        f"client {flow.destination} sees the answer of "
        f"{endpoint_text(flow.source, flow.source_port)}",
        State.OBSERVED if replied else State.DERIVED, here.packet,
        walk.attempt.evidence[:1] if replied and walk.attempt is not None else (),
        short="the client sees the answer",
    )  # fmt: skip
    walk.arrived(Destination.OUTSIDE, f"to client {flow.destination}")


def _untranslated(walk: PathBuilder, here: PacketState) -> bool:
    """Tell whether a service's address leaves the cluster untranslated, and report it."""
    service = walk.ends.service
    if service is None:
        return _no_such_port(walk, here)
    if here.packet.flow.destination != service.address or service.passed_over:
        return False
    said = (
        h for h in reversed(walk.hops) if (h.kind, h.node) == (HopKind.LOAD_BALANCING, here.node)
    )
    by_rules = next(said, None)
    if by_rules is not None:  # the stage that found it has reported it
        alone = walk.left_alone
        said_why = alone.cause if alone is not None else by_rules.reason or by_rules.summary
        reason = f"{said_why}; so it leaves {here.node} for the Service's own address"
        walk.unknown(reason, alone.fix if alone is not None else _balance(here.node))
        return True
    virtual = service.type == "ClusterIP"
    reason = f"{service.title} leaves {here.node} without having become a backend's address"
    node = walk.cluster.node(here.node)
    if node.config.kube_proxy_replacement and node[q.LB_MAP].known and service.in_cilium is False:
        found = without_frontend(walk.cluster, service, here.node)
        walk.unknown(f"{reason}: {found.cause}", found.fix)
    else:
        why, fix = was_without_cilium(walk, here.node) or ("", _balance(here.node))
        walk.unknown(reason + why, fix)
    walk.finding(
        Severity.ERROR if virtual else Severity.WARNING,
        f"nothing on {here.node} load-balances {service.title}",
        "Neither Cilium's load-balancer nor a rule of kube-proxy rewrites it there. "
        + (
            "No network outside of the cluster has a ClusterIP."
            if virtual
            else "It arrives only if the network outside leads it back to a node that does."
        ),
        service.evidence,
    )
    return True


def _balance(node: str) -> Fix:
    return Fix(
        f"See that kube-proxy, or Cilium's agent where it replaces it, runs on {node}: a restart "
        "writes its rules and maps anew.",
        f"kubectl get pods -n kube-system -o wide {commands.pods_on(node)}",
    )


def _no_such_port(walk: PathBuilder, here: PacketState) -> bool:
    """Tell whether the packet is for a service's address at a port that it lacks, and report it."""
    flow, node = here.packet.flow, walk.cluster.node(here.node)
    node.want(q.LB_MAP, flow.destination)
    # Cilium's row of port 0: what no row of a port matches goes nowhere (since 1.19).
    closed = node.having(q.LB_MAP, (flow.destination, 0), "address", "port")
    for service in walk.cluster.index.services_with(flow.destination):
        asked = protocol_name(flow.protocol)
        port = f"port {flow.destination_port}/{asked}" if flow.destination_port else asked
        offered = ", ".join(f"{p.port}/{protocol_name(p.protocol)}" for p in service.ports)
        name = f"svc {service.namespace}/{service.name}"
        nobodys = bool(closed) or flow.destination in service.cluster_addresses
        reason = f"{flow.destination} is {name}, which does not serve {port}"
        if walk.from_outside and not nobodys:
            # It does not leave the cluster for good: the network led this address to the node.
            reason += (
                f": {here.node} does not translate it, and sends it back to the network, which led "
                f"{flow.destination} here"
            )
        if nobodys or walk.from_outside:
            own = Fix(f"Ask for a port that {name} has: {offered or 'it has none'}.")
            walk.unknown(reason, own)
        walk.finding(
            Severity.ERROR if nobodys else Severity.WARNING,
            f"{name} does not serve {port}",
            f"It serves {offered or 'nothing'}; what is sent to another port of "
            f"{'this address' if closed else 'a ClusterIP'} reaches nobody."
            if nobodys
            else f"It serves {offered or 'nothing'}; another port of {flow.destination} is not "
            "translated: it goes where the network has this address.",
            cite.whole(walk.cluster.api_record("services"))
            + cite.of(node[q.LB_MAP].record, *(row.span for row in closed)),
        )
        return nobodys or walk.from_outside
    return False


def _loop(walk: PathBuilder, here: PacketState, node: str) -> None:
    """Drop a packet that crosses the wire between the same nodes again, unchanged: a loop."""
    routes = [
        piece
        for name in (here.node, node)
        for hop in [h for h in walk.hops if h.kind is HopKind.ROUTE and h.node == name][-1:]
        for piece in hop.evidence
    ]
    walk.drop(
        HopPlace.WIRE,
        f"{here.node} → {node}",
        "",
        HopKind.LINK,
        f"routing loop: {here.node} sends it to {node} again, until its TTL ends",
        State.DERIVED,
        here.packet,
        tuple(routes),
        title=f"routing loop between {here.node} and {node}",
        detail=f"Each has a route for {(here.packet.outer or here.packet.flow).destination} by the "
        "other.",
    )


def _by_router(walk: PathBuilder, here: PacketState, node: str) -> str:
    """Return what must be so for a pod's packet to reach its node by a router that is no node, and
    report it; "" where no such router is on the way, or where the flow is answered."""
    flow = here.packet.outer or here.packet.flow
    if here.next_hop is None or walk.cluster.node_of(flow.destination):
        return ""
    if walk.cluster.owner_of(here.next_hop) or walk.answered_now():
        return ""
    owned = walk.cluster.prefix_owners(flow.destination)
    target = next((str(cidr) for name, cidr in owned if name == node), str(flow.destination))
    text = f"it arrives only if the router {here.next_hop} routes {target} to {node}"
    beside = _on_link(walk, here, node)
    direct = (
        f", though {node} itself is on the same link, at {beside}" if beside is not None else ""
    )
    walk.finding(
        Severity.WARNING,
        f"{here.node} sends {flow.destination}, a pod of {node}, to {here.next_hop}, which is no "
        "node",
        f"No route of {here.node} leads to {node}, so {text}: Cilium sets one with "
        "auto-direct-node-routes, or BGP or the cloud's router has to.",
    )
    return f"{text}, which no record shows{direct}"


def _on_link(walk: PathBuilder, here: PacketState, node: str) -> Address | None:
    """Return an InternalIP of a node to which a packet's device leads without a router, None where
    it does not."""
    version = here.packet.flow.destination.version
    links = [
        route.destination
        for route in walk.cluster.node(here.node)[q.ROUTES].facts
        if route.device == here.device and route.gateway is None and route.type == "unicast"
        if route.destination.version == version and route.destination.prefixlen > 0
    ]
    own = (one for one in walk.cluster.internal_addresses(node) if one.version == version)
    return next((one for one in own if any(one in link for link in links)), None)


def _by_other_node(walk: PathBuilder, here: PacketState, node: str) -> None:
    """Report a route that leads a packet to another node than that of the pod which it is for."""
    target, route = here.packet.flow.destination, here.route
    if here.packet.outer is not None or here.next_hop is None:
        return
    own = _pods_node(walk, here)
    if own in ("", node):
        return
    record = walk.cluster.node(here.node)[q.ROUTES].record
    walk.finding(
        Severity.WARNING,
        f"{here.node} sends {target}, a pod of {own}, to {node}",
        f"Its next hop {here.next_hop} is {node}'s, so it arrives only if {node} sends it on. "
        f"`ip route get {target}` on {here.node} shows the route that is to lead to {own}.",
        cite.of(record, route.span) if route is not None else (),
    )


def _route_to(walk: PathBuilder, here: PacketState, node: str) -> Fix:
    """Return what leads a packet to its node, where a router that is no node is on the way."""
    target = (here.packet.outer or here.packet.flow).destination
    beside = _on_link(walk, here, node)
    owned = [cidr for name, cidr in walk.cluster.prefix_owners(target) if name == node]
    if beside is None or not owned:
        return Fix(
            f"Give {here.node} a route to {node} for its pods, or see that {here.next_hop} has "
            "one.",
            f"ip route get {target}",
        )
    six = "-6 " if target.version == 6 else ""
    return Fix(
        f"Give {here.node} a route to {node} for its pods, as Cilium does with "
        f"auto-direct-node-routes, or see that {here.next_hop} has one.",
        f"ip {six}route replace {owned[0]} via {beside} dev {word(here.device)}",
    )


def _next_node(walk: PathBuilder, here: PacketState) -> str:
    """Return the node that the packet comes to next, "" outside of the cluster."""
    cluster = walk.cluster
    flow = here.packet.outer or here.packet.flow
    # A next hop that is a node receives the packet whatever its destination; routers are ignored.
    node = walk.cluster.owner_of(here.next_hop) if here.next_hop is not None else ""
    if not node:
        node = cluster.node_of(flow.destination)
    if not node:
        node = _pods_node(walk, here)
    return node


def _pods_node(walk: PathBuilder, here: PacketState) -> str:
    """Return the node of the pod that a packet is for, by the pod or its prefix; "" for none."""
    destination = here.packet.flow.destination
    pod = walk.cluster.pod_with(destination)
    if pod is not None:
        return pod.node
    return next((name for name, _ in walk.cluster.prefix_owners(destination)), "")
