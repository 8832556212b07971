"""A pod's packet that leaves the cluster with its own address, since nothing masquerades it."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence, Fix, HopKind, Outcome, Severity, State


def in_native_cidr(node: NodeView, destination: Address) -> str:
    """Return that a node's settings spare a destination, whatever masquerades; "" where not.

    Source: Cilium's option ipv4-native-routing-cidr (ipv6-…): of BPF the exclusion CIDR, of
    netfilter the `! -d` of its rule.
    """
    return next(
        (
            f"{destination} is in the native routing CIDR {cidr}"
            for cidr in node.config.native_cidrs
            if destination in cidr
        ),
        "",
    )


def report_missing(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    evidence: tuple[Evidence, ...],
    why: str = "nothing on the node does it",
) -> None:
    """Add the hop of a pod's packet that leaves the cluster with its own address, and the finding
    where it should not.

    Args:
        walk: takes hops and findings.
        here: the packet at its egress device.
        node: the node that it leaves.
        evidence: the table that does not masquerade it.
        why: why not, one clause, where masquerading is on.
    """
    flow = here.packet.flow
    if flow.source in node.own_addresses or flow.source in walk.cluster.node_addresses:
        return
    if walk.from_outside and flow.source == walk.ends.flow.source:
        return  # it is no pod's
    wanted = node.config.masquerading_of(flow.source.version)
    off = wanted == "disabled"
    if not off and (spared := in_native_cidr(node, flow.destination)):
        proof = (*cite.of(node.config_record, node.config.masquerading), *evidence)
        where = here.on_node(HopKind.NAT)
        walk.hop(*where, f"not masqueraded: {spared}", State.DERIVED, here.packet, proof)
        return
    walk.hop(
        *here.on_node(HopKind.NAT),
        f"nothing masquerades pod address {flow.source}: it leaves the cluster as it is",
        State.DERIVED, here.packet, evidence,
    )  # fmt: skip
    attempt = walk.attempt
    answered = attempt is not None and attempt.outcome is Outcome.ANSWERED and not walk.outdated
    if not off:
        walk.doubt(
            f"pod address {flow.source} leaves the cluster as it is, and no answer was seen",
            fix=Fix(f"Masquerade it, or see that {flow.destination} has a route to the pods."),
        )
    walk.finding(
        Severity.WARNING if off or answered else Severity.ERROR,
        f"pod address {flow.source} leaves the cluster without masquerading",
        (
            f"Masquerading is switched off (enable-ipv{flow.source.version}-masquerade); "
            if off
            else f"Cilium is set to masquerade by {wanted or 'a way that is not known'}, but "
            f"{why}; "
        )
        + f"{flow.destination} can answer only if its network routes the pod CIDR back here.",
        evidence,
    )
