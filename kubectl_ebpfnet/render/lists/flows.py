"""`flows`: one line a flow, through its translations."""

from __future__ import annotations

from kubectl_ebpfnet.model.flows import SCHEMA, FlowList
from kubectl_ebpfnet.model.net import endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import TrackedFlow
from kubectl_ebpfnet.render.lists.listing import Column, Listing, number
from kubectl_ebpfnet.render.text.durations import age

_SYN, _FIN, _RST = 0x02, 0x01, 0x04  # RFC 9293 3.1


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
            Column("AGE", _age, spare=True),
            Column("TTL", lambda row: _span(row.time_to_live)),
            Column("TABLES", tables, wide=True),
            Column("FLAGS", _flags, wide=True),
            Column("IDENTITY", _identity, wide=True),
            Column("MARK", _mark, wide=True),
        ),
        rows=found.flows,
        evidence=lambda row: row.evidence,
        nothing="No matching connections found"
        + (" in what could be read." if found.missing else "."),
        notes=found.missing,
        document={"target": found.target, "node": found.node},
    )


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
    """Return nf_conntrack's state, else a state by Cilium's flags in lower case; "" for none."""
    nf, ct = row.netfilter, row.cilium_ct or row.service_ct
    if nf is not None and nf.state:
        return nf.state + (" unreplied" if "UNREPLIED" in nf.status else "")
    if nf is not None and "UNREPLIED" in nf.status:
        return "unreplied"
    if ct is None:
        return ""
    closing = {"RxClosing", "TxClosing"} & ct.flags
    if len(closing) == 2:
        return "closed"
    if closing or (ct.tx_flags_seen | ct.rx_flags_seen) & (_FIN | _RST):
        return "closing"
    if "SeenNonSyn" in ct.flags:
        return "open"
    return "syn sent" if ct.tx_flags_seen & _SYN and not ct.rx_flags_seen else ""


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


def _age(row: TrackedFlow) -> str:
    made = row.cilium_nat.age if row.cilium_nat is not None else None
    return "" if made is None else age(made)


def _flags(row: TrackedFlow) -> str:
    words = sorted(row.cilium_ct.flags) if row.cilium_ct else []
    return ",".join([*words, *(sorted(row.netfilter.status) if row.netfilter else [])])


def _identity(row: TrackedFlow) -> str:
    return str(row.cilium_ct.source_identity) if row.cilium_ct else ""


def _mark(row: TrackedFlow) -> str:
    mark = row.netfilter.mark if row.netfilter is not None else None
    return "" if mark is None else f"{mark:#x}"
