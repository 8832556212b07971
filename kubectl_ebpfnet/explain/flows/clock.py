"""When the packets of a tracked flow were last seen, by the clocks of its tables.

Cilium writes lifetimes and reports in a clock of its datapath: seconds of CLOCK_MONOTONIC
(`ktime`), or jiffies / 256 (`jiffies`; bpf/lib/time.h). A table tells what that clock stood at when
it was read where it prints the time that is left beside a lifetime; the node's kernel facts tell it
too. Without either, reports only order the flows of a node. A report is up to 5 s older than the
last packet (CT_REPORT_INTERVAL), and so are these ages.

nf_conntrack has no such reports: what is left of a state's time-out tells when it was last set,
where the time-outs (sysctls nf_conntrack_*_timeout_*) are recorded.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

from kubectl_ebpfnet.explain.flows.netfilter_timeout import netfilter_timeout
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import LastSeen
from kubectl_ebpfnet.parse.node_side import is_node_question

REPORT_INTERVAL = 5
"""Seconds between two reports of a direction whose flags do not change."""

KEPT = 60 - 2 * REPORT_INTERVAL
"""Seconds after its last packet during which every table keeps an entry: the shortest time-out of
what is not closed is 60 s, in Cilium's conntrack."""

_FIRST_JIFFIES = (1 << 24) - 1200
"""Jiffies begin 300 s before 2^32 (INITIAL_JIFFIES), at most at 1000 Hz: a time below this, which
is 194 days, is in seconds."""


class FlowClock:
    """The clocks of a node's tracking tables."""

    def __init__(self, node: NodeView) -> None:
        self._node = node

    def moment(self, entry: CtEntry) -> float | None:
        """Return when an entry's last request was sent, in the datapath's clock; None when nothing
        tells. Moments of one node can be compared even where their age is not known."""
        unit, timeout, report = self._unit(entry), self._timeout(entry), entry.last_request
        if entry.expires is None or unit is None or timeout is None:
            return report or None
        by_lifetime = entry.expires - timeout / unit
        if not report:
            return by_lifetime
        if entry.last_reply:
            return report  # an answer begins the lifetime anew, too
        # Between two reports the lifetime is what tells of a packet.
        return max(report, min(by_lifetime, report + REPORT_INTERVAL / unit))

    def last_seen(
        self, ct: CtEntry | None, service: CtEntry | None, netfilter: ConntrackEntry | None
    ) -> LastSeen:
        """Return when the packets of a flow were last seen, by any of its entries."""
        sent, answered, reasons = [], [], []
        for entry in (ct, service):
            if entry is None:
                continue
            seen = self._of_cilium(entry)
            sent.append(seen.sent)
            answered.append(seen.answered)
            reasons.append(seen.reason)
        if netfilter is not None:
            seen = self._of_netfilter(netfilter)
            sent.append(seen.sent)
            reasons.append(seen.reason)
        known = [age for age in sent if age is not None]
        back = [age for age in answered if age is not None]
        reason = "" if known else next((text for text in reasons if text), "")
        return LastSeen(min(known, default=None), min(back, default=None), reason)

    def _of_cilium(self, entry: CtEntry) -> LastSeen:
        if not entry.last_request:
            return self._by_lifetime(entry)
        unit, now = self._unit(entry), self._now(entry)
        if unit is None or now is None:
            return LastSeen(reason=self._no_clock(entry))
        sent, answered = (
            round((now - moment) * unit, 1) if moment else None
            for moment in (self.moment(entry) if entry.last_request else None, entry.last_reply)
        )
        if min(sent or 0, answered or 0) < -REPORT_INTERVAL:
            return LastSeen(
                reason="Cilium's conntrack has reports that are later than its own clock"
            )
        return LastSeen(_positive(sent), _positive(answered))

    def _by_lifetime(self, entry: CtEntry) -> LastSeen:
        """Entries of captures of older node pods have no reports, but a lifetime begins anew with
        every packet."""
        timeout = self._timeout(entry)
        if timeout is None or entry.remaining is None:
            return LastSeen(reason="the record has no reports of Cilium's conntrack")
        return LastSeen(_positive(float(timeout - entry.remaining)))

    def _timeout(self, entry: CtEntry) -> int | None:
        """Return the time-out by which an entry's lifetime was set, None where it is not known.

        The defaults are those of every version (cilium-facts 2.1); the time-out of an established
        connection has changed.
        """
        config = self._node.config
        if self._node.settings_record is None:
            return None
        if entry.flow.protocol != TCP:
            configured, default = config.ct_any_timeout, 60
        elif {"RxClosing", "TxClosing"} <= entry.flags:
            configured, default = config.ct_fin_timeout, 10
        elif entry.flags & {"SeenNonSyn", "TxClosing"} or entry.direction == "SVC":
            return None
        else:
            configured, default = config.ct_syn_timeout, 60
        return default if configured is None else configured or None

    def _unit(self, entry: CtEntry) -> float | None:
        """Return the seconds of one unit of an entry's times, None when it is not known."""
        if self._by_node_side:
            return 1 if entry.remaining is not None else None
        config = self._node.config
        if config.clock_source == "jiffies":
            return 256 / config.clock_hertz if config.clock_hertz else None
        if config.clock_source == "ktime" or (entry.expires or 0) < _FIRST_JIFFIES:
            return 1
        return None

    def _now(self, entry: CtEntry) -> float | None:
        """Return what the datapath's clock stood at when the table was read."""
        unit = self._unit(entry)
        if unit is None:
            return None
        if entry.expires is not None and entry.remaining is not None:
            return entry.expires - entry.remaining / unit
        monotonic = self._monotonic
        if monotonic is None or unit == 1:
            return monotonic
        # include/linux/jiffies.h, INITIAL_JIFFIES: 300 s before 2^32
        return (1 << 24) + (monotonic - 300) / unit

    def _no_clock(self, entry: CtEntry) -> str:
        if self._unit(entry) is None:
            return "nothing says in which unit Cilium's conntrack has its times"
        return (
            "no clock: Cilium's conntrack has times of its own, and nothing says what its clock "
            "stood at"
        )

    @cached_property
    def _record(self) -> Record | None:
        return self._node.table_state(q.CT).record

    @cached_property
    def _by_node_side(self) -> bool:
        return self._record is not None and is_node_question(self._record.argv)

    @cached_property
    def _monotonic(self) -> float | None:
        """CLOCK_MONOTONIC when the conntrack table was read, None when nothing tells."""
        kernel = self._node[q.KERNEL]
        if not kernel.facts or kernel.facts[0].monotonic_seconds is None:
            return None
        later = _seconds_between(kernel.record, self._record)
        return None if later is None else kernel.facts[0].monotonic_seconds + later

    def _of_netfilter(self, entry: ConntrackEntry) -> LastSeen:
        timeout = netfilter_timeout(self._node, entry)
        if entry.timeout is None or timeout is None or timeout < entry.timeout:
            return LastSeen(
                reason="the time-outs of nf_conntrack (sysctl net.netfilter) are not recorded"
            )
        return LastSeen(float(timeout - entry.timeout))


def _positive(age: float | None) -> float | None:
    return None if age is None else max(age, 0.0)


def _seconds_between(one: Record | None, other: Record | None) -> float | None:
    """Return the seconds from the start of one record to that of another."""
    try:
        times = [datetime.fromisoformat(r.started) for r in (one, other) if r is not None]
    except ValueError:
        return None
    if len(times) != 2 or (times[0].tzinfo is None) != (times[1].tzinfo is None):
        return None
    return (times[1] - times[0]).total_seconds()
