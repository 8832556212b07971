"""Public bug reports as small clusters: what is right, whatever words the answer has.

`tests/scenarios/reports/NAME` holds the records that the report's cluster would have given, with
names and addresses replaced; test_scenarios.py has the whole answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.path import Hop, HopPlace, Severity, State, Verdict
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.render.path.document import document

REPORTS = Path(__file__).parents[2] / "scenarios/reports"
WORLD = "198.51.100.7:443"


@cache
def ask(name: str, destination: str = WORLD, protocol: str = "tcp") -> Answer:
    there = arguments.destination(destination)
    number = arguments.protocol(protocol, there)
    request = arguments.request(arguments.source("pod/client"), there, number, "default", "")
    return explain(request, open_bundle(REPORTS / name))


def text(path: Answer) -> str:
    """The verdict, reason, hops and findings as JSON says them."""
    said = document(path, open_bundle(REPORTS / "monitor-drop-ignored"))
    return json.dumps([said[k] for k in ("verdict", "reason", "hops", "findings")])


def hops(path: Answer, kind: str, node: str = "") -> list[Hop]:
    return [h for h in path.hops if h.kind == kind and node in ("", h.node)]


def certain(found: list[Hop], words: str) -> list[str]:
    """Summaries of hops that hold the words and are not unknown."""
    return [h.summary for h in found if words in h.summary and h.state is not State.UNKNOWN]


def at_node(path: Answer) -> list[Hop]:
    return [h for h in hops(path, "route", "node-a") if h.place is not HopPlace.POD]


def monitor_drop() -> None:
    path = ask("monitor-drop-ignored")
    assert path.verdict is Verdict.DROPPED
    assert path.drop is not None
    assert path.drop.how == "seen"
    assert "FIB lookup failed" in path.reason


def rule_to_an_unread_table() -> None:
    path = ask("rule-to-unread-table")
    assert path.verdict is Verdict.UNKNOWN
    assert "table 11" in path.reason
    assert not certain(at_node(path), "dev eth0")


def device_without_cilium() -> None:
    path = ask("masquerade-at-a-device-without-cilium", "203.0.113.9:443")
    assert not certain(hops(path, "nat"), "10.9.0.11")
    assert path.verdict is not Verdict.DROPPED


def several_addresses() -> None:
    path = ask("which-of-several-addresses")
    found = [h for h in hops(path, "nat") if "10.71.2.11" in h.summary]
    assert all("52.0.2.11" in h.summary + h.reason or h.state is State.UNKNOWN for h in found)


def wireguard() -> None:
    path = ask("wireguard-unmentioned", "pod/web:8080")
    assert "wireguard" in text(path).lower()


def host_firewall() -> None:
    path = ask("host-firewall-unmentioned", "node/node-b:10250")
    assert path.verdict is Verdict.DROPPED
    assert path.drop is not None
    assert path.drop.node == "node-b"


def legacy_tables() -> None:
    assert not ask("second-netfilter-unread").verdict.let_through


def local_redirect() -> None:
    path = ask("local-redirect-false-error", "10.96.0.10:53", "udp")
    assert [f.title for f in path.findings if f.severity is Severity.ERROR] == []


def l7_load_balancer() -> None:
    path = ask("l7lb-called-no-backend", "203.0.113.50:80")
    assert path.verdict is not Verdict.DROPPED
    assert "18133" in text(path)
    assert "no ready backend" not in text(path)
    assert "192.192.192.192" not in path.reason


def ecmp() -> None:
    assert "fe80::2" in text(ask("ecmp-first-hop-taken"))


def netkit() -> None:
    said = text(ask("netkit-called-veth"))
    assert "netkit" in said
    assert "veth" not in said
    assert "ask for its MAC" not in said


def wildcard_nodeport() -> None:
    path = ask("wildcard-nodeport-outside-a-socket", "192.0.2.12:30080")
    assert not [h for h in hops(path, "load-balancing", "node-a") if h.state is not State.UNKNOWN]


def agent_behind_slices() -> None:
    path = ask("agent-behind-endpointslices", "203.0.113.8:443")
    said = " ".join(f.title + f.detail for f in path.findings)
    assert "198.51.100.60" in said
    assert "No pod matches it" not in text(path)


def deny_by_labels() -> None:
    path = ask("deny-named-by-labels", "169.254.169.254:80")
    assert not path.verdict.let_through


def hostport() -> None:
    path = ask("hostport-on-the-receiving-node", "192.0.2.12:8126")
    assert hops(path, "load-balancing", "node-b") or path.verdict is Verdict.UNKNOWN
    assert not [h for h in hops(path, "delivery") if "node-b itself" in h.summary]


def marks_before_routing() -> None:
    path = ask("marks-of-netfilter-before-routing", "10.96.0.10:53")
    assert not certain(hops(path, "route", "node-a"), "dev eth1")


def kube_proxy_chain() -> None:
    first, *_ = hops(ask("kube-proxy-chain-not-followed", "svc/web:80"), "load-balancing")
    assert "10.42.1.40:8080" in first.summary


def pod_cidr_by_a_gateway() -> None:
    path = ask("pod-cidr-by-a-gateway", "pod/web:8080")
    found = [f for f in path.findings if "rout" in (f.title + f.detail).lower()]
    assert path.verdict is Verdict.UNKNOWN or found


def egress_map() -> None:
    path = ask("egress-map-unreadable")
    assert path.verdict is Verdict.UNKNOWN
    assert "egress" in path.reason.lower()


REPORTED: list[Callable[[], None]] = [
    monitor_drop, rule_to_an_unread_table, device_without_cilium, several_addresses, wireguard,
    host_firewall, legacy_tables, local_redirect, l7_load_balancer, ecmp, netkit,
    wildcard_nodeport, agent_behind_slices, deny_by_labels, hostport, marks_before_routing,
    kube_proxy_chain, pod_cidr_by_a_gateway, egress_map,
]  # fmt: skip


@pytest.mark.parametrize("check", REPORTED, ids=lambda check: check.__name__)
def test_report(check: Callable[[], None]) -> None:
    check()
