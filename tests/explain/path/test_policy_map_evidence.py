"""What is quoted of a policy map that lets a packet pass by no entry."""

from __future__ import annotations

import json

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.path.stages import policy_map
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from tests.explain.path.changed import POLICY, SCENARIOS

ENDPOINT = 1174


def quoted(direction: str) -> list[str]:
    node = ClusterView(open_bundle(SCENARIOS / POLICY)).node("node2")
    (proof,) = policy_map.evidence(node, ENDPOINT, direction, None)
    return list(proof.excerpt)


def test_the_entries_of_the_packets_direction_are_quoted_whole() -> None:
    found = [json.loads(line) for line in quoted("egress")]
    assert [each["Key"]["TrafficDirection"] for each in found] == [1] * len(found)
    assert {each["Key"]["Identity"] for each in found} == {2, 9, 10, 16777217}


def test_of_many_entries_the_map_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_map, "_FEW", 3)
    (text,) = quoted("egress")
    assert text.startswith('{"EndpointID": "1174"')
