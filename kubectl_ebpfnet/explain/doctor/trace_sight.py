"""What `trace` will see of a node: by what its kernel took of trace's programs, else unknown."""

from __future__ import annotations

from kubectl_ebpfnet.errors import print_rbac
from kubectl_ebpfnet.explain.doctor.context import NODE_POD, DoctorContext
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.doctor import TraceSight
from kubectl_ebpfnet.model.evidence import node_place


def trace_sight(name: str, context: DoctorContext) -> TraceSight:
    """Return which of trace's programs a node takes, as its node pod found by loading them."""
    answer = context.cluster.node(name)[q.TRACE_LAYERS]
    if answer.known and answer.facts:
        return TraceSight(answer.facts)
    if not context.live:
        return TraceSight((), "a capture does not tell it", f"doctor {NODE_POD} on the cluster")
    records = context.records.get(node_place(name), ())
    if any(record.ran for record in records):
        return TraceSight((), answer.missing or "the node pod told nothing")
    why = next((record.why_not() for record in records), "")
    what = f"no node pod answered: {why}" if why else "no node pod was asked"
    if denied := context.lacking_to_deploy:
        what += f"; none can be deployed without {denied[0]}"
        return TraceSight((), what, f"{print_rbac('node-pods')}, or =deploy")
    return TraceSight((), what, f"doctor {NODE_POD}")
