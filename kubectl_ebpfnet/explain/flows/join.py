"""The entries of one flow in the tables of a node, as one `TrackedFlow`, and the order of flows.

The newest flow is the one whose source sent last, by Cilium's reports. What is left of a lifetime
says nothing of that: a connection that is closed has 10 s, one that nobody answers has 60 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.flows.clock import REPORT_INTERVAL, FlowClock
from kubectl_ebpfnet.explain.flows.outcome import came_back
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.net import ACK, FIN, RST, SYN, Address, Flow
from kubectl_ebpfnet.model.path import NOW, TrackedFlow


class Join:
    """Makes flows of the entries of a node."""

    def __init__(self, node: NodeView) -> None:
        self._node = node
        self._clock = FlowClock(node)

    def rank(self, ct: CtEntry | None, netfilter: ConntrackEntry | None) -> tuple[int, float]:
        """Return what sorts a flow by its newest packet, the newest first.

        Flows of known age come first, then those that have moments of the datapath's clock alone,
        then the others by the time that they have left.

        Args:
            ct: Cilium's entry, of load-balancing where there is no other.
            netfilter: nf_conntrack's, which counts where there is no other.
        """
        seen = self._clock.last_seen(ct, None, netfilter if ct is None else None)
        return self._rank(seen.sent, ct, netfilter)

    def rank_of(self, flow: TrackedFlow) -> tuple[int, float]:
        """Return the rank of a joined flow, by the newest packet of either direction."""
        return self._rank(flow.last_seen.any, flow.cilium_ct or flow.service_ct, flow.netfilter)

    def _rank(
        self, age: float | None, ct: CtEntry | None, netfilter: ConntrackEntry | None
    ) -> tuple[int, float]:
        if age is not None:
            return 0, age
        moment = self._clock.moment(ct) if ct is not None else None
        if moment is not None:
            return 1, -moment
        left = ct.remaining if ct is not None else netfilter.timeout if netfilter else None
        return 2, -(left or 0)

    def flow(
        self,
        first: Flow,
        ct: FactLine[CtEntry] | None = None,
        service: FactLine[CtEntry] | None = None,
        nat: FactLine[NatEntry] | None = None,
        nf: FactLine[ConntrackEntry] | None = None,
        errors: FactLine[CtEntry] | None = None,
    ) -> TrackedFlow:
        """Return the entries that a node has of one flow.

        Args:
            first: the packet as its sender sent it.
            ct, service, nat, nf: the entries, None where a table has none.
            errors: the entry for ICMP errors between the flow's ends.
        """
        last = ct.fact.flow if ct is not None else first
        for translation in (nf, nat):  # NAT by Cilium comes last
            last = translation.fact.translated() if translation is not None else last
        if errors is not None and not _is_of(errors.fact, ct.fact if ct else None):
            errors = None
        lines = [part for part in (ct, service, nat, errors, nf) if part is not None]
        entries = (ct.fact if ct else None, service.fact if service else None)
        flow = TrackedFlow(
            node=self._node.name,
            flow=first,
            cilium_ct=entries[0],
            service_ct=entries[1],
            cilium_nat=nat.fact if nat else None,
            netfilter=nf.fact if nf else None,
            translated=last,
            evidence=tuple(e for part in lines for e in part.evidence),
            error_ct=errors.fact if errors else None,
            last_seen=self._clock.last_seen(*entries, nf.fact if nf else None),
        )
        return replace(flow, outcome=came_back(flow)[0])


def _is_of(errors: CtEntry, ct: CtEntry | None) -> bool:
    """Tell whether an ICMP error came back to a flow.

    Every new connection makes the entry of its two ends anew (bpf/lib/conntrack.h, ct_create4): a
    report against its direction is of an error since the newest of them began.
    """
    if ct is None or not errors.last_reply or not ct.last_request:
        return False
    begun = errors.last_request or 0
    return begun <= ct.last_request + REPORT_INTERVAL


def is_unanswered_syn(flow: TrackedFlow) -> bool:
    """Tell whether Cilium's conntrack saw the first packet of a TCP connection and nothing else."""
    ct = flow.cilium_ct
    if ct is None or ct.reply_flags:
        return False
    return bool(ct.request_flags & SYN) and not ct.request_flags & (ACK | FIN | RST)


def first_begun(
    flows: Sequence[TrackedFlow], begun: Mapping[Address, int | None]
) -> list[TrackedFlow]:
    """Return flows, newest first, with one that could not begin before one that merely goes on.

    A connection that is open since long goes on to send. Whether a new one can be made, the one
    tells that began last.

    Args:
        flows: of one source.
        begun: when the newest connection to a destination began, in the datapath's clock.
    """
    if not flows or not _is_open(flows[0]):
        return list(flows)
    for flow in flows[1:]:
        ct, age = flow.cilium_ct, flow.last_seen.sent
        if ct is None or not is_unanswered_syn(flow) or age is None or age > NOW:
            continue
        last_begun = begun.get(ct.flow.destination)
        if last_begun is not None and ct.last_request and last_begun <= ct.last_request:
            return [flow, *(other for other in flows if other is not flow)]
    return list(flows)


def _is_open(flow: TrackedFlow) -> bool:
    ct = flow.cilium_ct
    return (
        ct is not None
        and bool(ct.request_flags & ACK)
        and not {"RxClosing", "TxClosing"} <= ct.flags
    )
