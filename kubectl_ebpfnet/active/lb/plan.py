"""Plan the attempts of a probe: sender, next hop and argv of each. Pure; sends nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from kubectl_ebpfnet.active.lb.attempts import SentAttempt, probe_of
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.kube import Node
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.probe import How, ProbeReport, ProbeRequest, ProbeTarget

SENDERS = 2
"""How many nodes send: one, and another that probes the first."""
AT_ONCE = 64
"""Most next hops of one question (node/netkat/many.py)."""
Nodes = Mapping[str, Node]


def choose_senders(
    request: ProbeRequest, nodes: Nodes, planned: ProbeReport, serving: Collection[str]
) -> list[str]:
    """Return the nodes that send, the best first.

    Args:
        request: may name the sender.
        nodes: all nodes, by name.
        planned: has the nodes and IP versions to probe.
        serving: names of nodes with an endpoint of the Service.

    Raises:
        UsageError: the requested sender does not exist.
    """
    if request.from_node:
        if request.from_node not in nodes:
            raise UsageError(
                f"--from-node node/{request.from_node}: there is no such node",
                hint="nodes: " + ", ".join(sorted(nodes)[:8]),
            )
        return [request.from_node]
    versions = {target.version for target in planned.targets}
    probed = {row.node for row in planned.rows}

    def reluctance(name: str) -> tuple[bool, bool, bool]:
        # The node lacks an address; its endpoints would answer past the wire with DSR; another
        # sender has to probe it.
        lacks_address = any(node_address(nodes[name], version) is None for version in versions)
        return lacks_address, name in serving, name in probed

    ready = [name for name, node in sorted(nodes.items()) if node.ready]
    return sorted(ready, key=reluctance)[:SENDERS]


def sender_for(senders: Sequence[str], nodes: Nodes, probed: str, version: int) -> str:
    """Return the sender that probes a node, "" when none can.

    Args:
        senders: names of the nodes that send.
        nodes: all nodes, by name.
        probed: name of the node to probe.
        version: IP version.
    """
    candidates = (name for name in senders if node_address(nodes[name], version) is not None)
    return next((name for name in candidates if name != probed), "")


def plan_attempts(
    request: ProbeRequest, nodes: Nodes, planned: ProbeReport, senders: Sequence[str]
) -> list[SentAttempt]:
    """Return every attempt. A node without an address of the target's IP version has none; its row
    of the report says so.

    Args:
        request: how to probe.
        nodes: all nodes, by name.
        planned: has the nodes and targets to probe.
        senders: names of the nodes that send.
    """
    attempts = [
        attempt
        for row in planned.rows
        for number in range(1, request.attempts + 1)
        if (attempt := _attempt(row.target, nodes, row.node, senders, number)) is not None
    ]
    return _with_probes(request, attempts)


def plan_internal(
    request: ProbeRequest, nodes: Nodes, planned: ProbeReport, senders: Sequence[str]
) -> list[SentAttempt]:
    """Return an attempt at each address by the own stack of a node that sends: what a client on a
    node meets, whom the cluster treats as internal.

    Args:
        request: how to probe.
        nodes: all nodes, by name.
        planned: has the targets.
        senders: names of the nodes that send.
    """
    attempts = []
    for target in planned.targets:
        able = (n for n in senders if node_address(nodes[n], target.version) is not None)
        name = next(able, "")
        if target.address is None or not name:
            continue
        probe = probe_of(
            target.address, target.port, wait=request.wait, http=request.http_path,
            protocol=target.protocol, own=True,
        )  # fmt: skip
        attempts.append(
            SentAttempt(target, name, name, How.OWN_STACK, target.address, target.port, probe=probe)
        )
    return attempts


def retry_by_node_port(
    request: ProbeRequest, nodes: Nodes, unreached: Iterable[SentAttempt]
) -> list[SentAttempt]:
    """Return attempts that go to a node by its node port.

    Args:
        request: how to probe.
        nodes: all nodes, by name.
        unreached: attempts whose node did not answer as a next hop.
    """
    attempts = []
    for old in unreached:
        node_ip, port = node_address(nodes[old.node], old.target.version), old.target.node_port
        if port and node_ip is not None:
            note = f"sent to node port {port}: the nodes are not on one L2"
            old = replace(old, how=How.NODE_PORT, destination=node_ip, port=port)
            attempts.append(replace(old, via="", note=note))
    return _with_probes(request, attempts)


def node_address(node: Node, version: int) -> Address | None:
    """Return the node's InternalIP of an IP version, or None."""
    return next((a for a in node.internal_addresses if a.version == version), None)


def _attempt(
    target: ProbeTarget, nodes: Nodes, node: str, senders: Sequence[str], number: int
) -> SentAttempt | None:
    node_ip = node_address(nodes[node], target.version)
    sender = sender_for(senders, nodes, node, target.version)
    if node_ip is None:
        return None
    if target.address is None:
        port = target.port
        return SentAttempt(target, node, sender, How.NODE_PORT, node_ip, port, number=number)
    address, via = target.address, str(node_ip)
    return SentAttempt(target, node, sender, How.NEXT_HOP, address, target.port, via, number)


def _with_probes(request: ProbeRequest, planned: Iterable[SentAttempt]) -> list[SentAttempt]:
    """Return attempts with their questions; those that differ in the next hop alone share one."""
    groups: dict[tuple[object, ...], list[SentAttempt]] = {}
    for attempt in planned:
        node = "" if attempt.via else attempt.node
        protocol = attempt.target.protocol
        key = (attempt.from_node, attempt.destination, attempt.port, protocol, attempt.number, node)
        groups.setdefault(key, []).append(attempt)
    attempts = []
    for group in groups.values():
        for start in range(0, len(group), AT_ONCE):
            batch = group[start : start + AT_ONCE]
            probe = probe_of(
                batch[0].destination,
                batch[0].port,
                via=",".join(attempt.via for attempt in batch if attempt.via),
                wait=request.wait,
                http=request.http_path,
                protocol=batch[0].target.protocol,
                number=batch[0].number,
            )
            attempts += [replace(sent, probe=probe, line=n) for n, sent in enumerate(batch, 1)]
    return attempts
