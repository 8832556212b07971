"""Recorded clusters and their expected answers: what is asked, and the golden text and JSON.

`pytest --update-golden` writes the answers anew; read the diff.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.view import View

SCENARIOS = Path(__file__).parents[2] / "scenarios"

CASES = [
    ("vxlan-kpr", "world", "pod/client", "1.1.1.1:80", "tcp"),
    ("vxlan-kpr", "pod-other-node", "pod/client", "pod/web:8080", "tcp"),
    ("vxlan-kpr", "pod-other-node-back", "pod/web", "pod/client:9999", "tcp"),
    ("vxlan-kpr", "service", "pod/client", "svc/web:80", "tcp"),
    ("vxlan-kpr", "loadbalancer", "pod/client", "10.111.111.129:80", "tcp"),
    ("vxlan-kpr", "nodeport", "pod/client", "172.30.0.12:32479", "tcp"),
    ("vxlan-kpr", "icmp", "pod/client", "1.1.1.1", "icmp"),
    ("vxlan-kpr", "node", "pod/client", "node/node1", "icmp"),
    ("vxlan-kpr", "own-node", "pod/client", "node/node2", "icmp"),
    ("vxlan-kpr-egress-policy", "world", "pod/client", "1.1.1.1:80", "tcp"),
    ("vxlan-kpr-egress-policy", "world-443", "pod/client", "1.1.1.1:443", "tcp"),
    ("vxlan-kpr-egress-policy", "pod-other-node", "pod/client", "pod/web:8080", "tcp"),
    ("native-iptables", "world", "pod/client", "1.1.1.1:80", "tcp"),
    ("native-iptables", "pod-other-node", "pod/client", "pod/web:8080", "tcp"),
    ("native-iptables", "service", "pod/client", "svc/web", "tcp"),
    ("native-iptables", "unseen-world", "pod/client", "9.9.9.9:53", "udp"),
    ("tp06", "world", "pod/tp06", "1.0.0.1:80", "tcp"),
    ("tp06", "icmp", "pod/tp06", "1.0.0.1", "icmp"),
    *(
        (f"reports/{folder}", "answer", "pod/client", destination, protocol)
        for folder, destination, protocol in (
            ("monitor-drop-ignored", "198.51.100.7:443", "tcp"),
            ("host-firewall-unmentioned", "node/node-b:10250", "tcp"),
            ("deny-named-by-labels", "169.254.169.254:80", "tcp"),
            ("masquerade-at-a-device-without-cilium", "203.0.113.9:443", "tcp"),
            ("which-of-several-addresses", "198.51.100.7:443", "tcp"),
            ("wireguard-unmentioned", "pod/web:8080", "tcp"),
            ("local-redirect-false-error", "10.96.0.10:53", "udp"),
            ("l7lb-called-no-backend", "203.0.113.50:80", "tcp"),
            ("netkit-called-veth", "198.51.100.7:443", "tcp"),
            ("wildcard-nodeport-outside-a-socket", "192.0.2.12:30080", "tcp"),
            ("agent-behind-endpointslices", "203.0.113.8:443", "tcp"),
            ("hostport-on-the-receiving-node", "192.0.2.12:8126", "tcp"),
            ("egress-map-unreadable", "198.51.100.7:443", "tcp"),
            ("rule-to-unread-table", "198.51.100.7:443", "tcp"),
            ("second-netfilter-unread", "198.51.100.7:443", "tcp"),
            ("ecmp-first-hop-taken", "198.51.100.7:443", "tcp"),
            ("marks-of-netfilter-before-routing", "10.96.0.10:53", "tcp"),
            ("kube-proxy-chain-not-followed", "svc/web:80", "tcp"),
            ("pod-cidr-by-a-gateway", "pod/web:8080", "tcp"),
        )
    ),
]


def answer(scenario: str, source: str, destination: str, protocol: str) -> Answer:
    """The answer to a command line on a recorded cluster."""
    there = arguments.destination(destination)
    number = arguments.protocol(protocol, there)
    request = arguments.request(arguments.source(source), there, number, "default", "")
    return explain(request, open_bundle(SCENARIOS / scenario))


@pytest.mark.parametrize(
    ("scenario", "name", "source", "destination", "protocol"),
    CASES,
    ids=[f"{case[0]}-{case[1]}" for case in CASES],
)
def test_a_recorded_cluster_is_explained_as_expected(
    scenario: str,
    name: str,
    source: str,
    destination: str,
    protocol: str,
    golden: Callable[[Path, str], None],
) -> None:
    path = answer(scenario, source, destination, protocol)
    # The answer names its file; here it is not to name where this checkout lies.
    bundle = replace(open_bundle(SCENARIOS / scenario), source=scenario)
    expected = SCENARIOS / scenario / "expected"
    text = render(path, bundle, "wide", View(width=0, color=False, evidence=True))
    golden(expected / f"{name}.txt", text)
    golden(expected / f"{name}.json", render(path, bundle, "json", View()))


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), [
    (case[0], *case[2:]) for case in CASES
])  # fmt: skip
def test_every_piece_of_evidence_is_in_its_record(
    scenario: str, source: str, destination: str, protocol: str
) -> None:
    bundle = open_bundle(SCENARIOS / scenario)
    path = answer(scenario, source, destination, protocol)
    pieces = [e for hop in path.hops for e in hop.evidence]
    pieces += [e for finding in path.findings for e in finding.evidence]
    assert pieces
    for piece in pieces:
        record = bundle.numbered(piece.record)
        lines = record.stdout.read().decode().splitlines()
        if piece.lines:
            said = [lines[number - 1].strip()[:400] for number in piece.lines]
            assert list(piece.excerpt) == said, record.command
        elif piece.excerpt and piece.excerpt[0].startswith("{"):
            assert json.loads(record.stdout.read()) is not None


def test_tp06_names_what_the_document_names() -> None:
    """Seed 003 walks this packet by hand; the issue lists what must be named."""
    path = answer("tp06", "pod/tp06", "1.0.0.1:80", "tcp")
    said = "\n".join(hop.summary for hop in path.hops) + "\n".join(n.text for n in path.tracking)
    for words_ in (
        "gateway 10.244.0.201",
        "10.244.0.201 is at f6:93:7d:11:4d:37",
        "lxcf4cd39e34601",
        "bpf_lxc.o:[from-container]",
        "id 13245",
        "tag 7febdcdfe7cdd86f",
        "via 165.22.16.1 dev eth0",
        "no program found at eth0's egress",
        "identity 42837",
        "Cilium does no NAT",
        "netfilter masquerades the source to 164.92.138.123",
    ):
        assert words_ in said
    # The document's capture has neither endpoints nor iptables-save, and nothing tells when the
    # flow was answered.
    assert path.verdict == "unknown"
    assert "`cilium-dbg endpoint list -o json`" in path.reason
    assert any("`iptables-save -c`" in hop.reason for hop in path.hops)


NUMBERS = re.compile(r"\bat hop \d|\b(endpoint|identity|id|tag) [0-9a-f]*\d|VNI \d")
"""What belongs into wide: numbers that mean something to Cilium alone."""


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), [
    (case[0], *case[2:]) for case in CASES
])  # fmt: skip
def test_what_is_said_in_short(scenario: str, source: str, destination: str, protocol: str) -> None:
    path = answer(scenario, source, destination, protocol)
    assert path.because
    said = "; ".join(path.because)
    attempt = path.attempt
    for each in path.contradictions:
        own = attempt is not None and each.text == attempt.text
        assert (attempt.short if own and attempt is not None else each.text) in said
    if path.verdict != "unknown":
        # Why something is unknown may name the map's entry that leaves it open.
        assert not NUMBERS.search(said), said
    for hop in path.hops:
        short = hop.short or hop.summary
        assert not NUMBERS.search(short), short
        assert len(short) <= max(len(hop.summary), 100)
