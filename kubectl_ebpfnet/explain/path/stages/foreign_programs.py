"""Programs and tc filters of somebody else on the packet's way.

What one of them does to a packet is not known: it may drop it, change it, send it elsewhere, or end
the chain before Cilium's program. Only a flow that is answered now shows that it lets it pass.
A program of Cilium's ends its own chain (it returns TC_ACT_OK, or redirects), so what stands behind
it there does not run (Linux net/core/dev.c tcx_run, net/sched/cls_bpf.c).

A packet meets the programs of every device below the one that has the address (Linux net/core/dev.c
__netif_receive_skb_core runs XDP and tc again for each device on the way up).
"""

from __future__ import annotations

from collections.abc import Collection

from kubectl_ebpfnet.explain.kernel.devices import lower_devices
from kubectl_ebpfnet.explain.path.presumed import Look
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.programs.at_cgroups import at_cgroups
from kubectl_ebpfnet.explain.programs.at_device import at_device
from kubectl_ebpfnet.explain.programs.at_hook import ProgramAtHook
from kubectl_ebpfnet.explain.programs.in_pod import in_pod
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, HopPlace, State
from kubectl_ebpfnet.model.shell import word

_OTHER_VERSIONS = {4: ("ipv6", "arp"), 6: ("ip", "arp")}


def show_foreign(
    walk: PathBuilder, here: PacketState, where: Where, program: ProgramAtHook, before: str = ""
) -> None:
    """Add a program that is not Cilium's: it may lose the packet unless the flow is answered now.

    Args:
        walk: takes the hop.
        here: the packet.
        where: the hop is: at the device, on the node or in the pod.
        program: somebody else's.
        before: the name of Cilium's program that it runs before, "" for none.
    """
    packet = here.packet.outer or here.packet.flow
    if program.attachment.protocol in _OTHER_VERSIONS[packet.source.version]:
        return
    device = _place_of(program.attachment)
    loaded = walk.cluster.node(here.node).program(program.attachment.program_id)
    known = _known_of(program.attachment, loaded)
    summary = f"{program.title} at {device}, not one of Cilium's{known}"
    if walk.answered_now() and walk.attempt is not None:
        walk.hop(
            *where, f"{summary}: it let this flow pass", State.OBSERVED, here.packet,
            program.evidence + walk.attempt.evidence[:1],
        )  # fmt: skip
        return
    walk.hop(
        *where,
        summary + (f", runs before {before} and may keep the packet from it" if before else ""),
        State.UNKNOWN,
        here.packet,
        program.evidence,
        reason=f"what {program.title} at {device} does with the packet is not known",
        decides=Decides.DROP,
        fix=_look_further(where, program),
    )


def _place_of(attached: Attachment) -> str:
    """Return where a program is: a device, or `cgroup /kubepods.slice`."""
    return attached.device or f"cgroup {attached.cgroup or '/'}"


def _known_of(attached: Attachment, loaded: Program | None) -> str:
    """Return who holds a program, and how often it ran, as far as the kernel tells."""
    holders = f", held by {', '.join(loaded.holders[:3])}" if loaded and loaded.holders else ""
    runs = loaded.run_count if loaded is not None else attached.run_count
    return holders + (f", it ran {runs} times" if runs is not None else "")


def _look_further(where: Where, program: ProgramAtHook) -> Fix:
    a = program.attachment
    place, name, node, _ = where
    there = f"in the network namespace of pod {name}" if place is HopPlace.POD else f"on {node}"
    direction = a.hook.rpartition("/")[2]
    command = f"bpftool prog dump xlated id {a.program_id}" if a.program_id is not None else ""
    counts = ""
    if a.program_id is not None:
        counts = "; `bpftool prog show` counts its runs where kernel.bpf_stats_enabled is 1"
    if a.cgroup:
        there = f"from cgroup {a.cgroup} of {node}"
    if a.classifier:
        command = f"tc -s filter show dev {word(a.device)} {direction}"
    return Fix(
        f"Find out whose it is and what it does{counts}; take it away {there} to try.", command
    )


def show_below(walk: PathBuilder, here: PacketState, device: str, direction: str) -> None:
    """Add the programs of the devices below a device.

    Args:
        walk: takes hops.
        here: the packet on the device's node.
        device: has the address, or is the route's.
        direction: `ingress` or `egress`.
    """
    for lower in lower_devices(walk.cluster.node(here.node), device):
        show_foreign_at(walk, here, lower, direction)


def show_foreign_at(walk: PathBuilder, here: PacketState, device: str, direction: str) -> None:
    """Add the programs at a device that are not Cilium's, and nothing where there are none.

    Args:
        walk: takes hops.
        here: the packet on the device's node.
        device: its name.
        direction: `ingress` or `egress`.
    """
    for program in at_device(walk.cluster.node(here.node), device, direction).programs:
        if not (program.ciliums or program.own):
            show_foreign(walk, here, (HopPlace.NODE, device, here.node, HopKind.PROGRAM), program)


def own_device(netns: PodNetns, address: Address) -> str:
    """Return a pod's device that has an address, `eth0` where that was not read."""
    facts = netns[q.POD_ADDRESSES].facts
    return next((fact.device for fact in facts if fact.address == address), "eth0")


def show_in_pod(
    walk: PathBuilder, here: PacketState, netns: PodNetns, pod: str, device: str, direction: str
) -> None:
    """Add the programs at a pod's own device, in its own namespace: nothing of Cilium's is there.

    Args:
        walk: takes hops.
        here: the packet in the pod.
        netns: of the pod.
        pod: NAMESPACE/NAME.
        device: in the pod.
        direction: `ingress` or `egress`.
    """
    found, complete = in_pod(netns, device, direction)
    left = direction == "egress" and walk.attempt is not None and walk.attempt.now
    # What a node tracks now has left its pod, and hardly ever does something else meet its answers.
    if not complete and not left and (walk.forth is None or direction == "egress"):
        walk.presumed.add(f"tc and XDP inside of pod {pod}", Look.LAST)
    where = (HopPlace.POD, pod, here.node, HopKind.PROGRAM)
    for program in found:
        if not program.own:
            show_foreign(walk, here, where, program)


def show_at_cgroups(
    walk: PathBuilder, here: PacketState, namespace: str, name: str, hooks: Collection[str]
) -> None:
    """Add the programs at the cgroups of an end's socket that are not Cilium's.

    Args:
        walk: takes hops.
        here: the packet at the end.
        namespace: of the pod.
        name: of the pod, "" for a process of the node itself.
        hooks: attach types that the packet passes there.
    """
    node = walk.cluster.node(here.node)
    netns = walk.cluster.pod_netns(namespace, name) if name else None
    found, complete = at_cgroups(node, netns, walk.cluster.pod(namespace, name), hooks)
    where = here.on_node(HopKind.PROGRAM)
    if name:
        where = (HopPlace.POD, f"{namespace}/{name}", here.node, HopKind.PROGRAM)
    if not complete:
        of = f"pod {namespace}/{name}" if name else f"node {here.node}"
        walk.presumed.add(f"programs at the cgroups of {of} (`bpftool cgroup tree`)", Look.LAST)
    for program in found:
        if not (program.ciliums or program.own):
            show_foreign(walk, here, where, program)
