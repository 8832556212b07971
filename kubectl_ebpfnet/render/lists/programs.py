"""`programs`: one line a BPF program, in the order in which they run at each hook."""

from __future__ import annotations

from datetime import datetime

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.programs import SCHEMA, AttachedProgram, ProgramList
from kubectl_ebpfnet.model.untrusted import moment
from kubectl_ebpfnet.render.lists.listing import Column, Listing, number
from kubectl_ebpfnet.render.text.durations import age

_CGROUP = "cgroup_"


def listing(found: ProgramList) -> Listing[AttachedProgram]:
    """Lay the programs out as a list."""
    listed_at = _time(found.asked)
    return Listing(
        schema=SCHEMA,
        title=f"BPF programs that act on {found.target}"
        + (f", on {found.node}" if found.node and found.target.startswith("pod") else ""),
        columns=(
            Column("DEVICE", _device),
            Column("HOOK", _hook, elastic=True),
            Column("#", lambda row: str(row.order)),
            Column("PROGRAM", lambda row: row.name, elastic=True),
            Column("ID", lambda row: number(row.attachment.program_id)),
            Column("TAG", _tag, spare=True),
            Column("AGE", lambda row: _age(row, listed_at), spare=True),
            Column("ROLE", _role, elastic=True),
            Column("WHERE", lambda row: row.where, wide=True),
            Column("LINK", lambda row: number(row.attachment.link_id), wide=True),
            Column("PRIO", lambda row: str(row.attachment.priority), wide=True),
            Column("RUNS", lambda row: number(_of(row, "run_count")), wide=True),
            Column("NS/RUN", _mean, wide=True),
            Column("MAPS", _maps, wide=True),
            Column("PIN", lambda row: row.attachment.pin, wide=True),
        ),
        rows=found.programs,
        evidence=lambda row: row.evidence,
        nothing="No BPF program was found."
        if found.known
        else "Unknown: what would name the programs could not be read.",
        notes=found.missing,
        document={"target": found.target, "node": found.node},
    )


def _device(row: AttachedProgram) -> str:
    a = row.attachment
    if a.device or not a.hook.startswith(_CGROUP):
        return a.device
    return f"cgroup {a.cgroup}" if a.cgroup else "cgroup"


def _role(row: AttachedProgram) -> str:
    return f"{row.role}; pinned, attachment not seen".lstrip("; ") if row.by_pin else row.role


def _hook(row: AttachedProgram) -> str:
    """Return the hook; of a cgroup without its prefix, which the device's column shows."""
    return row.attachment.hook.removeprefix(_CGROUP)


def _tag(row: AttachedProgram) -> str:
    return row.attachment.tag or (row.program.tag if row.program is not None else "")


def _of(row: AttachedProgram, name: str) -> int | None:
    return None if row.program is None else getattr(row.program, name)


def _mean(row: AttachedProgram) -> str:
    """Return the mean nanoseconds of a run, while statistics were on."""
    runs, time = _of(row, "run_count"), _of(row, "run_time_ns")
    return str(time // runs) if runs and time is not None else ""


def _maps(row: AttachedProgram) -> str:
    return "" if row.program is None else ",".join(map(str, row.program.map_ids))


def _time(text: str) -> datetime | None:
    """Return the time at which the programs were listed, which their ages count to; None when not
    known."""
    try:
        return moment(text, "a record")
    except ParseError:
        return None


def _age(row: AttachedProgram, now: datetime | None) -> str:
    loaded = _of(row, "loaded_at")
    return "" if loaded is None or now is None else age(now.timestamp() - loaded)
