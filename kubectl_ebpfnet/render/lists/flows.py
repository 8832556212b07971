"""`flows`: one line a flow, through its translations."""

from __future__ import annotations

from kubectl_ebpfnet.model.cilium import CtEntry
from kubectl_ebpfnet.model.flows import SCHEMA, FlowList
from kubectl_ebpfnet.model.net import FIN, RST, SYN, TCP, UDP, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Outcome, TrackedFlow
from kubectl_ebpfnet.render.lists.listing import Column, Listing, number
from kubectl_ebpfnet.render.text.durations import age


def listing(found: FlowList) -> Listing[TrackedFlow]:
    """Lay the flows out as a list."""
    return Listing(
        schema=SCHEMA,
        title=f"Flows of {found.target}"
        + (f", as node {found.node} tracks them" if found.target.startswith("pod") else ""),
        columns=(
            Column("PROTO", lambda row: protocol_name(row.flow.protocol)),
            Column("SOURCE", _source, elastic=True),
            Column("DESTINATION", _destination, elastic=True),
            Column("TRANSLATED", translated, elastic=True),
            Column("STATE", state),
            Column("PACKETS", lambda row: number(_counted(row, "packets")), spare=True),
            Column("BYTES", lambda row: number(_counted(row, "bytes")), spare=True),
            Column("AGE", _age, wide=True),
            Column("LAST SEEN", _last_seen),
            Column("TTL", lambda row: _span(row.time_to_live), spare=True),
            Column("TABLES", tables, wide=True),
            Column("FLAGS", _flags, wide=True),
            Column("IDENTITY", _identity, wide=True),
            Column("MARK", _mark, wide=True),
        ),
        rows=found.flows,
        evidence=lambda row: row.evidence,
        nothing=_nothing(found),
        notes=found.missing,
        more=f"older flows that are not shown: {found.more:,} (--all shows them)"
        if found.more
        else "",
        document={"target": found.target, "node": found.node, "more": found.more},
    )


def _nothing(found: FlowList) -> str:
    if not found.known:
        return "Unknown: the tables that would have the connections could not be read."
    return "No matching connections found" + (" in what could be read." if found.missing else ".")


def _source(row: TrackedFlow) -> str:
    return endpoint_text(row.flow.source, row.flow.source_port)


def _destination(row: TrackedFlow) -> str:
    return endpoint_text(row.flow.destination, row.flow.destination_port)


def translated(row: TrackedFlow) -> str:
    """Return the rewritten parts of the packet: `to BACKEND`, `from NODE`, both, or ""."""
    words = []
    first, last = row.flow, row.translated
    if (first.destination, first.destination_port) != (last.destination, last.destination_port):
        words.append(f"to {endpoint_text(last.destination, last.destination_port)}")
    if (first.source, first.source_port) != (last.source, last.source_port):
        words.append(f"from {endpoint_text(last.source, last.source_port)}")
    return " ".join(words)


def state(row: TrackedFlow) -> str:
    """Return how a flow stands: `open`, `closing`, `closed`, `answered`, `no answer`, `half open`
    (the answer to a SYN got no ACK), `refused`; `one way` for UDP without a reply; "" for unknown.

    What Cilium saw counts where it has the flow: replies may pass netfilter by.
    """
    ct, nf = row.cilium_ct or row.service_ct, row.netfilter
    if row.outcome is Outcome.REFUSED:
        return "refused"
    if row.outcome is Outcome.UNANSWERED:
        half = ct.reply_flags & SYN if ct is not None else nf is not None and nf.state == "SYN_RECV"
        return "half open" if half else "no answer"
    if row.outcome is Outcome.UNKNOWN:
        return (
            "one way" if row.flow.protocol == UDP and ct is not None and not ct.last_reply else ""
        )
    if row.flow.protocol != TCP:
        return "answered"
    return _of_cilium(ct) if ct is not None else _NETFILTER.get(nf.state, "") if nf else ""


_NETFILTER = {
    "ESTABLISHED": "open", "FIN_WAIT": "closing", "CLOSE_WAIT": "closing", "LAST_ACK": "closing",
    "TIME_WAIT": "closed", "CLOSE": "closed",
}  # fmt: skip


def _of_cilium(ct: CtEntry) -> str:
    closing = {"RxClosing", "TxClosing"} & ct.flags
    if len(closing) == 2:
        return "closed"
    return "closing" if closing or (ct.tx_flags_seen | ct.rx_flags_seen) & (FIN | RST) else "open"


def tables(row: TrackedFlow) -> str:
    """Return the tables with an entry of the flow."""
    parts = (
        ("svc", row.service_ct),
        (f"ct-{row.cilium_ct.direction.lower()}" if row.cilium_ct else "", row.cilium_ct),
        ("nat", row.cilium_nat),
        ("nf", row.netfilter),
    )
    return ",".join(name for name, entry in parts if entry is not None)


def _counted(row: TrackedFlow, name: str) -> int | None:
    """Return the greatest count of the flow's entries: all of them count the same packets."""
    counts = [
        getattr(entry, name)
        for entry in (row.cilium_ct, row.service_ct, row.netfilter)
        if entry is not None and getattr(entry, name) is not None
    ]
    return max(counts, default=None)


def _span(seconds: int | None) -> str:
    return "" if seconds is None else "expired" if seconds < 0 else age(seconds)


def _last_seen(row: TrackedFlow) -> str:
    seconds = row.last_seen.any
    return "" if seconds is None else f"{age(round(seconds))} ago"


def _age(row: TrackedFlow) -> str:
    made = row.cilium_nat.age if row.cilium_nat is not None else None
    return "" if made is None else age(made)


def _flags(row: TrackedFlow) -> str:
    words = sorted(row.cilium_ct.flags) if row.cilium_ct else []
    if row.netfilter is not None:
        words += [row.netfilter.state] if row.netfilter.state else []
        words += sorted(row.netfilter.status)
    return ",".join(words)


def _identity(row: TrackedFlow) -> str:
    return str(row.cilium_ct.source_identity) if row.cilium_ct else ""


def _mark(row: TrackedFlow) -> str:
    mark = row.netfilter.mark if row.netfilter is not None else None
    return "" if mark is None else f"{mark:#x}"
