"""What was seen of a flow, in a recorded cluster whose agents told more: hubble and monitor."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of
from kubectl_ebpfnet.model.path import Hop
from kubectl_ebpfnet.model.path import Path as Answer
from tests.explain.path.changed import (
    POLICY,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    without,
)
from tests.explain.path.variants import json_edit

CLIENT, WEB, WORLD = "10.244.1.160", "10.244.0.135", "1.1.1.1"
ASKED = "2026-11-21T05:20:00Z"
FORMS = (" -o json", "")


def seen(age: int, kind: int, source: str, destination: str, port: int, **more: Any) -> str:
    """A line of hubble: a packet that was reported some seconds before it was asked.

    Args:
        age: seconds.
        kind: 1 a drop, 4 a trace, 5 a verdict.
        source: address of the sender, whose port is 50000; with `back` it answers from `port`.
        destination: address of the other end.
        port: of the server.
        more: members of the flow.
    """
    ports = {"source_port": 50000, "destination_port": port}
    first: tuple[str, ...] = ("SYN",)
    if more.pop("back", False):
        ports, first = {"source_port": port, "destination_port": 50000}, ("SYN", "ACK")
    flags = more.pop("flags", first)
    layer = {**ports, "flags": dict.fromkeys(flags, True), "type": more.pop("type", 8)}
    minute, second = divmod(20 * 60 - age, 60)
    flow = {
        "time": f"2026-11-21T05:{minute:02}:{second:02}.000601247Z",
        "event_type": {"type": kind},
        "IP": {"source": source, "destination": destination},
        "l4": {more.pop("protocol", "TCP"): layer},
        **more,
    }
    return json.dumps({"flow": flow, "node_name": "n"})


def hubble(node: str, *lines: str) -> Record:
    """What `hubble observe` printed on a node."""
    argv = ("hubble", "observe", "--last", "20", "-o", "json")
    text = "\n".join(lines).encode()
    return Record(0, agent_place(node), argv, 0, InMemory(text), b"", ASKED)


def drop(age: int, port: int = 443, reason: str = "FIB_LOOKUP_FAILED", **more: Any) -> str:
    """A packet of the client to the world that was dropped."""
    return seen(age, 1, CLIENT, WORLD, port, drop_reason_desc=reason, **more)


def to_world(*lines: str, changes: tuple[Change, ...] = ()) -> Answer:
    """A path that no table shows an attempt of, on a node whose hubble has these lines."""
    bundle = changed(VXLAN, *changes, more=(hubble("node2", *lines),))
    return ask(bundle, "client", f"{WORLD}:443")


def hop(path: Answer, kind: str, node: str = "node2") -> Hop:
    """The last hop of a kind on a node."""
    return [one for one in path.hops if (one.kind, one.node) == (kind, node)][-1]


def test_a_recent_drop_is_the_verdict() -> None:
    assert to_world().verdict == "leaves"
    path = to_world(drop(8), drop(20))
    where = dropped_at(path)
    assert (where.kind, where.state, where.node) == ("route", "observed", "node2")
    assert path.drop is not None
    assert (path.drop.how, path.drop.hop) == ("seen", where.number)
    assert "2 drops “FIB lookup failed” (hubble, node2), the newest 8s" in path.reason
    assert finding(path, "node2 drops the packet: FIB lookup failed").severity == "error"
    assert "FIB_LOOKUP_FAILED" in where.evidence[-1].excerpt[0]


def test_an_old_drop_contradicts_what_the_tables_show() -> None:
    path = to_world(drop(200))
    assert path.verdict == "leaves"
    (against,) = path.contradictions
    assert "1 drop “FIB lookup failed” (hubble, node2), the newest 200s" in against.text
    assert against.text in path.reason


@pytest.mark.parametrize(
    "line",
    [
        drop(8, port=444),
        drop(8, protocol="UDP"),
        drop(8, protocol="ICMPv4"),
        seen(8, 1, CLIENT, "1.1.1.2", 443, drop_reason_desc="FIB_LOOKUP_FAILED"),
        seen(8, 1, WEB, WORLD, 443, drop_reason_desc="FIB_LOOKUP_FAILED"),
    ],
)
def test_a_drop_of_another_flow_is_not_this_ones(line: str) -> None:
    path = to_world(line)
    assert (path.verdict, path.contradictions) == ("leaves", ())


def asked_without_a_port(asked: str, layer: dict[str, Any]) -> Answer:
    """A path against the direction of a drop, by a protocol alone."""
    line = seen(3, 1, CLIENT, WEB, 8080, drop_reason_desc="POLICY_DENIED", **layer)
    bundle = changed(VXLAN, more=(hubble("node2", line),))
    return ask(bundle, "web", "pod/client", asked)


@pytest.mark.parametrize(
    ("protocol", "layer"),
    [
        ("tcp", {"flags": ("SYN",)}),
        ("tcp", {"flags": ("ACK",)}),
        ("udp", {"protocol": "UDP"}),
        ("icmp", {"protocol": "ICMPv4", "type": 8}),
    ],
)
def test_what_the_other_end_asks_for_is_no_answer(protocol: str, layer: dict[str, Any]) -> None:
    """Without a port, the addresses alone do not tell an answer from the other end's request."""
    path = asked_without_a_port(protocol, layer)
    assert (path.verdict, path.contradictions) == ("reachable", ())


@pytest.mark.parametrize(
    ("protocol", "layer"),
    [
        ("tcp", {"flags": ("SYN", "ACK")}),
        ("icmp", {"protocol": "ICMPv4", "type": 0}),
    ],
)
def test_an_answer_that_says_so_needs_no_port(protocol: str, layer: dict[str, Any]) -> None:
    path = asked_without_a_port(protocol, layer)
    assert path.drop is not None
    assert path.drop.direction == "answer"
    assert "drop of answers" in path.reason


def test_hubbles_text_names_the_ends() -> None:
    lines = [
        "Nov 21 05:19:52.000: default/client:50000 (ID:60735) <> 1.1.1.1:443 (world) "
        "FIB lookup failed DROPPED (TCP Flags: SYN)",
        "Nov 21 05:19:53.000: other/client:50000 (ID:1) <> 1.1.1.1:443 (world) "
        "Policy denied DROPPED (TCP Flags: SYN)",
    ]
    path = to_world(*lines)
    assert path.verdict == "dropped"
    assert "1 drop “FIB lookup failed” (hubble, node2), the newest 8s" in path.reason
    service = (
        "Nov 21 05:19:59.000: default/client:50000 (ID:60735) <> default/web:80 (world) "
        "Service backend not found DROPPED (TCP Flags: SYN)"
    )
    path = ask(changed(VXLAN, more=(hubble("node2", service),)), "client", "svc/web:80")
    assert "“Service backend not found” (hubble, node2), the newest 1s" in path.reason


def test_a_dropped_answer_ends_the_flow_too() -> None:
    line = seen(3, 1, WORLD, CLIENT, 443, back=True, drop_reason_desc="POLICY_DENIED")
    path = to_world(line)
    assert path.verdict == "dropped"
    assert "1 drop of answers “Policy denied”" in path.reason
    assert path.drop is not None
    assert path.answer is not None
    assert (path.drop.how, path.drop.direction, path.answer.state) == ("seen", "answer", "lost")
    hop = path.answer.hops[path.drop.hop - 1]
    assert (hop.node, hop.state, hop.drops) == ("node2", "observed", True)
    assert "an answer is dropped here" in hop.summary
    assert not any(each.drops for each in path.hops)


def test_an_answer_that_was_seen_on_its_way_makes_its_hops_observed() -> None:
    line = seen(3, 4, WORLD, CLIENT, 443, back=True, trace_observation_point="TO_ENDPOINT")
    answer = to_world(line).answer
    assert answer is not None
    assert (answer.hops[-1].kind, answer.hops[-1].state) == ("delivery", "observed")


def test_a_drop_that_the_tables_show_too_is_seen() -> None:
    line = seen(100, 1, CLIENT, WORLD, 443, drop_reason_desc="POLICY_DENIED")
    path = ask(changed(POLICY, more=(hubble("node2", line),)), "client", f"{WORLD}:443")
    where = dropped_at(path)
    assert where.kind == "policy"
    assert path.drop is not None
    assert path.drop.how == "seen"
    assert "egress policy denies world (identity 2) at 443/TCP" in path.reason
    assert "1 drop “Policy denied” (hubble, node2)" in path.reason


def test_the_last_packets_of_a_closed_connection_may_be_dropped() -> None:
    flags = ("ACK", "RST")
    line = seen(1, 1, CLIENT, WORLD, 80, flags=flags, drop_reason_desc="CT_UNKNOWN_PROTO")
    path = ask(changed(VXLAN, more=(hubble("node2", line),)), "client", f"{WORLD}:80")
    assert path.verdict != "dropped"
    assert len(path.contradictions) == 1


def trace(point: str, age: int = 5, port: int = 8080, **more: Any) -> str:
    """A packet of the client to the web pod that was seen at a point."""
    return seen(age, 4, CLIENT, WEB, port, trace_observation_point=point, **more)


def test_points_prove_hops() -> None:
    records = (
        hubble("node2", trace("TO_OVERLAY", port=9999, interface={"name": "cilium_vxlan"})),
        hubble("node1", trace("TO_ENDPOINT", port=9999)),
    )
    path = ask(changed(VXLAN, more=records), "client", "pod/web:9999")
    proven = [hop(path, "tunnel"), hop(path, "policy"), hop(path, "policy", "node1")]
    proven.append(path.hops[-1])
    assert [one.state for one in proven] == ["observed"] * 4
    assert path.hops[-1].kind == "delivery"
    proofs = [piece.excerpt[0] for piece in hop(path, "policy", "node1").evidence]
    assert "TO_ENDPOINT" in proofs[-1]


def test_a_policy_that_was_not_read_let_a_packet_pass_that_was_seen_behind_it() -> None:
    unread = tuple(without("node1", f"cilium-dbg bpf policy get --all{form}") for form in FORMS)
    assert ask(changed(VXLAN, *unread), "client", "pod/web:9999").verdict == "unknown"
    for age, verdict in ((5, "reachable"), (100, "unknown")):
        record = hubble("node1", trace("TO_ENDPOINT", age, port=9999))
        path = ask(changed(VXLAN, *unread, more=(record,)), "client", "pod/web:9999")
        assert path.verdict == verdict
    assert hop(path, "policy", "node1").state == "unknown"


def test_a_packet_that_passed_where_the_tables_drop_it_contradicts_them() -> None:
    record = hubble("node2", seen(5, 4, CLIENT, WORLD, 443, trace_observation_point="TO_NETWORK"))
    path = ask(changed(POLICY, more=(record,)), "client", f"{WORLD}:443")
    assert path.verdict == "dropped"
    (against,) = path.contradictions
    assert "hubble on node2 shows to-network of this flow, 5s" in against.text


def test_a_verdict_of_audit_is_no_drop() -> None:
    """The endpoint list is not recorded: the map denies, and the flow log shows “audit”."""

    def unsaid(value: Any) -> None:
        for endpoint in value:
            endpoint["status"].pop("realized", None)
            endpoint["status"]["policy"]["realized"].pop("policy-enabled", None)

    options = json_edit("node2", "cilium-dbg endpoint list -o json", unsaid)
    more = {"verdict": "AUDIT", "traffic_direction": "EGRESS"}
    record = hubble("node2", seen(5, 5, CLIENT, WORLD, 443, **more))
    path = ask(changed(POLICY, options, more=(record,)), "client", f"{WORLD}:443")
    assert path.verdict != "dropped"
    assert "“audit”" in hop(path, "policy").reason or hop(path, "policy").state == "observed"


def test_a_walk_that_did_not_begin_has_no_hop_to_drop_it() -> None:
    """A client that has no address of the destination's version."""
    line = seen(5, 1, CLIENT, "fd00::1", 443, drop_reason_desc="POLICY_DENIED")
    path = ask(changed(VXLAN, more=(hubble("node2", line),)), "client", "[fd00::1]:443")
    assert (path.verdict, path.hops) == ("unknown", ())


def test_hubble_that_is_off_is_no_error() -> None:
    argv = ("hubble", "observe", "--last", "20")
    error = b"failed to connect to 'unix:///var/run/cilium/hubble.sock'"
    record = Record(0, agent_place("node2"), argv, 1, InMemory(), error, ASKED)
    path = ask(changed(VXLAN, more=(record,)), "client", f"{WORLD}:443")
    assert path == ask(changed(VXLAN), "client", f"{WORLD}:443")


def test_where_packets_of_pods_were_seen_tells_host_routing() -> None:
    endpoint = (
        f"IP ADDRESS       LOCAL ENDPOINT INFO\n{CLIENT}:0   id=5 ifindex=9 mac=02:00:00:00:00:01\n"
    )
    ipcache = (
        "IP PREFIX/ADDRESS   IDENTITY\n0.0.0.0/0   identity=2 encryptkey=0 tunnelendpoint=0.0.0.0\n"
    )
    tables = [
        Record(
            0, agent_place("n1"), ("cilium-dbg", "bpf", name, "list"), 0, InMemory(text.encode())
        )
        for name, text in (("endpoint", endpoint), ("ipcache", ipcache))
    ]

    def told(*points: str) -> bool | None:
        lines = [seen(5, 4, CLIENT, WORLD, 80, trace_observation_point=point) for point in points]
        cluster = ClusterView(bundle_of([*tables, hubble("n1", *lines)]))
        return cluster.node("n1").host_routing.bpf

    assert told("TO_STACK") is False
    assert told("TO_STACK", "TO_NETWORK") is False
    assert told("TO_NETWORK") is True
    assert told("TO_ENDPOINT") is None
