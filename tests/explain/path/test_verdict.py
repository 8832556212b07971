"""The table of docs/json.md, "How the verdict is decided", cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.path.endings import Destination
from kubectl_ebpfnet.explain.path.endpoints import PathEnds
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.path.verdict import Decision, settle
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.cilium_ct import NatEntry
from kubectl_ebpfnet.model.evidence import API, Record, agent_place, bundle_of, node_place
from kubectl_ebpfnet.model.net import TCP, UDP, Flow
from kubectl_ebpfnet.model.path import (
    NOW,
    Attempt,
    Decides,
    HopKind,
    HopPlace,
    Outcome,
    Packet,
    State,
    Target,
    TrackedFlow,
)

FLOW = Flow(TCP, ip_address("10.0.0.1"), 40000, ip_address("192.0.2.1"), 80)
WEB = ip_address("192.0.2.8")
NAT = NatEntry(FLOW, "OUT", ip_address("192.0.2.9"), 40000)
AT_NODE = (HopPlace.NODE, "node1", "node1", HopKind.RULE)

ANSWERED = Outcome.ANSWERED, 3.0
REFUSED = Outcome.REFUSED, 3.0
SILENT = Outcome.UNANSWERED, 3.0
OLD = Outcome.ANSWERED, NOW + 1
AGELESS = Outcome.ANSWERED, None
WAS_REFUSED, REFUSED_ONCE = (Outcome.REFUSED, NOW + 1), (Outcome.REFUSED, None)
ONE_WAY = Outcome.UNKNOWN, 3.0
NONE = None, None


def walk(
    attempt: tuple[Outcome | None, float | None],
    nat: NatEntry | None = None,
    records: Sequence[Record] = (),
) -> PathBuilder:
    outcome, age = attempt
    tracked = TrackedFlow("node1", FLOW, None, None, nat, None, FLOW)
    newest = Attempt(tracked, outcome, age, "the newest attempt") if outcome else None
    pod, world = (
        Target("pod/client", "pod", "default", "client"),
        Target("192.0.2.1:80", "address", address=FLOW.destination, port=80),
    )
    ends = PathEnds(pod, world, False, None, 0, None, FLOW, attempt=newest)
    builder = PathBuilder(ClusterView(bundle_of(records)), ends)
    builder.hop(*AT_NODE, "a rule", State.DERIVED, Packet(FLOW))
    return builder


def undecided(builder: PathBuilder, decides: Decides) -> None:
    builder.hop(
        *AT_NODE, "a rule", State.UNKNOWN, Packet(FLOW), reason="it was not read", decides=decides
    )


def dropped(builder: PathBuilder, seen: bool = False) -> None:
    builder.drop(
        *AT_NODE, "a rule drops it", State.DERIVED, Packet(FLOW), (),
        title="a rule drops it", detail="Remove it.", seen=seen,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attempt", "inside", "outside"),
    [
        (ANSWERED, "delivered", "delivered"),
        (REFUSED, "dropped", "dropped"),
        (SILENT, "unknown", "unknown"),
        (OLD, "reachable", "leaves"),
        (AGELESS, "reachable", "leaves"),
        (WAS_REFUSED, "unknown", "leaves"),
        (REFUSED_ONCE, "unknown", "leaves"),
        (ONE_WAY, "reachable", "leaves"),
        (NONE, "reachable", "leaves"),
    ],
)
def test_tables_that_let_it_through(attempt, inside, outside) -> None:
    for destination, verdict in (
        (Destination.POD, inside),
        (Destination.NODE, inside),
        (Destination.OUTSIDE, outside),
    ):
        builder = walk(attempt)
        builder.arrived(destination, "there")
        assert settle(builder).verdict == verdict


def test_a_silent_attempt_that_left_the_cluster_is_beyond_it() -> None:
    builder = walk(SILENT, NAT)
    builder.arrived(Destination.OUTSIDE, "as 192.0.2.9:40000")
    decision = settle(builder)
    assert decision.verdict == "leaves"
    assert decision.reason.endswith("; but the newest attempt")


@pytest.mark.parametrize(("attempt", "joined"), [(SILENT, "; "), (OLD, "; but ")])
def test_only_an_answer_is_set_against_what_is_not_known(attempt, joined) -> None:
    builder = walk(attempt)
    undecided(builder, Decides.DROP)
    builder.arrived(Destination.POD, "there")
    decision = settle(builder)
    assert decision.reason == f"unknown at hop 2: it was not read{joined}the newest attempt"


@pytest.mark.parametrize(
    ("attempt", "against"),
    [(ANSWERED, ["the newest attempt"]), (REFUSED, []), (SILENT, []), (OLD, []), (NONE, [])],
)
def test_a_drop_that_follows_from_tables_stands(attempt, against) -> None:
    builder = walk(attempt)
    undecided(builder, Decides.DROP)
    dropped(builder)
    decision = settle(builder)
    assert decision.verdict == "dropped"
    assert decision.drop is not None
    assert (decision.drop.how, decision.drop.hop) == ("derived", 3)
    assert [each.text for each in decision.contradictions] == against
    assert all(text in decision.reason for text in against)


def settled_undecided(attempt: tuple[Outcome | None, float | None], how: str) -> Decision:
    builder = walk(attempt)
    if how == "stopped":
        builder.unknown("it was not read")
    elif how == "way before a drop":
        undecided(builder, Decides.WAY)
        dropped(builder)
    else:
        undecided(builder, Decides(how))
        builder.arrived(Destination.POD, "there")
    return settle(builder)


@pytest.mark.parametrize("how", ["stopped", "way before a drop", "drop", "way"])
@pytest.mark.parametrize(
    ("attempt", "verdict"),
    [
        (ANSWERED, "delivered"),
        (SILENT, "unknown"),
        (OLD, "unknown"),
        (AGELESS, "unknown"),
        (NONE, "unknown"),
    ],
)
def test_undecided_tables(attempt, verdict, how) -> None:
    decision = settled_undecided(attempt, how)
    assert decision.verdict == verdict
    assert verdict == "delivered" or "it was not read" in decision.reason


@pytest.mark.parametrize("attempt", [ANSWERED, NONE])
def test_a_drop_on_a_way_that_it_may_not_take_is_no_error(attempt) -> None:
    builder = walk(attempt)
    undecided(builder, Decides.WAY)
    dropped(builder)
    settle(builder)
    assert [(hop.drops, bool(hop.reason)) for hop in builder.hops[-1:]] == [(False, True)]
    assert [found.severity for found in builder.findings] == ["info"]


def test_a_refusal_is_a_drop_whatever_is_undecided() -> None:
    for how in ("stopped", "drop", "way"):
        decision = settled_undecided(REFUSED, how)
        assert (decision.verdict, decision.drop and decision.drop.how) == ("dropped", "seen")


def test_a_drop_that_was_seen_stands_after_an_undecided_way() -> None:
    builder = walk(NONE)
    undecided(builder, Decides.WAY)
    dropped(builder, seen=True)
    assert settle(builder).verdict == "dropped"


def test_an_unknown_hop_that_cannot_matter_decides_nothing() -> None:
    builder = walk(NONE)
    undecided(builder, Decides.NOTHING)
    builder.arrived(Destination.POD, "there")
    assert settle(builder).verdict == "reachable"


def test_a_reason_of_several_hops_is_said_once() -> None:
    builder = walk(NONE)
    for _ in range(3):
        undecided(builder, Decides.DROP)
    builder.arrived(Destination.POD, "there")
    assert settle(builder).reason == "unknown at hops 2, 3 and 4: it was not read"


def test_a_hop_that_refuses_is_marked() -> None:
    builder = walk(REFUSED)
    builder.arrived(Destination.POD, "there")
    settle(builder)
    assert [hop.drops for hop in builder.hops] == [True]


def test_what_is_missing_says_how_to_get_it() -> None:
    builder = walk(NONE)
    builder.unknown("the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert fix.command == (
        "kubectl ebpfnet path -n default pod/client 192.0.2.1:80 --node-access pod"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [("LoadBalancer", "svc/web-lb:80 --to-namespace shop"), ("NodePort", "192.0.2.1:80")],
)
def test_a_clients_question_is_asked_again_by_the_same_node(kind: str, words: str) -> None:
    ends = walk(NONE).ends
    client = replace(ends.destination, address=ip_address("203.0.113.9"))
    there = replace(ends.destination, kind="service", namespace="shop", name="web-lb")
    service = ServiceAddress(FLOW.destination, 80, TCP, kind, "shop", "web-lb", 0, None, (), ())
    builder = PathBuilder(
        walk(NONE).cluster,
        replace(ends, source=client, destination=there, service=service, entry="n2", via="n2"),
    )
    builder.unknown("the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert fix.command == (
        f"kubectl ebpfnet path 203.0.113.9 {words} --via node/n2 --node-access pod"
    )


def test_a_capture_whose_node_pod_did_not_answer_is_made_anew_with_one() -> None:
    asked = Record(1, node_place("node1"), ("links",), None, error="--node-access none")
    builder = walk(NONE)
    recorded = replace(bundle_of([asked]), source="case.zip")
    builder = PathBuilder(ClusterView(recorded), builder.ends)
    builder.unknown("the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert fix.command.endswith("pod/client --to 192.0.2.1:80 --node-access pod")


def test_a_question_that_is_asked_again_has_its_size() -> None:
    builder = walk(NONE)
    builder.size = 1400
    builder.unknown("the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert fix.command.endswith("192.0.2.1:80 --size 1400 --node-access pod")


@pytest.mark.parametrize(
    ("target", "protocol", "words"),
    [
        (Target("svc/web", "service", "default", "web", WEB, 80), TCP, "svc/web:80"),
        (Target("svc/web", "service", "shop", "web", WEB, 80), TCP, "192.0.2.8:80"),
        (Target("svc/dns", "service", "default", "dns", WEB, 53), UDP, "svc/dns:53/udp"),
        (Target("web.shop", "name", name="web.shop", address=WEB), TCP, "web.shop"),
    ],
)
def test_a_capture_names_the_destination_as_it_takes_it(
    target: Target, protocol: int, words: str
) -> None:
    """`capture --to` has no namespace and no protocol of its own."""
    ends = replace(walk(NONE).ends, destination=target, flow=replace(FLOW, protocol=protocol))
    builder = PathBuilder(ClusterView(replace(bundle_of([]), source="case.zip")), ends)
    builder.unknown("the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert f"pod/client --to {words} --node-access" in fix.command


def test_what_did_not_answer_in_time_is_given_more() -> None:
    late = "no answer within the 0.2 s that --timeout allows"
    builder = walk(NONE, records=[Record(1, agent_place("node1"), ("ip",), None, error=late)])
    builder.unknown(late)
    fix = settle(builder).fix
    assert fix is not None
    assert fix.command.endswith("pod/client 192.0.2.1:80 --timeout 2m")


def test_a_permission_that_is_missing_is_named() -> None:
    record = Record(
        1, agent_place("node1"), ("ip", "route"), None, error="forbidden", denied="create x"
    )
    builder = walk(NONE, records=[record])
    builder.unknown("the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert "create x" in fix.text


@pytest.mark.parametrize("matters", [True, False])
def test_a_list_is_to_be_granted_where_the_reason_names_it(*, matters: bool) -> None:
    denied = "list endpointslices.discovery.k8s.io in the whole cluster"
    argv = ("get", "endpointslices", "-A")
    record = Record(1, API, argv, None, error="forbidden", denied=denied)
    builder = walk(NONE, records=[record])
    builder.unknown("no EndpointSlice was read" if matters else "the routes were not read")
    fix = settle(builder).fix
    assert fix is not None
    assert (denied in fix.text) is matters
