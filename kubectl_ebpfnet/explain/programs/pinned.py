"""Cilium's pinned bpf_links of a hook: attached there, attached nowhere, or not known where.

A pin keeps a bpf_link alive, attached or not: `bpftool link detach`, or a device that is gone,
leave it where it is. So a pin proves an attachment only together with the link's device.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from kubectl_ebpfnet.explain.programs.at_hook import ProgramAtHook
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment, BpfPin
from kubectl_ebpfnet.model.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Pinned:
    """Cilium's pinned links of a hook: attached there, attached nowhere, not known where."""

    attached: list[ProgramAtHook]
    detached: list[ProgramAtHook]
    unclear: list[ProgramAtHook]


def pinned_at(node: NodeView, device: str, direction: str, endpoint_id: int | None) -> Pinned:
    """Return the pinned links of a hook; arguments as of `at_device`."""
    found = Pinned([], [], [])
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


def without(found: Iterable[ProgramAtHook], pinned: Pinned) -> tuple[ProgramAtHook, ...]:
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
