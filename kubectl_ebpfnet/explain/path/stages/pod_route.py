"""The pod's own routing decision: its rules, its tables, and the kernel's own look-up there."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.kernel.decision import (
    Decision,
    RoutingTables,
    by_own_rule,
    describe_taken,
)
from kubectl_ebpfnet.explain.kernel.namespace_routing import own_packet, pod_tables
from kubectl_ebpfnet.explain.kernel.routing import decide, with_kernel_answer
from kubectl_ebpfnet.explain.path.stages.route_fix import delete_what_refuses
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import Route
from kubectl_ebpfnet.model.path import Decides, Evidence, Fix, HopKind, State
from kubectl_ebpfnet.model.shell import word


def route_in_pod(walk: PathBuilder, here: PacketState, netns: PodNetns) -> Route | bool | None:
    """Return the pod's route; None when it is not known; False when the walk ends.

    Args:
        walk: takes the hop.
        here: the packet in the pod.
        netns: of the pod.
    """
    flow = here.packet.flow
    answer = netns.routes(flow.destination.version)
    where = walk.in_source_pod(HopKind.ROUTE)
    tables = pod_tables(netns, flow.destination.version)
    if isinstance(tables, str):
        walk.hop(
            *where,
            "the pod's own route",
            State.UNKNOWN,
            here.packet,
            cite.whole(answer.record),
            reason=tables,
            decides=Decides.DROP,
        )
        # The agent's view of the endpoint stands in for the way; whether there is one is not known.
        return None
    # A process, or a rule of netfilter in the pod, may mark a packet.
    packet = replace(own_packet(flow, mark=None), to_client=walk.forth is not None)
    decision = decide(tables, packet)
    kernel = netns[q.FIB.about(*q.packet_words(flow.source, flow.destination))]
    if kernel.facts:
        decision = with_kernel_answer(decision, kernel.facts[0], tables, packet)
    kernel_proof = cite.of(kernel.record, kernel.facts[0].span) if kernel.facts else ()
    rule = decision.rule if by_own_rule(decision) or decision.route is None else None
    rules = netns.rules(flow.destination.version)
    proof = cite.of(rules.record, rule.span) if rule is not None else ()
    presumed = ""
    if tables.not_read and not kernel.facts and not walk.answered_now():
        presumed = " (`ip rule` was not read: no rules presumed)"
    if decision.undecided and (decision.route is None or decision.refused):
        walk.hop(
            *where, f"the pod's route to {flow.destination}", State.UNKNOWN, here.packet,
            cite.whole(answer.record) + proof, reason=decision.undecided, decides=Decides.WAY,
        )  # fmt: skip
        walk.unknown(decision.undecided, _read_routing(walk))
        return False
    if decision.route is None or decision.refused:
        _refused(walk, here, decision, tables, kernel_proof + proof, answer)
        return False
    route = decision.route
    router = route.gateway in walk.cluster.node(here.node).router_addresses
    owner = f" (cilium_host of {here.node})" if router else ""
    walk.hop(
        *where,
        describe_taken(decision)
        + (f", gateway {route.gateway}{owner}" if route.gateway else ", on the link")
        + presumed,
        State.UNKNOWN if decision.undecided else State.DERIVED,
        here.packet,
        cite.of(answer.record, *(hop.span for hop in decision.next_hops)) + kernel_proof + proof,
        reason=decision.undecided,
        decides=Decides.WAY,
        fix=_read_routing(walk) if decision.undecided else None,
        short=describe_taken(decision)
        + ("" if route.gateway else ", on the link")
        + (" (rules not read)" if presumed else ""),
    )
    return route


def _read_routing(walk: PathBuilder) -> Fix:
    name = f"-n {word(walk.sender.namespace)} {word(walk.sender.name)}"
    return Fix(
        "List the rules and every table of the pod.",
        f"kubectl exec {name} -- sh -c 'ip rule; ip route show table all'",
    )


def _refused(
    walk: PathBuilder,
    here: PacketState,
    decision: Decision,
    tables: RoutingTables,
    proof: tuple[Evidence, ...],
    answer: Answer[Route],
) -> None:
    """Drop a packet that the pod's own routing refuses, and say whose doing that is.

    Args:
        walk: takes the drop.
        here: the packet.
        decision: refuses it.
        tables: of the pod.
        proof: of the rule, and the kernel's own look-up.
        answer: the routes.
    """
    detail = (
        "A Cilium pod has a default route by its node's cilium_host address; the CNI plugin did "
        "not finish, or somebody changed the pod's routes."
    )
    if decision.differs and tables.not_read:
        detail = (
            f"The routes that were read have one ({decision.differs}), so a rule of the pod, which "
            "was not read, leads elsewhere: `ip rule` and `ip route show table all` in the pod."
        )
    elif decision.differs:
        detail = f"The tables that were read have one: {decision.differs}."
    elif not decision.refused.startswith("no route"):
        detail = (
            "Somebody added that rule or route in the pod: neither Kubernetes nor Cilium does. "
            "`ip rule` and `ip route show table all` in the pod show it."
        )
    shown = [r for r in answer.facts if r.table == "main"]
    shown = [decision.route] if decision.route is not None else shown
    evidence = proof + (cite.of(answer.record, *(r.span for r in shown)) if shown else ())
    walk.drop(
        *walk.in_source_pod(HopKind.ROUTE),
        f"{decision.refused} in the pod",
        State.DERIVED,
        here.packet,
        evidence or cite.whole(answer.record),
        title=f"pod {walk.source_pod}: {decision.refused}",
        detail=detail,
        cause=f"{decision.refused} in pod {walk.source_pod}",
        fix=_fix(walk.source_pod, here, decision, detail),
        proof=evidence or cite.whole(answer.record),
    )


def _fix(pod: str, here: PacketState, decision: Decision, detail: str) -> Fix:
    """Return what to do where the pod's own routing refuses a packet."""
    if decision.refused.startswith("no route") and not decision.differs:
        return Fix(
            f"Replace pod {pod} by a new one: the CNI plugin gives a pod its default route, by its "
            "node's cilium_host address, when it is made."
        )
    where = f"in the network namespace of pod {pod}"
    return delete_what_refuses(decision, where, here.packet.flow.destination.version) or Fix(detail)
