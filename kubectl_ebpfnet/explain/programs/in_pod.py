"""The programs in a pod's own network namespace, which a node pod alone can see whole."""

from __future__ import annotations

from kubectl_ebpfnet.explain.programs.at_hook import ProgramAtHook, device_gaps, of_direction
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment


def in_pod(netns: PodNetns, device: str, direction: str) -> tuple[tuple[ProgramAtHook, ...], bool]:
    """Return the programs at a device of a pod, in the order in which they run, and whether these
    are all: `ip` shows no more than the id of an XDP program.

    Args:
        netns: of the pod.
        device: in the pod.
        direction: `ingress` or `egress`.
    """
    answer = netns[q.POD_ATTACHMENTS]
    if answer.known:
        there = netns.having(q.POD_ATTACHMENTS, device, "device")
        complete = not device_gaps(answer.record)
        return tuple(of_direction(there, direction, answer.record)), complete
    link = netns.link(device)
    if link is None or link.xdp_program is None or direction == "egress":
        return (), False
    xdp = Attachment("xdp", device, "", link.xdp_program)
    return (ProgramAtHook(xdp, cite.of(netns[q.POD_LINKS].record, link.span.head())),), False
