"""The programs at a device, as hops: Cilium's, whose work the stages tell, and those of others."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.stages.foreign_programs import show_foreign
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.at_device import DevicePrograms, Presence, at_device
from kubectl_ebpfnet.explain.programs.at_hook import ProgramAtHook
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    HopKind,
    HopPlace,
    State,
)


def show_programs(
    walk: PathBuilder,
    here: PacketState,
    device: str,
    direction: str,
    *,
    xdp: bool | None = None,
) -> Presence:
    """Add a hop for each program at a device.

    Args:
        walk: takes hops.
        here: the packet on the device's node.
        device: its name.
        direction: `ingress` or `egress`.
        xdp: show those of XDP alone, or the others; None for all.

    Returns:
        Whether a program of Cilium's is among them.
    """
    node = walk.cluster.node(here.node)
    attached = at_device(node, device, direction, node.endpoint_at(device))
    programs = [p for p in attached.programs if xdp is None or (p.chain == "xdp") is xdp]
    if not programs:
        _none(walk, here, device, direction, attached)
    ended: dict[str, str] = {}
    for number, program in enumerate(programs):
        if program.ciliums or program.own:
            _known(walk, here, device, program)
        elif program.chain in ended:
            _not_reached(walk, here, program, ended[program.chain])
        else:
            behind = (p.name for p in programs[number:] if p.ciliums)
            where = (HopPlace.NODE, device, here.node, HopKind.PROGRAM)
            show_foreign(walk, here, where, program, next(behind, ""))
        if program.ciliums and not program.by_pin and program.chain != "xdp":
            ended[program.chain] = program.name
    return attached.cilium


def _none(
    walk: PathBuilder, here: PacketState, device: str, direction: str, attached: DevicePrograms
) -> None:
    asked = " and ".join(attached.asked)
    detached = ", ".join(f"{p.name} is pinned, but detached" for p in attached.detached)
    why = "; ".join(text for text in (asked, detached) if text)
    walk.hop(
        *here.on_node(HopKind.PROGRAM),
        f"no program found at {device}'s {direction}" + (f" ({why})" if why else ""),
        State.UNKNOWN if attached.missing else State.OBSERVED,
        here.packet,
        attached.evidence + _detached_evidence(attached),
        reason=attached.missing,
        short=f"none found at {device} ({direction})",
    )


def _detached_evidence(attached: DevicePrograms) -> tuple[Evidence, ...]:
    return tuple(each for program in attached.detached for each in program.evidence)


def _known(walk: PathBuilder, here: PacketState, device: str, program: ProgramAtHook) -> None:
    by_pin = "; it is pinned, and the tools do not show whether it is attached"
    walk.hop(
        HopPlace.CILIUM if program.ciliums else HopPlace.NODE,
        device,
        here.node,
        HopKind.PROGRAM,
        f"{program.title} at {device}: {program.role}" + (by_pin if program.by_pin else ""),
        State.UNKNOWN if program.by_pin else State.OBSERVED,
        here.packet,
        program.evidence,
        reason="a pin is no proof of an attachment, and this bpftool does not show tcx links"
        if program.by_pin
        else "",
        decides=Decides.WAY if program.by_pin and not _ran(walk, here.node) else Decides.NOTHING,
        short=f"{program.name} at {device} ({_hook(program)})"
        + (", pinned" if program.by_pin else ""),
    )


def _hook(program: ProgramAtHook) -> str:
    return program.attachment.hook.replace("/", " ") or "bpf_link"


def _ran(walk: PathBuilder, node: str) -> bool:
    """Tell whether Cilium's conntrack on a node has an attempt of now: its program ran for it."""
    attempt = walk.attempt
    return (
        attempt is not None
        and attempt.now
        and attempt.flow.node == node
        and attempt.flow.cilium_ct is not None
    )


def _not_reached(walk: PathBuilder, here: PacketState, program: ProgramAtHook, before: str) -> None:
    device = program.attachment.device
    walk.hop(
        HopPlace.NODE, device, here.node, HopKind.PROGRAM,
        f"{program.title} at {device}, not one of Cilium's: not reached, {before} before it ends "
        "the chain", State.DERIVED, here.packet, program.evidence,
        short=f"{program.name} at {device} ({_hook(program)}): not reached",
    )  # fmt: skip
