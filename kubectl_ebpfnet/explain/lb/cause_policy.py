"""A Cilium policy that denies the probe at its endpoint, as the endpoint's policy map tells.

Source: Cilium bpf/bpf_lxc.c (cil_lxc_policy), bpf/lib/policy.h; the decision is
explain/path/policy.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.explain.lb.cause import Cause, Mismatch
from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kube import ServiceEndpoint

_OF_NODES = {1: "host", 6: "remote-node", 7: "kube-apiserver"}
"""Identities that a node's own address may have at another endpoint."""
_OF_OTHERS = {2: "world", 9: "world-ipv4", 10: "world-ipv6"}


def denied(mismatch: Mismatch) -> Iterator[Cause]:
    """Find endpoints whose policy denies the probe, whichever identity its source has there."""
    for backend in mismatch.backends:
        yield from _denied_at(mismatch, backend)


def _denied_at(mismatch: Mismatch, backend: ServiceEndpoint) -> Iterator[Cause]:
    node = mismatch.cluster.node(backend.node)
    answer = node[q.POLICY_MAPS]
    endpoint = node.endpoint_of(backend.address)
    if endpoint is None or endpoint.policy_audit or not answer.known:
        return
    own = [entry for entry in answer.facts if entry.endpoint_id == endpoint.id]
    by_node = mismatch.flow.source in mismatch.cluster.node_addresses
    # A node that sends the packet on may put its own address in the source's place.
    identities = dict(_OF_NODES) if by_node else {**_OF_OTHERS, 6: "remote-node"}
    verdicts = [
        policy.decide(
            own,
            endpoint.id,
            "ingress",
            policy.Remote(identity),
            mismatch.flow.protocol,
            backend.port,
        )
        for identity in identities
    ]
    if not own or any(verdict.allowed is not False for verdict in verdicts):
        return
    names = ", ".join(identities.values())
    yield Cause(
        f"the ingress policy of endpoint {endpoint.id} ({backend.pod or backend.address}) on "
        f"{node.name} denies port {backend.port} to {names}: {verdicts[0].reason}",
        cite.of(answer.record, *(entry.span for entry in own if entry.direction == "ingress"))
        or cite.whole(answer.record),
    )
