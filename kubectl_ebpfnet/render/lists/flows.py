"""`flows`: one line a flow, through its translations."""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.flows import SCHEMA, FlowList, state_of
from kubectl_ebpfnet.model.net import endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import TrackedFlow
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.render.lists.listing import Column, Listing, number
from kubectl_ebpfnet.render.text.durations import age


@dataclass(frozen=True, slots=True)
class _Line:
    """A flow, and the pod that has it: `NAMESPACE/NAME` or ""."""

    flow: TrackedFlow
    owner: str


def listing(found: FlowList, *, several: bool = False) -> Listing[_Line]:
    """Lay the flows out as a list.

    Args:
        found: the flows.
        several: of several pods: their names are columns.
    """
    owners = found.owners or ("",) * len(found.flows)
    pods = (Column("NAMESPACE", _namespace), Column("POD", _pod)) if several else ()
    node = (Column("NODE", _node, wide=True),) if several else ()
    return Listing(
        schema=SCHEMA,
        title="",
        columns=(*pods, *map(_of_flow, _COLUMNS), *node),
        rows=[_Line(*pair) for pair in zip(found.flows, owners, strict=True)],
        evidence=lambda row: row.flow.evidence,
        nothing=_nothing(found),
        notes=found.missing,
        document={
            "target": found.target, "node": found.node, "more": found.more, "over": found.over,
        },
        alone=True,
        known=found.known,
        name=_name,
        item=_item,
        hidden=_hidden(found),
    )  # fmt: skip


def _of_flow(column: Column[TrackedFlow]) -> Column[_Line]:
    """Return a column of flows as one of lines."""
    cell, key = column.cell, column.key

    def of_cell(row: _Line) -> str:
        return cell(row.flow)

    def of_key(row: _Line) -> float | None:
        return key(row.flow) if key is not None else None

    return Column(
        column.header, of_cell, wide=column.wide, spare=column.spare, below=column.below,
        key=of_key if key is not None else None,
    )  # fmt: skip


def _node(row: _Line) -> str:
    return row.flow.node


def _namespace(row: _Line) -> str:
    return row.owner.partition("/")[0]


def _pod(row: _Line) -> str:
    return row.owner.partition("/")[2]


def _name(row: _Line) -> str:
    return f"flow/{protocol_name(row.flow.flow.protocol).lower()}/" + "/".join(
        (_source(row.flow), _destination(row.flow))
    )


def _item(row: _Line) -> dict[str, Any]:
    pod = {"namespace": _namespace(row), "pod": _pod(row)}
    return {**codec.plain(row.flow), "state": state_of(row.flow).value, **pod}


def _nothing(found: FlowList) -> str:
    if not found.known:
        return "Unknown: the tables that would have the connections could not be read."
    return "No matching connections found" + (" in what could be read." if found.missing else ".")


def _hidden(found: FlowList) -> list[str]:
    lines = []
    if found.over:
        what = "connection is" if found.over == 1 else "connections are"
        lines.append(f"{found.over:,} closed {what} not shown: --all")
    if found.more:
        what = "connection is" if found.more == 1 else "connections are"
        lines.append(f"{found.more:,} older {what} not shown: --all")
    return lines


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


def _time_to_live(row: TrackedFlow) -> str:
    seconds = row.time_to_live
    return "" if seconds is None else "expired" if seconds < 0 else age(seconds)


def _last_seen(row: TrackedFlow) -> str:
    seconds = row.last_seen.any
    return "" if seconds is None else age(round(seconds))


def _made(row: TrackedFlow) -> int | None:
    return row.cilium_nat.age if row.cilium_nat is not None else None


def _age(row: TrackedFlow) -> str:
    made = _made(row)
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


_COLUMNS: tuple[Column[TrackedFlow], ...] = (
    Column("PROTO", lambda row: protocol_name(row.flow.protocol)),
    Column("SOURCE", _source),
    Column("DESTINATION", _destination, below="→ "),
    Column("TRANSLATED", translated, below="translated "),
    Column("STATE", lambda row: state_of(row).value),
    Column(
        "PACKETS", lambda row: number(_counted(row, "packets")), spare=True,
        key=lambda row: _counted(row, "packets"),
    ),
    Column(
        "BYTES", lambda row: number(_counted(row, "bytes")), spare=True,
        key=lambda row: _counted(row, "bytes"),
    ),
    Column("AGE", _age, wide=True, key=_made),
    Column("LAST SEEN", _last_seen, key=lambda row: row.last_seen.any),
    Column("TTL", _time_to_live, spare=True, key=lambda row: row.time_to_live),
    Column("TABLES", tables, wide=True),
    Column("FLAGS", _flags, wide=True),
    Column("IDENTITY", _identity, wide=True),
    Column("MARK", _mark, wide=True),
)  # fmt: skip
