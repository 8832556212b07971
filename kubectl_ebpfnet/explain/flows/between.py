"""Between which places an attempt was lost, by who has its tuple and who has not.

A packet leaves entries on its way: Cilium's conntrack at the sender's device (OUT), nf_conntrack
where it passes the node's stack (made as it leaves POSTROUTING), Cilium's NAT map at the device to
the network, and Cilium's conntrack at the receiver's device (IN, made after the ingress policy).
The last place that has it, and the first that must have it and has not, say where it was lost.

That a table has no entry proves something only if the table was read, with the lines of this tuple,
after the packet was sent, and while an entry would still be kept; and of nf_conntrack and the NAT
map, only if they have other flows from this source to this destination. Otherwise nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from kubectl_ebpfnet.explain.flows.clock import KEPT, FlowClock
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView, expanded
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.net import ACK, RST, SYN, TCP, Flow
from kubectl_ebpfnet.model.path import Attempt, Evidence, Outcome

Lost = tuple[str, tuple[Evidence, ...]]
"""Between which places, one sentence, and the entries and tables that show it."""


def lost_between(
    cluster: ClusterView, attempt: Attempt, nodes: Sequence[str], gateway: str = ""
) -> Lost | None:
    """Return between which places an attempt without an answer was lost, None where no two tables
    say it.

    Args:
        cluster: its tables.
        attempt: the newest one, of the node of its source.
        nodes: that the packet comes to, in its order, the source's first.
        gateway: another node, by which it leaves the cluster; "" for none.
    """
    if attempt.outcome not in (Outcome.UNANSWERED, Outcome.UNKNOWN):
        return None
    sender, flow = cluster.node(attempt.flow.node), attempt.flow
    at_sender = _at_the_sender(attempt)
    if at_sender is not None:
        return at_sender, attempt.evidence
    ct = flow.cilium_ct
    if ct is None or _answered_at_all(ct):
        return None
    pod = cluster.pod_with(flow.translated.destination)
    receiver = cluster.node(pod.node) if pod is not None and pod.node in nodes else None
    packets = {ct.flow, flow.translated}
    arrived = _incoming(receiver, packets) if receiver is not None else None
    if receiver is not None and arrived is not None:
        return _arrived(sender, receiver, attempt, arrived)
    if gateway:
        return _not_at_the_gateway(sender, cluster.node(gateway), attempt, ct)
    on_sender = _on_the_sender(sender, attempt, ct)
    if on_sender is not None or receiver is None:
        return on_sender
    return _not_at_the_receiver(sender, receiver, attempt, packets)


def _answered_at_all(ct: CtEntry) -> bool:
    return bool(ct.reply_flags or ct.last_reply)


def _at_the_sender(attempt: Attempt) -> str | None:
    """An answer that came back as far as the sender's node."""
    flow = attempt.flow
    ct, nf, node = flow.cilium_ct, flow.netfilter, flow.node
    if ct is None:
        if flow.service_ct is None or nf is not None or attempt.outcome is Outcome.UNKNOWN:
            return None
        return (
            f"the load-balancing of {node} has it, and Cilium's conntrack has no entry to the "
            "backend: lost between load-balancing and conntrack, where the egress policy stands"
        )
    handshake = flow.flow.protocol == TCP and ct.reply_flags & SYN
    if handshake and not ct.request_flags & (ACK | RST):
        return (
            f"Cilium's conntrack on {node} has the SYN+ACK and no ACK after it: the answer was "
            "lost between that and the sender"
        )
    replied = nf is not None and "UNREPLIED" not in nf.status
    if nf is None or not replied or ct.reply_flags or ct.last_reply:
        return None
    if flow.flow.protocol == TCP and nf.state != "SYN_RECV":
        return None
    if flow.flow.protocol != TCP and not ct.last_request:
        return None
    return (
        f"nf_conntrack of {node} has the answer and Cilium's conntrack of the sender has not: the "
        f"answer was lost between {node}'s netfilter and the sender's device"
    )


def _not_at_the_receiver(
    sender: NodeView, receiver: NodeView, attempt: Attempt, packets: set[Flow]
) -> Lost | None:
    table = receiver.table_state(q.CT)
    if not _would_have(receiver, q.CT, sender, attempt, packets):
        return None
    last = f"{_last_on(attempt)} of {sender.name}"
    proof: tuple[Evidence, ...] = ()
    stack = _netfilter_line(receiver, packets)
    if stack is not None:
        last, proof = f"nf_conntrack of {receiver.name}", stack.evidence
    return (
        f"{last} has it, and Cilium's conntrack of {receiver.name} was read and has it not at the "
        "receiving pod: lost between the two, or denied by the ingress policy, which stands before "
        "that entry",
        (*attempt.evidence, *proof, *cite.whole(table.record)),
    )


def _arrived(
    sender: NodeView, receiver: NodeView, attempt: Attempt, line: FactLine[CtEntry]
) -> Lost | None:
    """The receiver's conntrack has the packet: what it saw come back from the pod."""
    entry = line.fact
    age, sent = _age(receiver, entry), attempt.age
    if age is not None and sent is not None and abs(age - sent) > 60:
        return None  # of an older connection with the same ports
    proof = (*attempt.evidence, *line.evidence)
    name = receiver.name
    if not _answered_at_all(entry):
        silent = entry.flow.protocol != TCP and not entry.last_request
        if silent or attempt.outcome is Outcome.UNKNOWN:
            return None  # nothing says that an answer was due, or that there was none
        return (
            f"Cilium's conntrack of {name} has it and saw nothing come back from the pod: it was "
            f"lost between that and the pod, or the pod's answer was never sent or took another "
            "way",
            proof,
        )
    what = "RST" if entry.reply_flags & RST and not entry.reply_flags & SYN else "answer"
    return (
        f"Cilium's conntrack of {name} has the pod's {what}, and that of {sender.name} has not: "
        f"the answer was lost between {name}'s conntrack and {sender.name}'s",
        proof,
    )


def _on_the_sender(sender: NodeView, attempt: Attempt, ct: CtEntry) -> Lost | None:
    """The tables that the packet passes on its own node after Cilium's conntrack."""
    flow = attempt.flow
    others = _other_flows(sender, ct.flow)
    for question, has_it, has_others, name in (
        (q.CONNTRACK, flow.netfilter is not None, others[0], "nf_conntrack"),
        (q.NAT, flow.cilium_nat is not None, others[1], "Cilium's NAT map"),
    ):
        record = sender.table_state(question).record
        if (
            has_it
            or not has_others
            or not _would_have(sender, question, sender, attempt, {ct.flow})
        ):
            continue
        where = (
            "the node's stack (netfilter and routing)"
            if question is q.CONNTRACK
            else "the device to the network"
        )
        return (
            f"Cilium's conntrack of {sender.name} has it, and {name}, which has other flows to "
            f"{ct.flow.destination}, was read and has not: lost on {sender.name} between the "
            f"sender's device and {where}",
            (*attempt.evidence, *cite.whole(record)),
        )
    return None


def _not_at_the_gateway(
    sender: NodeView, gateway: NodeView, attempt: Attempt, ct: CtEntry
) -> Lost | None:
    """The NAT map of the node by which the packet leaves: it has no conntrack entry of Cilium's
    there."""
    if nat_entry_of(gateway, ct.flow) is not None or not _other_flows(gateway, ct.flow)[1]:
        return None
    if not _would_have(gateway, q.NAT, sender, attempt, {ct.flow}):
        return None
    return (
        f"Cilium's conntrack on {sender.name} has it, and the NAT map of {gateway.name}, by which "
        f"it leaves and which has other flows to {ct.flow.destination}, was read and has not: lost "
        "between the two",
        (*attempt.evidence, *cite.whole(gateway.table_state(q.NAT).record)),
    )


def nat_entry_of(node: NodeView, flow: Flow) -> FactLine[NatEntry] | None:
    """Return a node's NAT entry of a packet, of any source port where the packet's is not known."""
    for line in node.lines(q.NAT, [str(flow.source)]):
        entry = line.fact
        if entry.direction == "OUT" and flow.matches(entry.flow):
            return line
    return None


def _last_on(attempt: Attempt) -> str:
    """Return the last table of the sender's node that has the packet."""
    if attempt.flow.cilium_nat is not None:
        return "Cilium's NAT map"
    if attempt.flow.netfilter is not None:
        return "nf_conntrack"
    return "Cilium's conntrack"


def _incoming(node: NodeView, packets: set[Flow]) -> FactLine[CtEntry] | None:
    needles = sorted({str(packet.source) for packet in packets})
    for line in node.lines(q.CT, needles):
        entry = line.fact
        if entry.direction == "IN" and not entry.related and entry.flow in packets:
            return line
    return None


def _netfilter_line(node: NodeView, packets: set[Flow]) -> FactLine[object] | None:
    needles = sorted({t for p in packets for t in (str(p.source), expanded(p.source))})
    for line in node.lines(q.CONNTRACK, needles):
        if line.fact.original in packets:
            return FactLine(line.fact, line.evidence)
    return None


def _other_flows(node: NodeView, flow: Flow) -> tuple[bool, bool]:
    """Tell whether nf_conntrack and the NAT map have other flows between the ends of one."""
    ends = (flow.protocol, flow.source, flow.destination)
    needles = [str(flow.source), expanded(flow.source)]
    in_netfilter = any(
        (f.protocol, f.source, f.destination) == ends
        for f in (line.fact.original for line in node.lines(q.CONNTRACK, needles))
    )
    in_nat = any(
        (f.protocol, f.source, f.destination) == ends
        for f in (line.fact.flow for line in node.lines(q.NAT, needles[:1]))
    )
    return in_netfilter, in_nat


def _would_have(
    node: NodeView, fact: Fact[Any], sender: NodeView, attempt: Attempt, packets: set[Flow]
) -> bool:
    """Tell whether a table of a node would show a packet of the attempt, had it come there."""
    record = node.table_state(fact).record
    if record is None or not record.ok or attempt.age is None:
        return False
    # By what the sender's own conntrack shows, its translation was looked up.
    if not record.has_all(*packets) and not (record.about and node.name == sender.name):
        return False
    texts = {text for p in packets for text in _texts(p)}
    if record.line_filter and not texts.intersection(record.line_filter):
        return False
    if node.unread_lines(fact, sorted(texts)):
        return False
    ct = attempt.flow.cilium_ct
    alive = ct is not None and ct.remaining is not None and ct.remaining > 0
    if not alive and attempt.age > KEPT:
        return False
    return _read_after(record, sender.table_state(q.CT).record, attempt.age)


def _texts(flow: Flow) -> set[str]:
    return {t for end in (flow.source, flow.destination) for t in (str(end), expanded(end))}


def _read_after(record: Record, sent_by: Record | None, age: float) -> bool:
    """Tell whether a table was read after a packet was sent, `age` before `sent_by` was read."""
    if sent_by is None:
        return False
    try:
        read, asked = (datetime.fromisoformat(r.started) for r in (record, sent_by))
        return read >= asked - timedelta(seconds=age)
    except (ValueError, TypeError, OverflowError):
        return False


def _age(node: NodeView, entry: CtEntry) -> float | None:
    return FlowClock(node).last_seen(entry, None, None).sent
