"""Answers of probe-lb, made by hand: as asked, contradicted, planned, and full of hostile names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.model.evidence import API, Bundle, InMemory, Record, bundle_of, node_place
from kubectl_ebpfnet.model.path import Evidence, Finding, Severity
from kubectl_ebpfnet.model.probe import (
    Answers,
    AttemptOutcome,
    Endpoints,
    Expectation,
    HealthCheck,
    How,
    Judgement,
    NodeRow,
    ProbeAttempt,
    ProbeReport,
    ProbeRequest,
    ProbeTarget,
    SourceFate,
    TargetKind,
)
from tests.render.path.sample_paths import HOSTILE

VIP = ProbeTarget(TargetKind.INGRESS, ip_address("198.51.100.7"), 4, 80, 6, "http", 30080)
SIX = ProbeTarget(TargetKind.EXTERNAL_IP, ip_address("2001:db8::7"), 6, 80, 6, "http", 30080)
PORTS = ProbeTarget(TargetKind.NODE_PORT, None, 4, 30080, 6, "http", 30080)
RULE = '[7:420] -A FORWARD -d 10.244.1.5/32 -p tcp -m comment --comment "left by somebody" -j DROP'
DROPPED = Evidence(2, (3,), (RULE,))
SPEC = Evidence(1, (), ('{"type": "LoadBalancer", "externalTrafficPolicy": "Local"}',))
SOURCE = ip_address("192.0.2.12")


def bundle() -> Bundle:
    """Two records: the Service, and a node's rules."""
    return bundle_of(
        [
            Record(0, API, ("get", "services"), 0, InMemory(b"{}")),
            Record(
                0, node_place("n1"), ("iptables-save", "-c"), 0, InMemory(f"a\nb\n{RULE}".encode())
            ),
        ],
        "sample",
    )


def attempt(node: str, outcome: AttemptOutcome = AttemptOutcome.CONNECTED) -> ProbeAttempt:
    """One attempt, made from n2."""
    answered = outcome is AttemptOutcome.CONNECTED
    return ProbeAttempt(
        VIP, node, "n2", How.NEXT_HOP, outcome, seconds=0.0021 if answered else 5.0,
        source=SOURCE, source_port=40000, destination=VIP.address, destination_port=80,
        source_seen=SOURCE if answered else None, source_seen_port=40000 if answered else None,
        source_from="http" if answered else "", http_status=200 if answered else None,
        body="192.0.2.12:40000" if answered else "",
    )  # fmt: skip


def row(
    node: str,
    outcome: AttemptOutcome,
    judgement: Judgement,
    *,
    local: int = 0,
    status: int | None = 503,
) -> NodeRow:
    """A row of externalTrafficPolicy Local with one endpoint in all."""
    answered = outcome is AttemptOutcome.CONNECTED
    due = 200 if local else 503
    return NodeRow(
        target=VIP,
        node=node,
        from_node="n2" if outcome.conclusive else "",
        endpoints=Endpoints(local, 1),
        expected=Expectation(
            Answers.YES if local else Answers.NO,
            SourceFate.PRESERVED if local else SourceFate.UNKNOWN,
            f"{node} has {'1' if local else 'no'} ready local endpoint",
            "externalTrafficPolicy Local does not masquerade" if local else "",
            due,
            local,
            evidence=(SPEC,),
        ),
        connected=int(answered),
        told=int(outcome.conclusive),
        outcome=outcome,
        detail="",
        how=How.NEXT_HOP if outcome.conclusive else None,
        seconds=0.0021 if answered else None,
        source=SourceFate.PRESERVED if answered else SourceFate.UNKNOWN,
        source_seen=(SOURCE,) if answered else (),
        health=HealthCheck(node, "n2", 31234, status, local) if status else None,
        judgement=judgement,
        attempts=(attempt(node, outcome),) if outcome.conclusive else (),
    )


def as_asked() -> ProbeReport:
    """Three nodes, one with the endpoint."""
    return ProbeReport(
        request=ProbeRequest("default", "web-lb"),
        type="LoadBalancer",
        policy="Local",
        datapath="kube-proxy iptables",
        verdict=Judgement.AS_ASKED,
        summary="svc/web-lb behaves as externalTrafficPolicy Local asks on 3 of 3 nodes",
        targets=(VIP,),
        rows=(
            row("n1", AttemptOutcome.CONNECTED, Judgement.AS_ASKED, local=1, status=200),
            row("n2", AttemptOutcome.TIMEOUT, Judgement.AS_ASKED),
            row("n3", AttemptOutcome.REFUSED, Judgement.AS_ASKED),
        ),
        internal=(replace(attempt("n2"), how=How.OWN_STACK),),
    )


def contradicted() -> ProbeReport:
    """Two targets; every sort of cell."""
    one = row("n1", AttemptOutcome.TIMEOUT, Judgement.CONTRADICTED, local=1, status=503)
    two = row(
        "ip-10-0-17-203.eu-central-1.compute.internal", AttemptOutcome.ICMP, Judgement.AS_ASKED
    )
    two = replace(two, detail="ICMP host unreachable", notes=("n9 is not on one L2 segment",))
    four = replace(
        row("n4", AttemptOutcome.NOT_TRIED, Judgement.UNKNOWN, status=None),
        notes=("no node pod could be made: forbidden", "n9 is not on one L2 segment"),
    )
    five = row("n5", AttemptOutcome.CONNECTED, Judgement.CONTRADICTED, status=200)
    out = "it has the label node.kubernetes.io/exclude-from-external-load-balancers"
    five = replace(
        five,
        expected=replace(five.expected, excluded=out),
        endpoints=Endpoints(0, 1, 2, 2, 0),
        notes=(f"load-balancers send nothing here: {out}",),
    )
    six = replace(
        row("n6", AttemptOutcome.TIMEOUT, Judgement.CONTRADICTED, local=1, status=None),
        target=SIX, connected=2, told=3, seconds=1.25, source=SourceFate.EITHER,
        health=HealthCheck("n6", "n2", 31234, None, error="connection refused"),
    )  # fmt: skip
    seven = replace(one, node="n7", target=PORTS, outcome=AttemptOutcome.UNREACHABLE)
    return replace(
        as_asked(),
        verdict=Judgement.CONTRADICTED,
        summary="svc/web-lb does not behave as externalTrafficPolicy Local asks on 3 of 5 nodes: "
        "n1, n6, n7 (1 more excluded from load-balancers)",
        targets=(VIP, SIX, PORTS),
        rows=(one, two, four, five, six, seven),
        findings=(
            Finding(
                Severity.ERROR,
                "n1 does not answer at 198.51.100.7:80/TCP (timeout) although n1 has 1 ready local "
                "endpoint",
                f"A FORWARD rule there drops it: {RULE[8:]}.",
                (DROPPED,),
            ),
        ),
        missing=("port 5060/SCTP: netkat does not speak SCTP",),
    )


def planned() -> ProbeReport:
    """What --dry-run shows."""
    rows = (
        row("n1", AttemptOutcome.NOT_TRIED, Judgement.UNKNOWN, local=1, status=None),
        row("n2", AttemptOutcome.NOT_TRIED, Judgement.UNKNOWN, status=None),
    )
    return replace(
        as_asked(),
        verdict=Judgement.UNKNOWN,
        summary="svc/web-lb: dry run: expected results for 2 nodes",
        rows=rows,
        internal=(),
    )


def hostile() -> ProbeReport:
    """Names, details and bodies that a terminal would obey."""
    bad = replace(VIP, hostname=HOSTILE, port_name=HOSTILE)
    one = row("n1", AttemptOutcome.ICMP, Judgement.CONTRADICTED, local=1)
    one = replace(
        one,
        target=bad,
        node=HOSTILE,
        detail=HOSTILE,
        from_node=HOSTILE,
        notes=(HOSTILE,),
        expected=replace(one.expected, why=HOSTILE),
        attempts=(replace(attempt("n1"), target=bad, body=HOSTILE, detail=HOSTILE),),
    )
    return replace(
        as_asked(),
        request=ProbeRequest("default", HOSTILE),
        verdict=Judgement.CONTRADICTED,
        summary=f"svc/{HOSTILE} does not behave as asked: {HOSTILE}",
        datapath=HOSTILE,
        targets=(bad,),
        rows=(one,),
        findings=(
            Finding(
                Severity.ERROR, HOSTILE, HOSTILE, (replace(DROPPED, excerpt=(HOSTILE,), lines=()),)
            ),
        ),
        missing=(HOSTILE,),
    )
