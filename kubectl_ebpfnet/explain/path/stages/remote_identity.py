"""Whether the other end of a packet has the identity that Kubernetes tells: an agent that is behind
takes a pod for the world, or for what its labels were, and a policy then denies or allows another.

Source: Cilium pkg/ipcache (an address without an entry is world), pkg/k8s/watchers (CiliumEndpoint
→ ipcache); a tunnel carries the identity that the sender's own agent gave its pod.
"""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.path.agent_behind import see_agent
from kubectl_ebpfnet.explain.path.other_clusters import overlap
from kubectl_ebpfnet.explain.path.stages import policy_map
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.names import identity_text
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import REMOTE_NODE
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Evidence, HopKind, Severity


def compare(walk: PathBuilder, subject: PolicySubject) -> None:
    """Report an identity that is not the pod's.

    Args:
        walk: takes the finding, and the cause of a drop.
        subject: whose policy is asked about whom.
    """
    address, identity = subject.remote.address, subject.remote.identity
    pod = walk.cluster.pod_with(address) if address is not None else None
    if pod is None and address is not None:
        _node(walk, subject, address)
    if pod is None or not identity:
        return
    known = walk.cluster.index.cilium_endpoint(pod.namespace, pod.name)
    if known is None or known.identity in (0, identity) or address not in known.addresses:
        return
    said, right = (identity_text(walk.cluster, each) for each in (identity, known.identity))
    node = subject.node
    proof: tuple[Evidence, ...] = ()
    whose = f"CiliumEndpoint {pod.namespace}/{pod.name} has {right}"
    if _by_tunnel(walk, subject, pod.node):
        title, behind = f"{pod.node} sends what {address} sends as {said}, and {whose}", pod.node
        proof = cite.whole(walk.cluster.node(behind)[q.ENDPOINTS].record)
    else:
        title, behind = f"{node.name} takes {address} for {said}, and {whose}", node.name
        entry = node.ipcache_of(address) if address is not None else None
        if entry is not None:
            proof = cite.of(node[q.IPCACHE].record, entry.span)
    found = overlap(node, address, title) if address is not None and behind == node.name else None
    when = ""
    if found is None:
        found = see_agent(walk.cluster, title, behind)
        when = "Labels that were just changed take seconds to be known everywhere. If it stays so: "
    walk.finding(Severity.WARNING, title, f"{when}{found.fix.text}", proof)
    if _allowed(walk, subject, known.identity) != _allowed(walk, subject, identity):
        walk.stale = walk.stale or found


def _by_tunnel(walk: PathBuilder, subject: PolicySubject, sender: str) -> bool:
    """Tell whether the tunnel brought the identity: the agent of the sender's node gave it."""
    return (
        subject.direction == "ingress"
        and sender not in ("", subject.node.name)
        and any(hop.kind is HopKind.TUNNEL and hop.node == sender for hop in walk.hops)
    )


def _node(walk: PathBuilder, subject: PolicySubject, address: Address) -> None:
    """Report an address of a node that has an agent, and that is taken for the world's."""
    node, identity = subject.node, subject.remote.identity
    known = next(iter(walk.cluster.nodes_with(address)), "")
    cilium = walk.cluster.cilium_node(known) if known else None
    if cilium is None or identity not in policy.WORLD_IDENTITIES:
        return
    if address not in (*cilium.addresses, *cilium.router_addresses):
        return
    row = node.ipcache_of(address)
    if row is not None and row.identity not in policy.WORLD_IDENTITIES:
        return  # the tunnel says it: a client's packet that the other node translated
    title = f"the ipcache of {node.name} takes {address}, an address of node {known}, for the world"
    found = see_agent(walk.cluster, title, node.name)
    walk.finding(
        Severity.WARNING, title,
        "It lacks the row of the node, so policies for nodes (remote-node, host) do not hold for "
        f"it. {found.fix.text}",
        cite.whole(node[q.IPCACHE].record),
    )  # fmt: skip
    if _allowed(walk, subject, REMOTE_NODE) != _allowed(walk, subject, identity):
        walk.stale = walk.stale or found


def _allowed(walk: PathBuilder, subject: PolicySubject, identity: int) -> bool | None:
    """Return what the policy map says of the packet were the other end this identity."""
    remote = policy_map.remote(walk.cluster, subject.node, subject.packet.flow.source, identity)
    remote = replace(remote, address=subject.remote.address)
    return policy.decide(
        policy_map.entries(subject.node, subject.endpoint_id), subject.endpoint_id,
        subject.direction, remote, subject.packet.flow.protocol, subject.port,
    ).allowed  # fmt: skip
