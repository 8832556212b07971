"""Captures of a real Cilium 1.18 while a real fault was in place: the verdict must name the fault.

Each folder holds what was read by the agents (agent.zip) and by node pods (pod.zip) at that time.
Where the deciding record is not in a capture, the right answer is the `unknown` that names it
(`lacks`); the lab proves the full answer. A delivered or a false cause is wrong, and so is an
`unknown` where the records decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.path import Severity, Verdict
from tests.explain.path.changed import opened

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Fault:
    """What was asked while a fault was in place, and what is right.

    Attributes:
        destination, protocol, source: of the question.
        verdicts: that are right.
        names: regular expression that the verdict's reason or cause must hold.
        ways: the captures that decide it, `agent` and `pod`; in the others the right verdict is
            unknown, and `lacks` is what it must name.
        lacks: regular expression, "" where every capture decides.
    """

    destination: str
    verdicts: tuple[str, ...]
    names: str
    protocol: str = "tcp"
    source: str = "pod/client"
    ways: tuple[str, ...] = ("agent", "pod")
    lacks: str = ""


DROPPED, UNKNOWN, HEALTHY = ("dropped",), ("unknown",), ("delivered", "leaves", "reachable")
LOST = ("dropped", "unknown")
"""The records show between which places it is lost; nothing that was read names the cause."""

FAULTS = {
    "c03-forward-drop-bypassed": Fault("1.1.1.1:80", HEALTHY, ""),
    "c16-lb-address-local": Fault("172.31.7.241:80", HEALTHY, ""),
    "n02-node-route-missing": Fault("svc/web", LOST, r"172\.31\.7\.200"),
    "n04d-forward-drop-reply": Fault("1.1.1.1:80", DROPPED, "way back.*FORWARD rule 1"),
    "n05-ip-forward-0": Fault("1.1.1.1:80", DROPPED, "forward", ways=(), lacks="forward"),
    "n06-rp-filter-lxc": Fault("1.1.1.1:80", DROPPED, "rp_filter", ways=(), lacks="rp_filter"),
    "n07-conntrack-full": Fault("1.1.1.1:80", DROPPED, "conntrack", ways=(), lacks="nf_conntrack"),
    "n09-kube-svc-flushed": Fault("svc/web", LOST, "", source="pod/hostnet"),
    "n10b-raw-drop": Fault("1.1.1.1:80", DROPPED, "PREROUTING rule 1"),
    "n11-snat-wrong": Fault("1.1.1.1:80", LOST, r"172\.31\.7\.99"),
    "n12-fwmark-blackhole": Fault("1.1.1.1:80", DROPPED, "blackhole"),
    "v08-wrong-targetport": Fault(
        "svc/f8", DROPPED, "RST.*targetPort 9999; nothing of pod.* accepts there.*declare 8080"
    ),
    # The rule came 4 s after an answer, and nothing was sent since: "now" is a minute.
    "v11c-pod-rule": Fault("1.1.1.1:80", ("delivered",), "answered"),
    "v14b-vxlan-down-receiver": Fault("svc/web", DROPPED, "cilium_vxlan"),
    "v14d-web-pod-no-route": Fault("svc/web", DROPPED, "way back.*no route to .* in the pod"),
    "v15-node-neigh-wrong": Fault("svc/web", DROPPED, "02:00:00:00:be:ef"),
    "v18b-iif-rule-blackhole": Fault("1.1.1.1:80", ("delivered", "leaves", "unknown"), ""),
    "v22-udp8472-iptables": Fault("svc/web", DROPPED, "INPUT rule 1.*8472"),
    "v23-udp8472-nft": Fault(
        "svc/web", DROPPED, "", ways=(), lacks="nftables' own tables on node1"
    ),
    "v24b-foreign-tcx-eth0": Fault("1.1.1.1:80", LOST, "filter_tc"),
    "v25-xdp-node1": Fault("svc/web", LOST, "filter_xdp"),
    "v26-cil-detached-lxc": Fault("1.1.1.1:80", LOST, "cil_from_container"),
    "v27-mtu": Fault("10.44.0.183", (*HEALTHY, "unknown"), "", protocol="icmp"),
    "v31-audit-mode": Fault("1.1.1.1:80", HEALTHY, ""),
    "v33-itp-local": Fault("svc/f33", DROPPED, "internalTrafficPolicy"),
    "v36-endpoint-gone-from-map": Fault("svc/web", DROPPED, "endpoint"),
    "v37-policy-map-emptied": Fault("1.1.1.1:80", DROPPED, "policy"),
}
CAPTURES = [(name, way.stem) for name in FAULTS for way in sorted((HERE / name).glob("*.zip"))]


@cache
def answer(name: str, way: str) -> Answer:
    fault = FAULTS[name]
    there = arguments.destination(fault.destination)
    number = arguments.protocol(fault.protocol, there)
    request = arguments.request(arguments.source(fault.source), there, number, "default", "")
    return explain(request, opened(HERE / name / f"{way}.zip"))


@pytest.mark.parametrize(("name", "way"), CAPTURES, ids=[f"{n}-{w}" for n, w in CAPTURES])
def test_the_fault_is_named_or_what_is_missing(name: str, way: str) -> None:
    fault, path = FAULTS[name], answer(name, way)
    said = f"{path.verdict}: {path.reason}; {path.cause}"
    decided = not fault.lacks or way in fault.ways
    assert path.verdict in (fault.verdicts if decided else UNKNOWN), said
    assert re.search(fault.names if decided else fault.lacks, said), said
    if fault.verdicts == HEALTHY:
        assert [f.title for f in path.findings if f.severity is Severity.ERROR] == []


@pytest.mark.parametrize("name", [n for n in FAULTS if len(list((HERE / n).glob("*.zip"))) == 2])
def test_both_ways_of_asking_agree_or_the_poorer_one_says_what_it_lacks(name: str) -> None:
    agent, pod = answer(name, "agent"), answer(name, "pod")
    if agent.verdict.let_through and pod.verdict.let_through:
        return  # the node side of that time did not tell what Cilium saw come back over ICMP
    if agent.verdict is not pod.verdict:
        assert Verdict.UNKNOWN in (agent.verdict, pod.verdict)
        poorer = agent if agent.verdict is Verdict.UNKNOWN else pod
        assert poorer.cause
    elif agent.drop is not None and pod.drop is not None:
        assert (agent.drop.node, agent.drop.how) == (pod.drop.node, pod.drop.how)


def test_an_unknown_stands_only_where_the_records_do_not_decide() -> None:
    unknown = {(name, way) for name, way in CAPTURES if answer(name, way).verdict in UNKNOWN}
    needless = {pair for pair in unknown if UNKNOWN[0] not in FAULTS[pair[0]].verdicts}
    assert {name for name, _ in needless} <= {n for n, f in FAULTS.items() if f.lacks}, needless


def test_a_refused_packet_does_not_just_arrive() -> None:
    hop = next(hop for hop in answer("v08-wrong-targetport", "agent").hops if hop.drops)
    assert hop.short == "it arrives, and is refused"
    assert hop.summary.endswith(", and is refused")
