"""Load-balancing of what comes in by a device: NodePorts, hostPorts, external and LoadBalancer
addresses.

Source: Cilium bpf/lib/nodeport.h (nodeport_lb4, nodeport_snat_fwd, DSR), run by cil_from_netdev,
cil_from_overlay and cil_xdp_entry. The address itself is looked up, in the external scope; a
backend on another node is reached with the balancing node's own address (SNAT), or with the
client's (DSR).
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.flows.between import nat_entry_of
from kubectl_ebpfnet.explain.path.frontend_lookup import Lookup
from kubectl_ebpfnet.explain.path.own_flow import tracked_at
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.path.stages import forward, loadbalancing, source_ranges
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.net import TCP, Address, Flow, endpoint_text, has_ports, protocol_name
from kubectl_ebpfnet.model.path import Decides, HopKind, HopPlace, State


def balance(
    walk: PathBuilder, here: PacketState, node: NodeView, device: str, *, by_xdp: bool = False
) -> PacketState | None:
    """Send a packet for a frontend of this node to a backend.

    Args:
        walk: takes hops and findings.
        here: the packet, decapsulated.
        node: the node that it came in to.
        device: the device that it came in by.
        by_xdp: Cilium's XDP program does it, before those at tc.

    Returns:
        The packet, as it is where it is for no frontend; None when the walk ends.
    """
    flow = here.packet.flow
    if not has_ports(flow.protocol) or flow.destination_port is None:
        return here
    if node.config.kube_proxy_replacement is False or node.local_endpoint(flow.destination):
        return here
    where = (HopPlace.CILIUM, device, node.name, HopKind.LOAD_BALANCING)
    service = find(
        walk.cluster, node.name, flow.destination, flow.destination_port, flow.protocol,
        Lookup.DEVICE,
    )  # fmt: skip
    if _is_unread(walk, here, node, service, where):
        return here
    if service is None:
        return here if not _closed(walk, here, node, device) else None
    if not service.in_cilium:
        return here
    if "non-routable" in service.flags and node.config.kube_proxy_replacement:
        _drop_cluster_ip(walk, here, service, where)
        return None
    if not source_ranges.let_in(walk, here, service, device):
        return None
    packet = loadbalancing.rewrite(
        walk, here.packet, service, where,
        f"at {device} of {node.name}{', by XDP' if by_xdp else ''}",
        tracked_at(walk, here), external=True,
    )  # fmt: skip
    if packet is None or packet == here.packet:
        return None if packet is None else here
    if not _is_here(node, packet.flow.destination):
        sent = here.to(here.stage, packet=packet, by_xdp=by_xdp)
        return _to_other_node(walk, sent, node, service, device)
    return here.to(here.stage, packet=packet)


def _is_unread(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    service: ServiceAddress | None,
    where: Where,
) -> bool:
    """Say that the node's map was not read, where it may have the packet's destination."""
    flow = here.packet.flow
    # The agent's list names NodePorts by their wildcard alone, so it shows no frontend of a device.
    unread = not node[q.LB_MAP].known and (service is None or not service.in_cilium)
    if not unread or (service is None and not _may_lead_to_a_pod(walk, node, flow)):
        return False
    end = endpoint_text(flow.destination, flow.destination_port)
    walk.hop(
        *where, f"{end}: a frontend or the node's own", State.UNKNOWN, here.packet,
        reason=f"whether the load-balancer of {node.name} has {end} is not known: "
        f"{node[q.LB_MAP].missing}", decides=Decides.WAY,
    )  # fmt: skip
    return True


def _drop_cluster_ip(
    walk: PathBuilder, here: PacketState, service: ServiceAddress, where: Where
) -> None:
    """Drop what comes from outside for an address that is for the inside alone."""
    walk.drop(
        *where,
        f"{service.title} is for clients inside of the cluster alone: Is a ClusterIP",
        State.DERIVED,
        here.packet,
        service.evidence,
        title=f"{service.title} is not reached from outside",
        detail="Use its node port, a load-balancer's address or an external IP; with "
        "bpf-lb-external-clusterip Cilium takes ClusterIPs from outside, too.",
        object=f"Service {service.namespace}/{service.name}" if service.name else "",
    )


def _closed(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Drop a packet for a Service's address at a port that it does not have, where Cilium has a row
    for all of these (port 0, since 1.19); return whether it did."""
    flow = here.packet.flow
    rows = node.having(q.LB_MAP, (flow.destination, 0), "address", "port")
    if not rows:
        return False
    port = f"{flow.destination_port}/{protocol_name(flow.protocol)}"
    walk.drop(
        *here.in_cilium(HopKind.LOAD_BALANCING, device),
        f"no frontend {flow.destination} has port {port}: Service backend not found",
        State.DERIVED,
        here.packet,
        cite.of(node[q.LB_MAP].record, *(row.span for row in rows)),
        title=f"no Service serves port {port} of {flow.destination}",
        detail="Ask for a port that the Service has: `kubectl get services -A -o wide`.",
    )
    return True


def _may_lead_to_a_pod(walk: PathBuilder, node: NodeView, flow: Flow) -> bool:
    """Tell whether a port of the node may be a hostPort, or of a Service that was not read."""
    if not _is_here(node, flow.destination):
        return False
    kube = walk.cluster.kube
    if not kube.pods or walk.cluster.api_record("services") is None:
        return True
    wanted = (flow.destination_port, flow.protocol)
    return any(pod.node == node.name and wanted in pod.host_ports for pod in kube.pods)


def _is_here(node: NodeView, address: Address) -> bool:
    return node.local_endpoint(address) is not None or address in node.own_addresses


def _to_other_node(
    walk: PathBuilder, here: PacketState, node: NodeView, service: ServiceAddress, device: str
) -> PacketState | None:
    """Forward the packet to the backend's node, as the client or as this node."""
    remote = node.ipcache_of(here.packet.flow.source)
    inside = here.to(
        here.stage, device=device, identity=remote.identity if remote is not None else 0
    )
    return forward.to_other_node(walk, _with_source(walk, inside, node, service), node)


def _with_source(
    walk: PathBuilder, here: PacketState, node: NodeView, service: ServiceAddress
) -> PacketState:
    flow = here.packet.flow
    where = here.in_cilium(HopKind.NAT)
    mode = _mode(node, service, flow.protocol)
    evidence = cite.whole(node.config_record)
    seen = nat_entry_of(node, flow)
    if seen is not None:
        packet = replace(here.packet, flow=seen.fact.translated())
        end = endpoint_text(seen.fact.address, seen.fact.port)
        walk.hop(
            *where, f"the source becomes {end}, as Cilium's NAT map shows", State.OBSERVED, packet,
            seen.evidence, short="by Cilium",
        )  # fmt: skip
        return here.to(here.stage, packet=packet)
    if mode == "dsr":
        walk.hop(
            *where, "DSR: the source stays, the backend's node answers the client by itself",
            State.DERIVED, here.packet, evidence,
        )  # fmt: skip
        return here
    new = _own_address(node, here) if mode == "snat" else None
    if new is None:
        reason = (
            f"the address of {node.name} that replaces the source is not known"
            if mode
            else f"whether {node.name} keeps the client's address (DSR) is not known"
        )
        text = "the source becomes an address of the node's" if mode else "SNAT or DSR"
        walk.hop(
            *where, text, State.UNKNOWN, here.packet, evidence, reason=reason, decides=Decides.WAY
        )
        return here
    packet = replace(here.packet, flow=flow.with_source(new, None))
    walk.hop(
        *where, f"SNAT: the source becomes {new}, since the backend is on another node",
        State.DERIVED, packet, evidence, short="by Cilium: the backend is on another node",
    )  # fmt: skip
    return here.to(here.stage, packet=packet)


def _mode(node: NodeView, service: ServiceAddress, protocol: int) -> str:
    """Return `snat` or `dsr`; "" when not known."""
    config = node.config
    if "dsr" in service.flags:
        return "dsr"
    # Every version's default, which charts leave out of the ConfigMap (pkg/option, NodePortMode).
    mode = config.node_port_mode.lower() or ("snat" if node.config_record is not None else "")
    if mode == "hybrid":
        return "dsr" if protocol == TCP else "snat"
    return mode if mode in ("snat", "dsr") else ""


def _own_address(node: NodeView, here: PacketState) -> Address | None:
    """Return the source that SNAT uses: cilium_host's in a tunnel, else the device's."""
    flow = here.packet.flow
    version = flow.source.version
    if forward.tunnel_entry(node, flow.destination) is not None:
        own = [a for a in node.router_addresses if a.version == version]
    else:
        own = list(node.addresses_of(here.device, version))
    return own[0] if len(own) == 1 else None
