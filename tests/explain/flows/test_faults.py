"""What the tracking tables of a real Cilium 1.18 held while a real fault was in place.

`faults/NAME.txt` has the newest lines of the client's flows to the destination, as the agents of
both nodes printed them: `NODE TABLE LINE`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from kubectl_ebpfnet.explain.flows.attempt import newest
from kubectl_ebpfnet.explain.flows.between import lost_between
from kubectl_ebpfnet.explain.flows.match import FlowQuery, tracked_flows
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import Outcome
from tests.explain.flows import tables as t

FAULTS = Path(__file__).parent / "faults"
WEB, WORLD = "10.44.0.183:8080", "1.1.1.1:80"
NOT_AT_NODE1 = r"^Cilium's conntrack of node2 has it, and Cilium's conntrack of node1 was read and"
NOT_IN_NETFILTER = r"nf_conntrack, which has other flows to 1\.1\.1\.1, was read and has not"


@dataclass(frozen=True)
class Right:
    """What is right: the source port of the newest attempt, its age, and where it was lost."""

    destination: str
    port: int
    age: int
    lost: str
    outcome: Outcome = Outcome.UNANSWERED
    client: str = "10.44.1.120"


NATIVE = "10.44.0.236"
EXPECTED = {
    "n02-node-route-missing": Right(
        "10.44.1.137:8080", 60420, 5, r"^nf_conntrack of node2 has it, and Cilium.*of node1",
        client=NATIVE,
    ),
    "n04d-forward-drop-reply": Right(
        WORLD, 34044, 4, r"between node2's netfilter and the sender's device", client=NATIVE
    ),
    "n06-rp-filter-lxc": Right(WORLD, 60074, 5, NOT_IN_NETFILTER, client=NATIVE),
    "n10b-raw-drop": Right(WORLD, 56414, 5, NOT_IN_NETFILTER, client=NATIVE),
    "v08-wrong-targetport": Right("10.44.0.73:9999", 36428, 2, "", Outcome.REFUSED),
    "v14b-vxlan-down-receiver": Right(WEB, 56668, 6, NOT_AT_NODE1),
    "v14d-web-pod-no-route": Right(
        WEB, 40940, 5, r"^Cilium's conntrack of node1 has it and saw nothing come back from the pod"
    ),
    "v15-node-neigh-wrong": Right(WEB, 58118, 6, NOT_AT_NODE1),
    "v22-udp8472-iptables": Right(WEB, 59408, 6, NOT_AT_NODE1),
    "v24b-foreign-tcx-eth0": Right(WORLD, 35246, 5, r"Cilium's NAT map, which has other flows"),
    "v25-xdp-node1": Right(WEB, 40324, 6, NOT_AT_NODE1),
    "v36-endpoint-gone-from-map": Right(
        WEB, 37604, 5, r"^nf_conntrack of node1 has it, and Cilium's conntrack of node1 was read"
    ),
}  # fmt: skip
ARGV = {"ct": t.CT, "nat": t.NAT, "nf": t.NF}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_newest_attempt_and_where_it_was_lost(name: str) -> None:
    right = EXPECTED[name]
    lines: dict[tuple[str, str], list[str]] = {("node1", "ct"): []}
    for text in (FAULTS / f"{name}.txt").read_text().splitlines():
        node, table, line = text.split(" ", 2)
        lines.setdefault((node, table), []).append(line)
    address, _, port = right.destination.rpartition(":")
    cluster = t.cluster(
        t.pod("client", "node2", right.client),
        *([] if address == "1.1.1.1" else [t.pod("web", "node1", address)]),
        *(t.record(node, ARGV[table], *found) for (node, table), found in lines.items()),
    )
    ends = frozenset({(ip_address(address), int(port))})
    svc = frozenset({(ip_address(f"10.97.{a}"), 80) for a in ("51.195", "194.163", "217.150")})
    query = FlowQuery(TCP, ip_address(right.client), ends, svc if address != "1.1.1.1" else ends)
    node = cluster.node("node2")
    attempt = newest(tracked_flows(node, query), node)
    assert attempt is not None
    assert attempt.flow.flow.source_port == right.port
    assert attempt.age == pytest.approx(right.age, abs=1)
    assert attempt.outcome is right.outcome
    found = lost_between(cluster, attempt, ["node2", "node1"])
    if right.lost:
        assert found is not None
        assert re.search(right.lost, found[0])
    else:
        assert found is None
