"""The BPF programs and tc filters at a device, in the order in which the kernel runs them.

At ingress: XDP, then tcx, then the clsact filters by preference; at egress: tcx, then clsact
(Linux net/core/dev.c sch_handle_ingress, sch_handle_egress). A netkit pair runs its programs as it
transmits (drivers/net/netkit.c): before the other end's ingress, behind its own egress. tc(8) does
not show tcx, and a bpftool before 7.3 shows neither tcx nor netkit, so bpf_links and Cilium's pins
are read as well.

A pin keeps a bpf_link alive, attached or not: `bpftool link detach`, or a device that is gone,
leave it where it is. So a pin proves an attachment only together with the link's device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum
from itertools import chain

from kubectl_ebpfnet.explain.programs.roles import OBSERVER, best_name, is_ciliums, role_of
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import stated_gaps
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment, BpfPin, Program
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


class Presence(StrEnum):
    """Whether a program of Cilium's is at a hook."""

    PRESENT = "present"
    ABSENT = "absent"
    """Certainly: every way of attaching was read."""
    UNKNOWN = "unknown"


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


@dataclass(frozen=True, slots=True)
class DevicePrograms:
    """The programs of one device and direction.

    Attributes:
        programs: in the order in which they run.
        asked: sources that were read, e.g. ("bpftool net", "tc").
        missing: why the list may be incomplete; "" when every attach type was read.
        cilium: whether a program of Cilium's is there.
        detached: links of Cilium's that a pin keeps, and that are attached nowhere.
        evidence: of an empty answer.
    """

    programs: tuple[ProgramAtHook, ...]
    asked: tuple[str, ...]
    missing: str
    cilium: Presence
    detached: tuple[ProgramAtHook, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def at_device(
    node: NodeView, device: str, direction: str, endpoint_id: int | None = None
) -> DevicePrograms:
    """Return the programs that a packet meets at a device of a node.

    Args:
        node: whose device it is.
        device: its name.
        direction: `ingress` (into the stack from the device) or `egress`.
        endpoint_id: of the pod behind the device, to find its pinned links.
    """
    whole = node[q.ATTACHMENTS]
    if whole.known:
        there = of_direction(node.having(q.ATTACHMENTS, device, "device"), direction, whole.record)
        named = tuple(named_program(node, program) for program in there)
        missing = device_gaps(whole.record)
        cilium = _presence(named, complete=not missing)
        detached = _without(named, _pinned(node, device, direction, endpoint_id))
        evidence = cite.whole(whole.record)
        return DevicePrograms(named, ("the kernel",), missing, cilium, detached, evidence)
    return _by_commands(node, device, direction, endpoint_id)


def _by_commands(
    node: NodeView, device: str, direction: str, endpoint_id: int | None
) -> DevicePrograms:
    found: list[ProgramAtHook] = []
    asked: list[str] = []
    empty: tuple[Evidence, ...] = ()
    net, filters = node[q.BPF_NET], node[q.TC_FILTERS.about(device, direction)]
    if net.known:
        asked.append("bpftool net")
        empty += cite.whole(net.record)
        found += of_direction(node.having(q.BPF_NET, device, "device"), direction, net.record)
    if filters.known:
        asked.append("tc")
        empty += cite.whole(filters.record)
        of_tc = [ProgramAtHook(a, cite.of(filters.record, a.span)) for a in filters.facts]
        found += _new(found, of_tc)
    pinned = _pinned(node, device, direction, endpoint_id)
    if node.net_shows_tcx or _has_tcx(found):
        pinned = _Pinned([], list(_without(found, pinned)), [])
    else:
        found += _new(found, pinned.attached)
        if node[q.BPF_PINS].known:
            asked.append("pins")
        if not found and not pinned.unclear and node.bpf_links.known:
            asked.append("bpftool link")
            # Without pins the device's name is all there is; another namespace may use it too.
            links = node.links_by_device.get(device, ())
            found += of_direction(links, direction, node.bpf_links.record)[:1]
    named = tuple(named_program(node, program) for program in sorted(found, key=_rank(direction)))
    there = pinned.detached or any(program.ciliums for program in named)
    missing = "" if there else _missing(node, asked, filters.known)
    if pinned.unclear and not any(p.ciliums for p in named):
        named += tuple(named_program(node, program) for program in pinned.unclear)
        missing = "bpftool does not tell of which device the pinned link is"
    cilium = _presence(named, complete=not missing)
    return DevicePrograms(named, tuple(asked), missing, cilium, tuple(pinned.detached), empty)


def xdp_entry(node: NodeView, device: str) -> Presence:
    """Tell whether Cilium's XDP program is at a device of a node."""
    there = [p for p in at_device(node, device, "ingress").programs if p.chain == "xdp"]
    if any(program.ciliums for program in there):
        return Presence.PRESENT
    whole, nameless = node[q.ATTACHMENTS], any(not p.attachment.program_name for p in there)
    listed = not device_gaps(whole.record) if whole.known else node[q.BPF_NET].known
    return Presence.ABSENT if listed and not nameless else Presence.UNKNOWN


def _presence(named: Iterable[ProgramAtHook], *, complete: bool) -> Presence:
    """Tell whether Cilium's program that a packet meets behind XDP is there."""
    programs = [program for program in named if program.chain != "xdp"]
    if any(program.ciliums and not program.by_pin for program in programs):
        return Presence.PRESENT
    nameless = any(
        not program.attachment.program_name and not program.attachment.classifier
        for program in programs
    )
    return Presence.ABSENT if complete and not nameless else Presence.UNKNOWN


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
    return sorted(hits, key=_rank(direction))


@dataclass(frozen=True, slots=True)
class _Pinned:
    """Cilium's pinned links of a hook: attached there, attached nowhere, not known where."""

    attached: list[ProgramAtHook]
    detached: list[ProgramAtHook]
    unclear: list[ProgramAtHook]


def _pinned(node: NodeView, device: str, direction: str, endpoint_id: int | None) -> _Pinned:
    found = _Pinned([], [], [])
    for pin in _pins(node, device, endpoint_id):
        if pin.kind != "link" or _direction_of(pin.name) != direction:
            continue
        link = next(iter(node.links_by_pin.get(pin.path, ())), None)
        evidence = cite.of(node[q.BPF_PINS].record, pin.span)
        if link is not None:
            evidence += cite.of(node[q.BPF_LINKS].record, link.span)
        program = Attachment(
            hook=link.hook if link and link.hook else f"tcx/{direction}",
            device=device,
            program_name=pin.name,
            program_id=link.program_id if link else None,
            link_id=link.link_id if link else None,
            pin=pin.path,
        )
        if link is not None and link.hook and link.device == device:
            found.attached.append(ProgramAtHook(program, evidence))
        elif link is not None and link.hook:
            found.detached.append(ProgramAtHook(program, evidence))
        else:
            found.unclear.append(ProgramAtHook(program, evidence, by_pin=True))
    return found


def _without(found: Iterable[ProgramAtHook], pinned: _Pinned) -> tuple[ProgramAtHook, ...]:
    """Return the pinned programs that are not among all that are attached."""
    names = {program.attachment.program_name for program in found}
    every = chain(pinned.attached, pinned.detached, pinned.unclear)
    return tuple(program for program in every if program.attachment.program_name not in names)


def _pins(node: NodeView, device: str, endpoint_id: int | None) -> list[BpfPin]:
    if not node[q.BPF_PINS].known:
        return []
    owners = [("device", device.replace(".", "-"))]
    if endpoint_id is not None:
        owners.append(("endpoint", str(endpoint_id)))
    by_owner = (node.having(q.BPF_PINS, owner, "owner", "owner_name") for owner in owners)
    return sorted(chain.from_iterable(by_owner), key=lambda pin: pin.span.line)


def _direction_of(name: str) -> str:
    """Return `ingress` or `egress`, where Cilium attaches a program of this name."""
    if name == "cil_from_host":
        return "egress"
    if name == "cil_to_host":
        return "ingress"
    return "ingress" if "_from_" in name or name.startswith(("from-", "cil_xdp")) else "egress"


def _has_tcx(found: list[ProgramAtHook]) -> bool:
    return any(p.attachment.hook.startswith(("tcx", "netkit")) for p in found)


def _new(have: list[ProgramAtHook], more: list[ProgramAtHook]) -> list[ProgramAtHook]:
    ids = {p.attachment.program_id for p in have if p.attachment.program_id is not None}
    return [p for p in more if p.attachment.program_id not in ids or not ids]


def _rank(direction: str) -> Callable[[ProgramAtHook], tuple[int, int]]:
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


def _missing(node: NodeView, asked: list[str], by_tc: bool) -> str:
    """Return why programs may be there although none was found; "" when none is there."""
    if not asked:
        return "neither bpftool nor tc could be asked"
    by_netlink = by_tc or node[q.BPF_NET].known  # both list clsact's filters
    config = node.config
    if by_netlink and config.attach_mode == "tc" and not config.datapath_mode.startswith("netkit"):
        return ""
    if node.net_shows_tcx or (node[q.BPF_NET].known and "pins" in asked):
        return ""
    if node[q.BPF_NET].known and any(a.hook.startswith("tcx") for a in node[q.BPF_LINKS].facts):
        return ""
    if not node[q.BPF_NET].known:
        return "only tc was asked, which does not show tcx and netkit" if by_tc else \
            "bpftool net could not be asked"  # fmt: skip
    return "this bpftool may not know tcx and netkit, and Cilium's pins were not read"
