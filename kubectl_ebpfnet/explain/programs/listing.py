"""Every BPF program that acts on a pod or on a node.

A pod's packets meet the programs in the pod's own namespace, those at the host side of its veth or
netkit device, and those of its cgroups (socket load-balancing) and of its namespace (sk_lookup).
The list names the programs that only a node pod can see as missing where an agent was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from kubectl_ebpfnet.explain.programs.at_device import at_device
from kubectl_ebpfnet.explain.programs.at_hook import shares_maps
from kubectl_ebpfnet.explain.programs.roles import role_of, socket_role
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.explain.views.placed import Placed, placed_pod
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.evidence import LIVE, Bundle
from kubectl_ebpfnet.model.kernel import Link
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.programs import AttachedProgram, ProgramList

_DIRECTIONS = ("ingress", "egress")


def of_node(name: str, bundle: Bundle) -> ProgramList:
    """List the programs at every hook of a node's own namespace, and of its root cgroups."""
    cluster = ClusterView(bundle)
    node = cluster.node(name)
    where = f"node {name}"
    rows = [*_at_devices(node, where, node[q.LINKS].facts), *_elsewhere(node, where)]
    missing = [*_by_pins(rows, bundle), *_missing(node)]
    return ProgramList(where, name, _ordered(rows), tuple(missing), _asked(node))


def of_pod(namespace: str, name: str, bundle: Bundle) -> ProgramList:
    """List the programs that act on a pod's packets and sockets.

    Args:
        namespace: of the pod.
        name: of the pod.
        bundle: all records.
    """
    return _of_pod(namespace, name, ClusterView(bundle))


def _of_pod(namespace: str, name: str, cluster: ClusterView) -> ProgramList:
    bundle, where = cluster.bundle, f"pod {namespace}/{name}"
    pod = placed_pod(cluster, namespace, "pod", name)
    if not pod.node:
        return ProgramList(where, "", (), (f"{where} is on no node that is known",))
    node = cluster.node(pod.node)
    if pod.host_network:
        on_node = of_node(pod.node, bundle)
        note = f"{where} shares the network namespace of node {pod.node}: these are the node's"
        owners = (f"{namespace}/{name}",) * len(on_node.programs)
        return replace(on_node, target=where, missing=(note, *on_node.missing), owners=owners)
    netns = cluster.pod_netns(namespace, name)
    rows: list[AttachedProgram] = []
    missing: list[str] = []
    own = netns[q.POD_ATTACHMENTS]
    if own.known:
        rows += _of_answer(node, where, own)
        if gaps := own.gaps:
            missing.append(f"some programs in the pod's own namespace and cgroups: {gaps}")
    else:
        missing.append(
            f"programs in the pod's own namespace and cgroups: {own.missing}"
            + (" (--node-access pod asks for them)" if bundle.source == LIVE else "")
        )
    host_side = _host_side(pod.addresses, node, netns)
    if host_side is not None:
        rows += _at_devices(node, f"node {node.name}", [host_side])
    else:
        why = node[q.LINKS].missing or "no device of the node matches it"
        missing.append(f"the host side of the pod's device is not known: {why}")
    if not own.known:
        rows += _elsewhere(node, f"node {node.name}")
    missing += [*_by_pins(rows, bundle), *_missing(node)]
    programs = _ordered(rows)
    owners = (f"{namespace}/{name}",) * len(programs)
    return ProgramList(where, node.name, programs, tuple(missing), _asked(node), owners)


def of_pods(pods: Sequence[Placed], target: str, bundle: Bundle) -> ProgramList:
    """List the programs that act on several pods, pod by pod.

    Args:
        pods: the pods; those in their node's network namespace are left out, and counted.
        target: in words which pods they are.
        bundle: all records.
    """
    own = [pod for pod in pods if not pod.host_network]
    cluster = ClusterView(bundle)  # one for all: it reads every object of the cluster
    lists = [_of_pod(pod.namespace, pod.name, cluster) for pod in own]
    missing: dict[str, int] = {}
    for pod, found in zip(own, lists, strict=True):
        for text in found.missing:  # the same is missing of many pods
            alike = text.replace(f"pod {pod.namespace}/{pod.name}", "the pod")
            missing[alike] = missing.get(alike, 0) + 1
    notes = [f"{text} ({count} pods)" if count > 1 else text for text, count in missing.items()]
    if shared := len(pods) - len(own):
        notes.insert(0, f"{shared} pods in their node's network namespace (programs node/NAME)")
    nodes = {found.node for found in lists}
    return ProgramList(
        target,
        nodes.pop() if len(nodes) == 1 else "",
        tuple(program for found in lists for program in found.programs),
        tuple(notes),
        min((found.asked for found in lists if found.asked), default=""),
        tuple(owner for found in lists for owner in found.owners),
    )


def _host_side(addresses: Sequence[Address], node: NodeView, netns: PodNetns) -> Link | None:
    """Find the node's end of the pod's device by ifindex, endpoint, or the gateway's MAC."""
    indexes = [link.peer_index for link in netns[q.POD_LINKS].facts if link.peer_index is not None]
    indexes += netns[q.POD_IFLINK].facts
    for address in addresses:
        endpoint = node.endpoint_of(address)
        if endpoint is not None and endpoint.ifindex is not None:
            indexes.append(endpoint.ifindex)
        if endpoint is not None and endpoint.interface and not indexes:
            found = node.link(endpoint.interface)
            if found is not None:
                return found
    for link in node[q.LINKS].facts:
        if link.index in indexes and link.index != 1:
            return link
    macs = {neighbour.mac for neighbour in netns[q.POD_NEIGHBOURS].facts if neighbour.mac}
    return next((link for link in node[q.LINKS].facts if link.mac in macs), None)


def _at_devices(node: NodeView, where: str, links: Iterable[Link]) -> Iterator[AttachedProgram]:
    for link in links:
        for direction in _DIRECTIONS:
            there = at_device(node, link.name, direction, node.endpoint_at(link.name))
            for found in there.programs:
                a = found.attachment
                if a.classifier:
                    continue
                program = node.program(a.program_id)
                yield AttachedProgram(
                    where, a, 0, program, found.role, found.evidence, found.by_pin
                )


def _elsewhere(node: NodeView, where: str) -> Iterator[AttachedProgram]:
    """List programs at cgroups and sk_lookup, which belong to no device."""
    for answer in (node[q.ATTACHMENTS], node.bpf_links, node[q.CGROUP_PROGRAMS]):
        rows = [row for row in _of_answer(node, where, answer) if not row.attachment.device]
        rows = [row for row in rows if row.attachment.hook.startswith(("cgroup", "sk_lookup"))]
        if rows:
            yield from rows
            return


def _of_answer(node: NodeView, where: str, answer: Answer[Attachment]) -> Iterator[AttachedProgram]:
    for a in answer.facts:
        if a.classifier or a.detached:
            continue
        evidence = cite.of(answer.record, a.span)
        program = node.program(a.program_id)
        name = program.name if program is not None else a.program_name
        role = role_of(name)
        if not name and program is not None and shares_maps(node, program):
            role = socket_role(a.hook)
        yield AttachedProgram(where, a, 0, program, role, evidence)


def _ordered(rows: Iterable[AttachedProgram]) -> tuple[AttachedProgram, ...]:
    """Number the programs of each hook in the order in which they run."""
    seen: dict[tuple[str, ...], int] = {}
    numbered = []
    for row in rows:
        a = row.attachment
        # XDP, tcx and clsact of one direction are one chain; each cgroup attach type is its own.
        direction = a.hook.rpartition("/")[2]
        direction = {"xdp": "ingress", "peer": "ingress", "primary": "egress"}.get(
            direction, direction
        )
        key = (row.where, a.device, a.cgroup, direction)
        seen[key] = seen.get(key, 0) + 1
        numbered.append(replace(row, order=seen[key]))
    return tuple(numbered)


def _asked(node: NodeView) -> str:
    record = node[q.BPF_PROGRAMS].record
    return record.started if record is not None else ""


def _by_pins(rows: Iterable[AttachedProgram], bundle: Bundle) -> Iterator[str]:
    """Say that it is not known whether programs are attached that pins alone name."""
    devices = dict.fromkeys(row.attachment.device for row in rows if row.by_pin)
    if devices:
        hint = " (--node-access pod asks the kernel)" if bundle.source == LIVE else ""
        yield (
            f"whether the pinned programs of {', '.join(devices)} are attached: the bpftool of the "
            f"agent does not show of which device a link is{hint}"
        )


def _missing(node: NodeView) -> Iterator[str]:
    if node[q.ATTACHMENTS].known:
        if gaps := node[q.ATTACHMENTS].gaps:
            yield f"some programs of node {node.name}: {gaps}"
        return
    if not node[q.LINKS].known:
        yield f"the devices of node {node.name}: {node[q.LINKS].missing}"
    elif not node[q.BPF_NET].known and not node[q.BPF_PINS].known:
        yield f"tcx, XDP and netkit programs of node {node.name}: {node[q.BPF_NET].missing}"
