"""The programs at a device, as hops: Cilium's, whose work the stages tell, and those of others.

What a program of somebody else does to a packet is not known: it may drop it, change it, or send it
elsewhere. Only a flow that is answered now shows that it lets it pass. A program of Cilium's ends
the chain of its hook (it returns TC_ACT_OK, or redirects), so what stands behind it does not run.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.at_device import (
    DevicePrograms,
    Presence,
    ProgramAtHook,
    at_device,
)
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.path import (
    Decides,
    Evidence,
    Fix,
    HopKind,
    HopPlace,
    Severity,
    State,
)


def show_programs(walk: PathBuilder, here: PacketState, device: str, direction: str) -> Presence:
    """Add a hop for each program at a device.

    Args:
        walk: takes hops.
        here: the packet on the device's node.
        device: its name.
        direction: `ingress` or `egress`.

    Returns:
        Whether a program of Cilium's is among them.
    """
    node = walk.cluster.node(here.node)
    attached = at_device(node, device, direction, node.endpoint_at(device))
    if not attached.programs:
        _none(walk, here, device, direction, attached)
    done = False
    for program in attached.programs:
        if program.ciliums or program.own:
            _known(walk, here, device, program)
        else:
            _foreign(walk, here, node, device, program, done=done)
        done = done or (program.ciliums and program.attachment.hook != "xdp")
    return attached.cilium


LOST = {
    "pod": "What the pod sends meets no policy, no load-balancing and no conntrack of Cilium's",
    "tunnel": "What comes out of the tunnel meets no policy, and nothing hands it to its endpoint",
    "network": "What comes from the network is not load-balanced, answers to masqueraded packets "
    "are not translated back, and nothing hands packets to their endpoints",
    "host": "What the node's stack sends to pods is not handed to them, nor into the tunnel",
}
"""What does not happen without Cilium's program at a device of a kind."""


def without_cilium(
    walk: PathBuilder, here: PacketState, device: str, kind: str, direction: str = "ingress"
) -> None:
    """Report that no program of Cilium's is where it has to be, although Cilium runs the node.

    The packet goes on as the node's own stack decides. Flows in Cilium's conntrack were let through
    by the program that is gone: they prove nothing of a packet that is sent now.

    Args:
        walk: takes the finding.
        here: the packet on the device's node.
        device: where the program is missing.
        kind: of LOST.
        direction: of the program.
    """
    node = walk.cluster.node(here.node)
    number = node.endpoint_at(device)
    attached = at_device(node, device, direction, number)
    evidence = attached.evidence + _detached_evidence(attached)
    gone = next(iter(attached.detached), None)
    why = f"; the pinned link of {gone.name} is attached to no device" if gone is not None else ""
    title = f"no program of Cilium's is attached at {device} ({direction}) of node {here.node}{why}"
    walk.finding(
        Severity.ERROR,
        title,
        f"{LOST[kind]}: it goes on as the node's own stack does it. Restarting the agent"
        + (", or regenerating the endpoint," if number is not None else "")
        + " attaches the program again.",
        evidence,
    )
    command = node.cilium(f"endpoint regenerate {number}") if number is not None else ""
    fix = Fix(f"Let the agent on {here.node} attach its program again.", command)
    walk.doubt(title, Decides.WAY, fix)
    walk.outdate()


def translates_answers(walk: PathBuilder, here: PacketState, node: NodeView) -> None:
    """Report where Cilium masquerades at a device, and no program of its own translates answers.

    Args:
        walk: takes the finding.
        here: the packet, masqueraded by Cilium at its device.
        node: the device's node.
    """
    if at_device(node, here.device, "ingress").cilium is Presence.ABSENT:
        without_cilium(walk, here, here.device, "network")


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
    )


def _ran(walk: PathBuilder, node: str) -> bool:
    """Tell whether Cilium's conntrack on a node has an attempt of now: its program ran for it."""
    attempt = walk.attempt
    return (
        attempt is not None
        and attempt.now
        and attempt.flow.node == node
        and attempt.flow.cilium_ct is not None
    )


def _foreign(
    walk: PathBuilder,
    here: PacketState,
    node: NodeView,
    device: str,
    program: ProgramAtHook,
    *,
    done: bool,
) -> None:
    """Add a program that is not Cilium's: it may lose the packet unless it does not run, or the
    flow was answered now."""
    loaded = node.program(program.attachment.program_id)
    runs = loaded.run_count if loaded is not None else None
    counted = f", it ran {runs} times" if runs is not None else ""
    summary = f"{program.title} at {device}, not one of Cilium's{counted}"
    where = (HopPlace.NODE, device, here.node, HopKind.PROGRAM)
    if done:
        walk.hop(
            *where, f"{summary}: not reached, Cilium's program before it ends the chain",
            State.DERIVED, here.packet, program.evidence,
        )  # fmt: skip
        return
    if walk.answered_now() and walk.attempt is not None:
        walk.hop(
            *where, f"{summary}: it let this flow pass", State.OBSERVED, here.packet,
            program.evidence + walk.attempt.evidence[:1],
        )  # fmt: skip
        return
    number = program.attachment.program_id
    walk.hop(
        *where,
        summary,
        State.UNKNOWN,
        here.packet,
        program.evidence,
        reason=f"what {program.title} at {device} does with the packet is not known",
        decides=Decides.DROP,
        fix=Fix(
            f"Find out whose program it is and what it does; detach it on {here.node} to try.",
            f"bpftool prog dump xlated id {number}" if number is not None else "",
        ),
    )
