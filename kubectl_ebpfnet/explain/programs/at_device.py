"""The BPF programs and tc filters at a device, in the order in which the kernel runs them.

tc(8) does not show tcx, and a bpftool before 7.3 shows neither tcx nor netkit, so bpf_links and
Cilium's pins are read as well (pinned.py). In which order programs run: at_hook.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from kubectl_ebpfnet.explain.programs.at_hook import (
    ProgramAtHook,
    device_gaps,
    named_program,
    of_direction,
    rank_at,
)
from kubectl_ebpfnet.explain.programs.pinned import Pinned, pinned_at, without
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.path import Evidence


class Presence(StrEnum):
    """Whether a program of Cilium's is at a hook."""

    PRESENT = "present"
    ABSENT = "absent"
    """Certainly: every way of attaching was read."""
    UNKNOWN = "unknown"


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
        detached = without(named, pinned_at(node, device, direction, endpoint_id))
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
    pinned = pinned_at(node, device, direction, endpoint_id)
    if node.net_shows_tcx or _has_tcx(found):
        pinned = Pinned([], list(without(found, pinned)), [])
    else:
        found += _new(found, pinned.attached)
        if node[q.BPF_PINS].known:
            asked.append("pins")
        if not found and not pinned.unclear and node.bpf_links.known:
            asked.append("bpftool link")
            # Without pins the device's name is all there is; another namespace may use it too.
            links = node.links_by_device.get(device, ())
            found += of_direction(links, direction, node.bpf_links.record)[:1]
    named = tuple(named_program(node, program) for program in sorted(found, key=rank_at(direction)))
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


def _has_tcx(found: list[ProgramAtHook]) -> bool:
    return any(p.attachment.hook.startswith(("tcx", "netkit")) for p in found)


def _new(have: list[ProgramAtHook], more: list[ProgramAtHook]) -> list[ProgramAtHook]:
    ids = {p.attachment.program_id for p in have if p.attachment.program_id is not None}
    return [p for p in more if p.attachment.program_id not in ids or not ids]


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
