"""What a probe sends: from which node, by which next hop, in which words. Pure; sends nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from kubectl_ebpfnet.active.lb import attempts as lb_reading
from kubectl_ebpfnet.active.lb.attempts import Sent
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.kube import Node
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.probe import How, ProbeReport, ProbeRequest, ProbeTarget

SENDERS = 2
"""Nodes that probes are sent from: one, and another that probes the first."""
AT_ONCE = 64
"""Next hops of one question (kubectl_ebpfnet/node/netkat/many.py)."""
Nodes = Mapping[str, Node]


def senders(
    request: ProbeRequest, nodes: Nodes, planned: ProbeReport, serving: Collection[str]
) -> list[str]:
    """The nodes that send, the first choice first.

    Args:
        planned: says which nodes and IP versions are probed.
        serving: nodes with an endpoint of the Service.

    Raises:
        UsageError: the one that was asked for is not there.
    """
    if request.from_node:
        if request.from_node not in nodes:
            raise UsageError(
                f"--from node/{request.from_node}: there is no such node",
                hint="nodes: " + ", ".join(sorted(nodes)[:8]),
            )
        return [request.from_node]
    versions = {target.version for target in planned.targets}
    probed = {row.node for row in planned.rows}

    def reluctance(name: str) -> tuple[bool, bool, bool]:
        # It lacks an address; endpoints there would answer past the wire with DSR; another node
        # has to stand in for it.
        lacking = any(address(nodes[name], version) is None for version in versions)
        return lacking, name in serving, name in probed

    ready = [name for name, node in sorted(nodes.items()) if node.ready]
    return sorted(ready, key=reluctance)[:SENDERS]


def sender(chosen: Sequence[str], nodes: Nodes, probed: str, version: int) -> str:
    """The one that probes a node over an IP version, "" when none can."""
    able = (name for name in chosen if address(nodes[name], version) is not None)
    return next((name for name in able if name != probed), "")


def attempts(
    request: ProbeRequest, nodes: Nodes, planned: ProbeReport, chosen: Sequence[str]
) -> list[Sent]:
    """Every attempt, in words; none to nodes without an address of the target's IP version, which
    the expectation tells of."""
    found = [
        one
        for row in planned.rows
        for number in range(1, request.attempts + 1)
        if (one := _attempt(row.target, nodes, row.node, chosen, number)) is not None
    ]
    return _worded(request, found)


def by_node_port(request: ProbeRequest, nodes: Nodes, unreached: Iterable[Sent]) -> list[Sent]:
    """Attempts that could not be brought to a node as a next hop, once more by its node port."""
    found = []
    for one in unreached:
        way, port = address(nodes[one.node], one.target.version), one.target.node_port
        if port and way is not None:
            note = f"sent to node port {port}: the nodes are not on one L2"
            found.append(
                Sent(one.target, one.node, one.from_node, How.NODE_PORT, way, port, "", one.number,
                     note)
            )  # fmt: skip
    return _worded(request, found)


def address(node: Node, version: int) -> Address | None:
    """The node's InternalIP of an IP version."""
    return next((a for a in node.internal_addresses if a.version == version), None)


def _attempt(
    target: ProbeTarget, nodes: Nodes, node: str, chosen: Sequence[str], number: int
) -> Sent | None:
    way = address(nodes[node], target.version)
    by = sender(chosen, nodes, node, target.version)
    if way is None:
        return None
    if target.address is None:
        return Sent(target, node, by, How.NODE_PORT, way, target.port, number=number)
    return Sent(target, node, by, How.NEXT_HOP, target.address, target.port, str(way), number)


def _worded(request: ProbeRequest, sent: Iterable[Sent]) -> list[Sent]:
    """The attempts with their questions; those that differ in the next hop alone share one."""
    sharing: dict[tuple[object, ...], list[Sent]] = {}
    for one in sent:
        alone = "" if one.via else one.node
        key = (one.from_node, one.destination, one.port, one.target.protocol, one.number, alone)
        sharing.setdefault(key, []).append(one)
    worded = []
    for together in sharing.values():
        for at in range(0, len(together), AT_ONCE):
            some = together[at : at + AT_ONCE]
            argv = _words(request, some[0], ",".join(one.via for one in some if one.via))
            worded += [replace(one, argv=argv, line=n) for n, one in enumerate(some, 1)]
    return worded


def _words(request: ProbeRequest, one: Sent, via: str) -> tuple[str, ...]:
    return lb_reading.words(
        one.destination,
        one.port,
        via=via,
        wait=request.wait,
        http=request.http_path,
        protocol=one.target.protocol,
        number=one.number,
    )
