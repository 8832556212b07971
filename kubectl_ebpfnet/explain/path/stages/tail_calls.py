"""A program of Cilium's whose map of tail calls is empty drops the packet: "Missed tail call"."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.tail_calls import MissedCall, missed_call, missed_policy
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.path import Fix, HopKind, HopPlace, State


def calls_nothing(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Tell whether Cilium's program at a device has nothing to call, and drop the packet.

    Args:
        walk: takes the drop.
        here: the packet at the device.
        node: of the device.
        device: has a program of Cilium's.
    """
    number = node.endpoint_at(device)
    missed = missed_call(node, device, number)
    if missed is not None:
        _drop(walk, here, node, device, missed, number)
    return missed is not None


def no_policy_program(
    walk: PathBuilder, here: PacketState, node: NodeView, endpoint_id: int | None
) -> bool:
    """Tell whether the program that checks an endpoint's ingress policy cannot be called, and drop
    the packet.

    Args:
        walk: takes the drop.
        here: the packet, handed to the endpoint by a program of Cilium's.
        node: of the endpoint.
        endpoint_id: None when not known.
    """
    if endpoint_id is None:
        return False
    missed = missed_call(node, here.device, endpoint_id)
    if missed is None and here.skips_netfilter:  # else cil_to_container does it, in its own parts
        missed = missed_policy(node, here.device, endpoint_id)
    if missed is not None:
        _drop(walk, here, node, here.device, missed, endpoint_id)
    return missed is not None


def _drop(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    device: str,
    missed: MissedCall,
    endpoint_id: int | None,
) -> None:
    text = f"Cilium's program at {device} calls nothing: {missed.map} is empty"
    command = node.in_agent(f"endpoint regenerate {endpoint_id}") if endpoint_id is not None else ""
    walk.drop(
        HopPlace.CILIUM,
        device,
        here.node,
        HopKind.PROGRAM,
        f"{text}: Missed tail call",
        State.DERIVED,
        here.packet,
        missed.evidence,
        title=f"the map of tail calls {missed.map} of node {here.node} is empty",
        detail=f"No policy, no load-balancing and no delivery at {device}: what comes there is "
        "dropped. Restarting the agent fills it.",
        fix=Fix(f"Let the agent on {here.node} load its programs again.", command),
    )
