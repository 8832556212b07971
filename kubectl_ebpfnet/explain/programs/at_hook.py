"""A program at a hook: its names, its place in the order there, whose it is, and what was not read.

At ingress: XDP, then tcx, then the clsact filters by preference; at egress: tcx, then clsact
(Linux net/core/dev.c sch_handle_ingress, sch_handle_egress). A netkit pair runs its programs as it
transmits (drivers/net/netkit.c): before the other end's ingress, behind its own egress.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from kubectl_ebpfnet.explain.programs.roles import OBSERVER, best_name, is_ciliums, role_of
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import stated_gaps
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.path import Evidence

_ORDER = {
    "ingress": ("xdp", "netkit", "tcx", "clsact"),
    "egress": ("tcx", "clsact", "netkit"),
}


_CGROUP_GAP = re.compile(r"attach type (\d{1,2})\b|cgroup")


_DEVICE_ATTACH_TYPES = frozenset({"37", "46", "47", "54", "55"})
"""xdp, tcx and netkit in the kernel's enum bpf_attach_type (include/uapi/linux/bpf.h)."""


@dataclass(frozen=True, slots=True)
class ProgramAtHook:
    """A program at a hook with the evidence that names it.

    Attributes:
        attachment: where it is.
        evidence: what names it.
        by_pin: a pin alone names it: whether it is attached is not known.
        ciliums: it is Cilium's.
    """

    attachment: Attachment
    evidence: tuple[Evidence, ...]
    by_pin: bool = False
    ciliums: bool = False

    @property
    def name(self) -> str:
        """`cil_from_container`, `a program without a name`, or `a u32 filter` of tc."""
        if self.attachment.classifier:
            return f"a {self.attachment.classifier} filter"
        return self.attachment.program_name.removesuffix(":[*fsobj]") or "a program without a name"

    @property
    def chain(self) -> str:
        """Programs of one chain end it for those behind them: `xdp`, `netkit`, or `tc` for tcx and
        clsact together."""
        kind = self.attachment.hook.partition("/")[0]
        return kind if kind in ("xdp", "netkit") else "tc"

    @property
    def title(self) -> str:
        """`cil_from_container (tcx/ingress, id 2205, tag …)`."""
        a = self.attachment
        details = [a.hook or "bpf_link"]
        if a.classifier:
            details.append(f"pref {a.priority}")
        if a.program_id is not None:
            details.append(f"id {a.program_id}")
        if a.tag:
            details.append(f"tag {a.tag}")
        return f"{self.name} ({', '.join(details)})"

    @property
    def role(self) -> str:
        """The purpose of Cilium's program, or of our own; "" for programs of others."""
        role = role_of(self.attachment.program_name)
        return role or ("one of Cilium's, by the maps that it uses" if self.ciliums else "")

    @property
    def own(self) -> bool:
        """Whether it is a program of this tool's netkat."""
        return self.role == OBSERVER


def cgroup_gaps(record: Record | None) -> str:
    """Return the gaps of an answer of the node side that concern cgroups, "" for none."""
    said = stated_gaps(record)
    match = _CGROUP_GAP.search(said)
    return said if match is not None and match[1] not in _DEVICE_ATTACH_TYPES else ""


def device_gaps(record: Record | None) -> str:
    """Return the gaps of an answer of the node side that concern devices, "" for none.

    What could not be read of cgroups takes nothing from what is known of devices.
    """
    return "" if cgroup_gaps(record) else stated_gaps(record)


def of_direction(
    attachments: Iterable[Attachment], direction: str, record: Record | None
) -> list[ProgramAtHook]:
    """Return the programs of one direction, in the order in which they run.

    Args:
        attachments: of one device.
        direction: `ingress` or `egress`.
        record: that lists them.
    """
    hits = []
    for a in attachments:
        hook, _, side = a.hook.partition("/")
        # netkit programs are at the host side device: `peer` sees what leaves the pod.
        side = {"peer": "ingress", "primary": "egress"}.get(side, side)
        if hook == "xdp":
            side = "ingress"
        if side == direction:
            hits.append(ProgramAtHook(a, cite.of(record, a.span)))
    return sorted(hits, key=rank_at(direction))


def rank_at(direction: str) -> Callable[[ProgramAtHook], tuple[int, int]]:
    """Return the key by which programs of a direction stand in the order in which they run."""
    order = _ORDER[direction]

    def rank(program: ProgramAtHook) -> tuple[int, int]:
        kind = program.attachment.hook.partition("/")[0]
        place = order.index(kind) if kind in order else len(order)
        return (place, program.attachment.priority)

    return rank


def named_program(node: NodeView, program: ProgramAtHook) -> ProgramAtHook:
    """Return a program with the best of its names, its tag, and whether it is Cilium's."""
    a = program.attachment
    known = node.program(a.program_id)
    if known is None:
        return replace(program, ciliums=is_ciliums(a.program_name))
    name = best_name(a.program_name, known.name)
    keep = ("id", "type", "name", "tag", "loaded_at")
    evidence = program.evidence + cite.of(node[q.BPF_PROGRAMS].record, known.span, keep=keep)
    by_maps = not name and shares_maps(node, known)
    return replace(
        program,
        attachment=replace(a, tag=a.tag or known.tag, program_name=name),
        evidence=evidence,
        ciliums=is_ciliums(name) or by_maps,
    )


def shares_maps(node: NodeView, program: Program) -> bool:
    """Tell whether a program uses maps of Cilium's programs at devices: those of 1.9 have no name
    in the kernel."""
    attached = (*node[q.ATTACHMENTS].facts, *node[q.BPF_NET].facts)
    ciliums = (node.program(a.program_id) for a in attached if is_ciliums(a.program_name))
    return any(set(program.map_ids).intersection(each.map_ids) for each in ciliums if each)
