"""The receiving pod's side: ingress policy, conntrack, and the veth into the pod.

Source: Cilium bpf/bpf_lxc.c (cil_lxc_policy): conntrack IN look-up, ingress policy, delivery.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.endings import Destination
from kubectl_ebpfnet.explain.path.own_flow import incoming_at
from kubectl_ebpfnet.explain.path.stages import (
    endpoint_rows,
    listener,
    pod_address,
    pod_gone,
    pod_rules,
    proxy,
    reply_nat,
    size,
    tunnel_end,
)
from kubectl_ebpfnet.explain.path.stages.foreign_programs import (
    own_device,
    show_at_cgroups,
    show_foreign_at,
    show_in_pod,
)
from kubectl_ebpfnet.explain.path.stages.forward import endpoint_evidence
from kubectl_ebpfnet.explain.path.stages.link_state import link_evidence, takes_packets
from kubectl_ebpfnet.explain.path.stages.losses import sends
from kubectl_ebpfnet.explain.path.stages.pod import pair_kind
from kubectl_ebpfnet.explain.path.stages.policy_hop import policy_hop
from kubectl_ebpfnet.explain.path.stages.sctp import is_tracked
from kubectl_ebpfnet.explain.path.stages.tail_calls import no_policy_program
from kubectl_ebpfnet.explain.path.stages.veth import CAME_BACK, ct_short, ct_text
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.at_cgroups import INGRESS
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Endpoint
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import HopKind, HopPlace, Severity, State


def enter(walk: PathBuilder, here: PacketState) -> PacketState | None:
    """Hand the packet to a local endpoint: the walk ends in the pod, or before it."""
    node = walk.cluster.node(here.node)
    endpoint = node.local_endpoint(here.packet.flow.destination)
    if walk.forth is not None:
        return _answered(walk, here, node, endpoint or walk.ends.source_endpoint)
    tracked = incoming_at(walk, here)
    if not here.unpoliced and not is_tracked(walk, here, node):
        return None
    endpoint_id = endpoint.id if endpoint is not None else None
    if not here.unpoliced and no_policy_program(walk, here, node, endpoint_id):
        return None
    if not here.unpoliced and not policy_hop(
        walk, here, node, here.packet, endpoint_id, "ingress", _source_identity(here, node)
    ):
        return None
    if tracked is not None and tracked.cilium_ct is not None:
        entry = tracked.cilium_ct
        walk.hop(
            *here.in_cilium(HopKind.CONNTRACK),
            f"{ct_text(entry)}, identity {entry.source_identity}{CAME_BACK[tracked.outcome]}",
            State.OBSERVED,
            here.packet,
            tracked.evidence[:1],
            short=f"{ct_short(entry)}{CAME_BACK[tracked.outcome]}",
        )
    redirect = proxy.redirect_at(walk, here.node, "ingress")
    taken = here if redirect is None else proxy.take(walk, here, node, redirect)
    if taken is not None and _veth(walk, taken, node, endpoint) and _may_come_in(walk, taken):
        _into_pod(walk, taken)
    return None


def _answered(
    walk: PathBuilder, here: PacketState, node: NodeView, endpoint: Endpoint | None
) -> PacketState | None:
    """Hand an answer to the pod that sent the packet: no policy is asked (CT_REPLY)."""
    if not node[q.ENDPOINT_MAP].known:
        command = node.cilium("bpf endpoint list")
        walk.presumed.add(f"the endpoint map of node {here.node} (`{command}`)")
    redirect = proxy.redirect_at(walk, here.node, "egress")
    if redirect is not None:
        return proxy.answer(walk, here, redirect)
    here = reply_nat.undo(walk, here, reply_nat.Undone.AT_SENDER)
    if not _veth(walk, here, node, endpoint) or not _may_come_in(walk, here):
        return None
    flow = here.packet.flow
    pod = walk.cluster.pod_with(flow.destination)
    name = f"{pod.namespace}/{pod.name}" if pod is not None else str(flow.destination)
    if pod is not None:
        tunnel_end.handed_over(walk, here, pod)
        _programs_in_pod(walk, here, pod)
    end = endpoint_text(flow.source, flow.source_port)
    walk.hop(
        HopPlace.POD, name, here.node, HopKind.DELIVERY, f"pod {name} receives the answer of {end}",
        State.OBSERVED if walk.answered_now() else State.DERIVED, here.packet,
        walk.attempt.evidence[:1] if walk.answered_now() and walk.attempt is not None else (),
        short="the answer arrives",
    )  # fmt: skip
    walk.arrived(Destination.POD, f"to pod {name}")
    return None


def _source_identity(here: PacketState, node: NodeView) -> int | None:
    if here.identity:
        return here.identity
    entry = node.ipcache_of(here.packet.flow.source)
    return entry.identity if entry is not None else None


def _veth(walk: PathBuilder, here: PacketState, node: NodeView, endpoint: Endpoint | None) -> bool:
    name = here.device or (endpoint.interface if endpoint else "")
    link = node.link(name) if name else None
    by_row = here.skips_netfilter or here.from_host
    if by_row and endpoint_rows.leads_nowhere(walk, here, node):
        return False
    if by_row and not endpoint_rows.compare(walk, here, node):
        return False
    if not takes_packets(walk, here, node, name, f"{name}, the host side of the receiving pod,"):
        return False
    if name:
        into_pod = node.config.host_routing == "bpf" or node.host_routing.bpf
        if here.skips_netfilter and not into_pod:
            # bpf_redirect() sends it out of the device; bpf_redirect_peer() puts it into the pod.
            show_foreign_at(walk, here, name, "egress")
        if not (here.skips_netfilter and into_pod) and not sends(walk, here, node, name):
            return False
        evidence = link_evidence(node, name)
        if not evidence and endpoint is not None and endpoint.interface == name:
            evidence = endpoint_evidence(node, endpoint)
        walk.hop(
            *here.on_node(HopKind.LINK), f"{pair_kind(node, link)} {name} → the pod",
            State.DERIVED, here.packet, evidence,
        )  # fmt: skip
    return not name or size.into_pod(walk, here, node, name)


def _may_come_in(walk: PathBuilder, here: PacketState) -> bool:
    """Let the packet pass netfilter in the pod that receives it; return whether it goes on."""
    pod = walk.cluster.pod_with(here.packet.flow.destination)
    if pod is None:
        return True
    netns = walk.cluster.pod_netns(pod.namespace, pod.name)
    device = own_device(netns, here.packet.flow.destination)
    pod_address.has(walk, netns, pod, here.packet.flow.destination)
    return pod_rules.may_come_in(walk, netns, here.packet, device)


def _programs_in_pod(walk: PathBuilder, here: PacketState, pod: Pod) -> None:
    """Add the programs of others at the pod's own device, and at the cgroups of its socket."""
    netns = walk.cluster.pod_netns(pod.namespace, pod.name)
    device = own_device(netns, here.packet.flow.destination)
    show_in_pod(walk, here, netns, f"{pod.namespace}/{pod.name}", device, "ingress")
    show_at_cgroups(walk, here, pod.namespace, pod.name, {INGRESS})


def _into_pod(walk: PathBuilder, here: PacketState) -> None:
    flow = here.packet.flow
    pod = walk.cluster.pod_with(flow.destination)
    name = f"{pod.namespace}/{pod.name}" if pod is not None else str(flow.destination)
    if pod is not None:
        tunnel_end.handed_over(walk, here, pod)
        _programs_in_pod(walk, here, pod)
    replied = walk.destination_answers()
    walk.hop(
        HopPlace.POD,
        name,
        here.node,
        HopKind.DELIVERY,
        f"pod {name} receives {endpoint_text(flow.source, flow.source_port)} → "
        f"{endpoint_text(flow.destination, flow.destination_port)}"
        + (", and answered" if replied else ""),
        State.OBSERVED if replied else State.DERIVED,
        here.packet,
        walk.tracked.evidence[:1] if replied and walk.tracked is not None else (),
        short="it arrives, and was answered" if replied else "it arrives",
    )
    if pod is not None and not pod.serves:
        why = f": {pod.reason}" if pod.reason else ""
        state = "is being deleted" if pod.deleting else f"is not ready{why}"
        walk.finding(
            Severity.WARNING,
            f"the receiving pod {name} {state}",
            f"`{commands.describe_pod(pod.namespace, pod.name)}` tells why.",
        )
    if pod is not None and not listener.in_pod(walk, here, pod):
        return
    pod_gone.report(walk, walk.cluster.node(here.node), flow.destination)
    end = endpoint_text(flow.destination, flow.destination_port)
    walk.arrived(Destination.POD, f"to pod {name} at {end}")
