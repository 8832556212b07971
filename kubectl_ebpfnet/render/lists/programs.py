"""`programs`: one line a BPF program, in the order in which they run at each hook.

Cilium's socket load-balancing has some twenty programs at cgroups: they are one line of the short
table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.programs import SCHEMA, AttachedProgram, ProgramList
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.untrusted import moment
from kubectl_ebpfnet.render.lists.listing import Column, Listing, number
from kubectl_ebpfnet.render.text.durations import age

_CGROUP = "cgroup_"
_SOCKET_LB = "socket LB: "
"""What the roles of its programs begin with (explain/programs/roles.py)."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A program, and the pod that it acts on: `NAMESPACE/NAME` or "".

    Attributes:
        folded: the programs that it stands for, where these are several.
        pods: how many pods it is of, 0 for its owner alone.
    """

    program: AttachedProgram
    owner: str
    folded: tuple[AttachedProgram, ...] = ()
    pods: int = 0


def listing(found: ProgramList, *, several: bool = False, unfold: bool = False) -> Listing[_Line]:
    """Lay the programs out as a list.

    Args:
        found: the programs.
        several: of several pods: their names are columns.
        unfold: show each program of socket load-balancing in the short table too.
    """
    listed_at = _time(found.asked)
    owners = found.owners or ("",) * len(found.programs)
    pods = (Column("NAMESPACE", _namespace), Column("POD", _pod)) if several else ()
    return Listing(
        schema=SCHEMA,
        title="",
        columns=(
            *pods,
            Column("DEVICE", lambda row: _device(row.program)),
            Column("HOOK", _hook),
            Column("#", lambda row: number(row.program.order or None)),
            Column("PROGRAM", _program),
            Column("ID", lambda row: number(row.program.attachment.program_id)),
            Column("TAG", lambda row: _tag(row.program), spare=True),
            Column(
                "AGE", lambda row: _age(row.program, listed_at), spare=True,
                key=lambda row: -(_of(row.program, "loaded_at") or 0) or None,
            ),
            Column("ROLE", _role, below=""),
            Column("WHERE", lambda row: row.program.where, wide=True),
            Column("LINK", lambda row: number(row.program.attachment.link_id), wide=True),
            Column("PRIO", lambda row: str(row.program.attachment.priority), wide=True),
            Column("RUNS", lambda row: number(_of(row.program, "run_count")), wide=True),
            Column("NS/RUN", lambda row: _mean(row.program), wide=True),
            Column("MAPS", lambda row: _maps(row.program), wide=True),
            Column("PIN", lambda row: row.program.attachment.pin, wide=True),
        ),
        rows=[_Line(*pair) for pair in zip(found.programs, owners, strict=True)],
        evidence=lambda row: tuple(
            dict.fromkeys(e for each in row.folded or (row.program,) for e in each.evidence)
        ),
        nothing="No BPF program was found."
        if found.known
        else "Unknown: what would name the programs could not be read.",
        notes=found.missing,
        document={"target": found.target, "node": found.node},
        alone=True,
        known=found.known,
        name=_name,
        item=_item,
        folded=None if unfold else _folded,
    )  # fmt: skip


def _folded(rows: Sequence[_Line]) -> list[_Line]:
    """Return the lines with those of socket load-balancing at one cgroup as one; where it is that
    of several pods, as their node's is, behind all others."""
    lines: list[_Line] = []
    shared: dict[tuple[AttachedProgram, ...], list[_Line]] = {}
    for (owner, _, _, foldable), group in groupby(rows, _place):
        programs = tuple(row.program for row in group)
        if foldable and len(programs) > 1:
            lines.append(_Line(_nobody(programs[0]), owner, programs))
            shared.setdefault(programs, []).append(lines[-1])
        else:
            lines += [_Line(program, owner) for program in programs]
    several = [each for each in shared.values() if len(each) > 1]
    own = [line for line in lines if not any(line in each for each in several)]
    return own + [replace(each[0], owner="", pods=len(each)) for each in several]


def _nobody(first: AttachedProgram) -> AttachedProgram:
    """Return where several programs are, without what only one of them has."""
    attachment = replace(
        first.attachment, program_name="", program_id=None, tag="", link_id=None, pin=""
    )
    return replace(first, attachment=attachment, order=0, program=None)


def _place(row: _Line) -> tuple[str, str, str, bool]:
    a = row.program.attachment
    foldable = a.hook.startswith(_CGROUP) and row.program.role.startswith(_SOCKET_LB)
    return row.owner, row.program.where, a.cgroup, foldable


def _namespace(row: _Line) -> str:
    return row.owner.partition("/")[0]


def _pod(row: _Line) -> str:
    return f"{row.pods} pods" if row.pods else row.owner.partition("/")[2]


def _name(row: _Line) -> str:
    """Return `program/ID`, as bpftool takes it; its name where the id is not known."""
    return f"program/{row.program.attachment.program_id or row.program.name}"


def _item(row: _Line) -> dict[str, Any]:
    pod = {"namespace": _namespace(row), "pod": _pod(row)}
    return {**codec.plain(row.program), **pod}


def _program(row: _Line) -> str:
    if not row.folded:
        return row.program.name
    return f"{len(row.folded)} programs"


def _device(row: AttachedProgram) -> str:
    a = row.attachment
    if a.device or not a.hook.startswith(_CGROUP):
        return a.device
    return f"cgroup {a.cgroup}" if a.cgroup else "cgroup"


def _role(row: _Line) -> str:
    if row.folded:
        return f"{_SOCKET_LB}of all sockets of the cgroup (-o wide lists them)"
    found = row.program
    return f"{found.role}; pinned, attachment not seen".lstrip("; ") if found.by_pin else found.role


def _hook(row: _Line) -> str:
    """Return the hook; of a cgroup without its prefix, which the device's column shows."""
    hooks = {each.attachment.hook for each in row.folded or (row.program,)}
    return f"{len(hooks)} hooks" if len(hooks) > 1 else min(hooks).removeprefix(_CGROUP)


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
