"""The same as test_kernels.py, on what a kernel told once; and as an agent would have told it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from kubectl_ebpfnet.model.path import Path, Verdict
from tests.kernels import recorded
from tests.kernels.expected import EXPECTED


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
