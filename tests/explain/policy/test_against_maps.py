"""What the policies say against what real agents of Cilium made of them: every endpoint's policy
map, asked about every identity that the agent knew, both directions, and ports around the rules'.

The map is decided by explain/path/policy.py; where the evaluation is sure, it is what the map says.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.capture.redact.text import redact
from kubectl_ebpfnet.explain.path import policy
from kubectl_ebpfnet.explain.path.stages import policy_ends, policy_map, policy_settings
from kubectl_ebpfnet.explain.policy.evaluate import evaluate
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.policy.ports import Traffic
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import Identity
from kubectl_ebpfnet.model.evidence import Bundle

FEATURES = Path(__file__).parents[2] / "features"
TRAFFIC = (
    *((6, port) for port in (53, 80, 7777, 7999, 8000, 8080, 8100, 8101, 9000, 9100, 10250)),
    *((17, port) for port in (53, 8080)),
    *((1, kind) for kind in (0, 8)),
)
UNBOUND = (3, 5)
"""unmanaged and init: no endpoint had them."""


@cache
def bundle(situation: str) -> Bundle:
    return open_bundle(FEATURES / situation / "agent.zip")


def other_end(node: NodeView, identity: Identity) -> Party:
    """The other end with an identity; one of a CIDR has an address of it."""
    prefixes = [e.prefix for e in node[q.IPCACHE].facts if e.identity == identity.id]
    outside = any(label.startswith("reserved:world") for label in identity.labels)
    address = prefixes[0].network_address if prefixes else None
    if outside and address is None:
        six = "reserved:world-ipv6" in identity.labels
        address = ip_address("2001:db8::7" if six else "203.0.113.7")
    return Party(frozenset(identity.labels), address=address, outside=outside)


def compared(view: ClusterView) -> tuple[Counter[tuple[bool | None, bool | None]], list[str]]:
    """Count (what the map says, what the policies say), and list where these are opposite."""
    counts: Counter[tuple[bool | None, bool | None]] = Counter()
    opposite: list[str] = []
    for node in map(view.node, view.node_names):
        for endpoint in node[q.ENDPOINTS].facts:
            entries = policy_map.entries(node, endpoint.id)
            own = policy_ends.subject(view, node, endpoint.id)
            settings = policy_settings.enforcement(view, own)
            for identity in node[q.IDENTITIES].facts:
                if identity.id in UNBOUND:
                    continue
                other = other_end(node, identity)
                remote = policy.Remote(identity.id, other.labels, other.address)
                for direction in ("ingress", "egress"):
                    for protocol, port in TRAFFIC:
                        by_map = policy.decide(
                            entries, endpoint.id, direction, remote, protocol, port
                        )
                        said = evaluate(
                            view.kube.network_policies, own, other, direction,
                            Traffic(protocol, port, ()), policy_settings.around(view), settings,
                        )  # fmt: skip
                        counts[by_map.allowed, said.allowed] += 1
                        if said.allowed is not None and said.allowed is not by_map.allowed:
                            opposite.append(
                                f"{node.name} {endpoint.id} {direction} {identity} {protocol} "
                                f"{port}: {by_map} {said.why}"
                            )
    return counts, opposite


@pytest.mark.parametrize(
    "situation",
    ["policies", "host-firewall", "host-firewall-audit", "pod-audit-mode", "fqdn", "services"],
)
def test_policies_say_what_the_map_of_a_real_agent_says(situation: str) -> None:
    counts, opposite = compared(ClusterView(bundle(situation)))
    assert opposite == []
    assert counts[True, True] > 1000
    assert situation == "services" or counts[False, False] > 200
    undecided = sum(number for (_, said), number in counts.items() if said is None)
    assert undecided < 0.02 * counts.total()


def test_a_redacted_capture_says_the_same() -> None:
    counts, opposite = compared(ClusterView(redact(bundle("policies"))))
    assert opposite == []
    assert counts == compared(ClusterView(bundle("policies")))[0]
