"""The BPF programs at the cgroups of a pod's or a node's sockets.

A socket meets those of its own cgroup and of every cgroup above it: as it is made, as it connects
or sends a datagram, and with each packet that it sends or that comes to it. Any of them may refuse,
and those of connect() and sendmsg() may send it elsewhere (Linux kernel/bpf/cgroup.c,
net/core/filter.c, sk_filter_trim_cap). A node pod reads the cgroups of a pod's processes; Cilium's
agent prints the whole tree, where the names of a pod's cgroups have its uid (kubernetes
pkg/kubelet/cm), or a container's id where the kubelet makes none for pods.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from kubectl_ebpfnet.explain.programs.at_hook import ProgramAtHook, cgroup_gaps, named_program
from kubectl_ebpfnet.explain.programs.roles import socket_role
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import UDP, Flow

INGRESS, EGRESS = "cgroup_inet_ingress", "cgroup_inet_egress"
"""Hooks of each packet that comes to a socket, and that leaves it."""
_ABOVE_PODS = re.compile(r"(/(kubelet|kubepods|besteffort|burstable)[\w.-]*)+")
"""Cgroups of kubelet's that hold pods, of both drivers, systemd and cgroupfs."""


def of_socket(flow: Flow) -> frozenset[str]:
    """Return the hooks that a socket passes before it sends the first packet of a flow."""
    version = flow.destination.version
    hooks = {"cgroup_inet_sock_create", f"cgroup_inet{version}_connect"}
    if flow.protocol == UDP:
        hooks.add(f"cgroup_udp{version}_sendmsg")
    return frozenset(hooks)


def at_cgroups(
    node: NodeView, netns: PodNetns | None, pod: Pod | None, hooks: Collection[str]
) -> tuple[tuple[ProgramAtHook, ...], bool]:
    """Return the programs at some hooks of the cgroups of an end, in the order in which they run,
    and whether these are all.

    Args:
        node: of the end.
        netns: of the pod; None for a process of the node itself.
        pod: None where it is not recorded, and for a process of the node itself.
        hooks: attach types.
    """
    listed, complete = _listed(node, netns, pod)
    there = [a for a in listed.facts if a.hook in hooks and not a.detached]
    found = (ProgramAtHook(a, cite.of(listed.record, a.span)) for a in there)
    return tuple(_named(node, program) for program in found), complete


def _listed(
    node: NodeView, netns: PodNetns | None, pod: Pod | None
) -> tuple[Answer[Attachment], bool]:
    own = netns[q.POD_ATTACHMENTS] if netns is not None else node[q.ATTACHMENTS]
    if own.known and not cgroup_gaps(own.record):
        # Whoever read another mount than the hierarchy's told nothing of a pod, and why of a node.
        blind = cgroup_gaps(node[q.ATTACHMENTS].record)
        return own, any(a.cgroup for a in own.facts) or not blind
    tree = node[q.CGROUP_PROGRAMS]
    if not tree.known:  # a node pod knows the root's of the node, whose pod it did not ask
        return node[q.ATTACHMENTS], False
    on_way = tuple(a for a in tree.facts if _is_on_way(a.cgroup, netns, pod))
    return Answer(on_way, tree.record), True


def _is_on_way(cgroup: str, netns: PodNetns | None, pod: Pod | None) -> bool:
    """Tell whether a cgroup is, or may be, one of an end's, or above it."""
    if cgroup in ("", "/"):
        return True
    if pod is not None:
        names = [pod.uid, pod.uid.replace("-", "_"), *(each.id for each in pod.statuses)]
        if any(name and name in cgroup for name in names):
            return True
    return netns is not None and _ABOVE_PODS.fullmatch(cgroup) is not None


def _named(node: NodeView, program: ProgramAtHook) -> ProgramAtHook:
    """Return a program as `named_program`; one of Cilium 1.9 has no name, and its maps are not
    always read."""
    named = named_program(node, program)
    a = named.attachment
    nameless = not a.program_name and node.program(a.program_id) is None
    if nameless and node.config.socket_lb and socket_role(a.hook):
        return replace(named, ciliums=True)
    return named
