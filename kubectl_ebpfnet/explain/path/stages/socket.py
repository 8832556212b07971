"""The sender's socket: Cilium's socket load-balancer rewrites the address at connect().

Source: Cilium bpf/bpf_sock.c; programs cil_sock4_connect … at the cgroup root. The packet never
carries the service's address then. A hostNetwork pod goes on in its node's own stack.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import passed_over
from kubectl_ebpfnet.explain.path.stages import loadbalancing
from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_at_cgroups
from kubectl_ebpfnet.explain.path.stages.missing_programs import connects_without_cilium
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Stage
from kubectl_ebpfnet.explain.programs.at_cgroups import EGRESS, of_socket
from kubectl_ebpfnet.model.path import HopKind, State


def leave(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Send the packet from its socket to the routing of the pod, or of the node."""
    packet = here.packet
    hooks = of_socket(packet.flow) | {EGRESS}
    show_at_cgroups(walk, here, walk.sender.namespace, walk.sender.name, hooks)
    service = walk.ends.service
    # A pod's socket leaves an L7 load-balancer to the program at the device (bpf/bpf_sock.c).
    to_device = service is not None and service.by_proxy and not walk.ends.host_network
    by_socket = service is not None and not to_device and _socket_lb(walk, here)
    if by_socket and connects_without_cilium(walk, walk.cluster.node(here.node), packet.flow):
        by_socket = False
    if service is not None and service.passed_over:
        passed_over.show(walk, packet, service, walk.in_source_pod(HopKind.LOAD_BALANCING))
    if service is not None and by_socket:
        where = walk.in_source_pod(HopKind.LOAD_BALANCING)
        how = "at connect(), by Cilium's socket load-balancer"
        rewritten = loadbalancing.rewrite(walk, packet, service, where, how)
        if rewritten is None:
            return None
        packet = rewritten
    if walk.ends.host_network:
        walk.hop(
            *here.on_node(HopKind.SOCKET),
            _who_sends(walk),
            State.DERIVED,
            packet,
            short="" if walk.sender.kind == "node" else "sent in the node's own namespace",
        )
        return here.to(Stage.HOST, packet=packet)
    if walk.tracked is not None and walk.tracked.cilium_ct is not None:
        seen = walk.tracked.cilium_ct.flow
        if seen.destination == packet.flow.destination:
            packet = replace(packet, flow=replace(packet.flow, source_port=seen.source_port))
    return here.to(Stage.POD, packet=packet)


def _who_sends(walk: PathBuilder) -> str:
    """Return who sends from a node's own network namespace."""
    if walk.sender.kind == "node":
        return f"a process of node {walk.sender.node} sends it, as kubelet does"
    return f"{walk.source_pod} is a hostNetwork pod: it sends from its node's own namespace"


def _socket_lb(walk: PathBuilder, here: PacketState) -> bool:
    """Tell whether Cilium's program at connect() translates the destination."""
    config, service = walk.cluster.node(here.node).config, walk.ends.service
    if walk.tracked is not None and walk.tracked.service_ct is not None:
        return False
    if not config.socket_lb or (service is not None and service.in_cilium is False):
        return False
    return bool(walk.ends.host_network or not config.socket_lb_host_only)
