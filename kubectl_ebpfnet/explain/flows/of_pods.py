"""The flows of several pods, by the tables of their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubectl_ebpfnet.explain.flows.listing import flows_of, pod_filters
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.placed import Placed
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.flows import FlowList
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import TrackedFlow
from kubectl_ebpfnet.model.protocol.questions import FlowFilter


def of_pods(
    pods: Sequence[Placed],
    target: str,
    bundle: Bundle,
    peers: Sequence[FlowFilter] = (FlowFilter(),),
    most: int | None = None,
    *,
    alive: bool = False,
) -> FlowList:
    """Return the flows of several pods, as their nodes track them. A flow between two of them is
    listed once a node, as its client's where that is there.

    Args:
        pods: the pods; those that share their node's address are left out, and counted.
        target: in words which pods they are.
        bundle: all records.
        peers, most, alive: as for `of_pod`.
    """
    missing: list[str] = []
    shared = sum(pod.host_network for pod in pods)
    if shared:
        missing.append(f"{shared} pods that share the address of their node (flows node/NAME)")
    nowhere = [p for p in pods if not p.host_network and not (p.node and p.addresses)]
    if nowhere:
        missing.append(f"{len(nowhere)} pods whose node or address is not known")
    owner = {
        (pod.node, address): f"{pod.namespace}/{pod.name}"
        for pod in pods
        if pod.node and not pod.host_network
        for address in pod.addresses
    }
    lists, cluster = [], ClusterView(bundle)
    for node in dict.fromkeys(node for node, _ in owner):
        filters = pod_filters((address for at, address in owner if at == node), peers)
        lists.append(flows_of(cluster.node(node), filters, alive=alive))
    flows = [flow for found in lists for flow in found.flows]
    if len(lists) > 1:  # ages of different nodes compare, clocks do not
        flows.sort(key=lambda flow: _older(flow.last_seen.any))
    shown = tuple(flows[:most])
    unlooked = bool(pods) and not lists
    return FlowList(
        target,
        lists[0].node if len(lists) == 1 else "",
        shown,
        tuple(dict.fromkeys([*missing, *(text for found in lists for text in found.missing)])),
        bool(flows) or (all(found.known for found in lists) and not nowhere and not unlooked),
        len(flows) - len(shown),
        sum(found.over for found in lists),
        tuple(_owner(flow, owner) for flow in shown),
    )


def _older(age: float | None) -> tuple[bool, float]:
    return age is None, age or 0.0


def _owner(flow: TrackedFlow, owner: Mapping[tuple[str, Address], str]) -> str:
    """Return the pod of a flow's node that sends it, or receives it."""
    ends = (flow.flow.source, flow.flow.destination, flow.translated.destination)
    return next((owner[flow.node, end] for end in ends if (flow.node, end) in owner), "")
