"""The proof of a routing decision: the kernel's own look-up, and the routes that were taken."""

from __future__ import annotations

from kubectl_ebpfnet.explain.kernel.decision import Decision
from kubectl_ebpfnet.explain.path.state import PacketState
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kernel import FibAnswer, Route
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence


def kernel_answer(
    here: PacketState, node: NodeView, source: Address, destination: Address
) -> FibAnswer | None:
    """Return the kernel's own look-up for a pod's packet, None where none is recorded.

    Args:
        here: the packet on the node.
        node: the node.
        source, destination: of the routed packet.
    """
    answer = node[q.FORWARD.about(*q.packet_words(source, destination))]
    return next((fact for fact in answer.facts if fact.in_device == here.in_device), None)


def kernel_evidence(
    here: PacketState, node: NodeView, source: Address, destination: Address
) -> tuple[Evidence, ...]:
    """Cite what `kernel_answer` returns for the same; () where none is recorded."""
    answer = node[q.FORWARD.about(*q.packet_words(source, destination))]
    spans = [fact.span for fact in answer.facts if fact.in_device == here.in_device]
    return cite.of(answer.record, *spans) if spans else ()


def route_evidence(node: NodeView, decision: Decision) -> tuple[Evidence, ...]:
    """Cite the next hops of a decision in the record that they were read from."""
    hops: tuple[Route, ...] = decision.next_hops
    if not hops and decision.route is not None:
        hops = (decision.route,)
    spans = [hop.span for hop in hops if hop.span.line or hop.span.path]
    return cite.of(node[q.ROUTES].record, *spans) if spans else ()
