"""The same as test_kernels.py, on what a kernel told once; and as an agent would have told it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from kubectl_ebpfnet.model.path import Path, Verdict
from tests.kernels import cluster, recorded
from tests.kernels.expected import EXPECTED, NATIVE, WIREGUARD


@cache
def told() -> dict[str, Any]:
    return recorded.told()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_path_says_what_traffic_showed(name: str) -> None:
    EXPECTED[name].check(told()[name])


def without(name: str, *questions: str, node: str = "") -> Path:
    """The path of a check where some questions of a node, or of both, were not asked."""
    records = {
        place: [
            asked
            for asked in listed
            if node not in ("", place) or not set(asked[0]) & set(questions)
        ]
        for place, listed in told()[name]["records"].items()
    }
    return EXPECTED[name].path({**told()[name], "records": records}, 4)


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.startswith("wireguard_")])
def test_without_peers_the_rules_for_the_usual_packet_decide(name: str) -> None:
    path = without(name, "wireguard-peers")
    if name in ("wireguard_input_blocked", "wireguard_output_blocked"):
        assert path.verdict is Verdict.DROPPED
    else:
        assert path.verdict is Verdict.REACHABLE, path.reason


def test_a_key_needs_both_ends() -> None:
    path = without("wireguard_wrong_key", "wireguard", node="node2")
    assert path.verdict is Verdict.UNKNOWN
    assert "got no handshake answered" in path.reason


@pytest.mark.parametrize(
    "name", ["ipsec_no_state_at_the_receiver", "ipsec_other_spi", "ipsec_other_key"]
)
def test_states_of_one_end_prove_nothing_of_the_other(name: str) -> None:
    path = without(name, "xfrm", node="node2")
    assert path.verdict is Verdict.REACHABLE
    assert any("IPsec of node2 has lost packets" in finding.title for finding in path.findings)


STRICT = {
    **NATIVE,
    "enable-wireguard": "true",
    "enable-encryption-strict-mode-egress": "true",
    "encryption-strict-egress-cidr": "10.244.0.0/16",
}


def test_strict_mode_drops_what_has_no_key() -> None:
    path = cluster.path(told()["wireguard_healthy"], STRICT, key=0)
    assert path.drop is not None
    assert "strict mode of encryption drops it: 10.244.2.20 has no key" in path.drop.by
    assert path.fix is not None
    assert path.fix.command == "cilium-dbg bpf ipcache get 10.244.2.20"


@pytest.mark.parametrize(
    ("changed", "key", "version"),
    [
        ({}, 255, 4),
        ({}, 0, 6),  # strict mode knows no IPv6
        ({"encryption-strict-egress-cidr": "10.245.0.0/16"}, 0, 4),
        ({"enable-encryption-strict-mode-egress": "false"}, 0, 4),
    ],
)
def test_strict_mode_lets_pass_the_rest(changed: dict[str, str], key: int, version: int) -> None:
    path = cluster.path(told()["wireguard_healthy"], {**STRICT, **changed}, version, key=key)
    assert path.verdict is Verdict.REACHABLE, path.reason


def test_the_old_words_of_strict_mode() -> None:
    old = {
        **NATIVE,
        "enable-ipsec": "true",
        "enable-encryption-strict-mode": "true",
        "encryption-strict-mode-cidr": "10.244.0.0/16",
    }
    assert cluster.path(told()["ipsec_healthy"], old, key=0).verdict is Verdict.DROPPED


def test_a_key_that_the_other_nodes_do_not_have_is_said_without_their_peers() -> None:
    records = {
        name: [asked for asked in listed if "wireguard-peers" not in asked[0]]
        for name, listed in told()["wireguard_healthy"]["records"].items()
    }
    settings, ipcache = WIREGUARD
    stale = cluster.path({"records": records}, settings, announced={"node2": "AAAA"}, **ipcache)
    assert stale.verdict is Verdict.UNKNOWN
    assert "CiliumNode node2 announces the WireGuard key AAAA" in stale.reason


def test_with_node_encryption_a_node_sends_its_own_encrypted() -> None:
    settings, ipcache = WIREGUARD
    check = told()["wireguard_healthy"]
    for said, encrypted in (("true", True), ("false", False)):
        path = cluster.path(check, {**settings, "encrypt-node": said}, host=True, **ipcache)
        assert any("encrypted by WireGuard" in hop.summary for hop in path.hops) is encrypted
        assert any("allows it from identity 6 (remote-node)" in hop.summary for hop in path.hops)
