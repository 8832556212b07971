"""Who is asked for sockets: the pods and nodes where the packet may end, and nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli.destinations import destination
from kubectl_ebpfnet.collect.capture import capture
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, Place, agent_place, pod_place
from kubectl_ebpfnet.model.net import ICMP, UDP
from kubectl_ebpfnet.model.path import PathRequest
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.test_capture import Place as Target
from tests.collect.test_path import request, to_object

CLIENT, WEB = pod_place("default", "client"), pod_place("default", "web")
NODE1, NODE2 = agent_place("node1"), agent_place("node2")
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue\n"
LISTENS = HEAD + "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n"


def asked(bundle: Bundle, fact: q.Fact[Any] = q.TCP_LISTENERS) -> set[Place]:
    return {record.place for record in bundle.records if record.argv == fact.forms[0]}


@pytest.mark.parametrize(
    ("to", "places"),
    [
        (to_object("pod", "web", 8080), {WEB}),
        (to_object("service", "web", 80), {WEB}),
        (request("10.244.0.135", 8080), {WEB}),
        (request("1.1.1.1", 80), set()),
        (to_object("node", "node1", 10250), {NODE1}),
        (request("172.30.0.11", 10250), {NODE1}),
        (to_object("node", "node2", 10250), {CLIENT, NODE2}),
        (request("172.30.0.12", 10250), {NODE2}),
        (to_object("pod", "client", 80), {CLIENT, NODE2}),
        (request("127.0.0.1", 80), {CLIENT, NODE2}),
    ],
)
def test_where_a_packet_may_end(cluster: Opened, to: PathRequest, places: set[Place]) -> None:
    session, replay = cluster("vxlan-kpr")
    bundle = looked(session, to, timeout=50)[1]
    assert asked(bundle) == places
    assert asked(bundle, q.UDP_SOCKETS) == set()
    # A pod at the far end is asked for these, and for what its answer passes, in one exec.
    if WEB in places:
        further = {q.POD_ROUTES.forms[0], q.POD_RULES.forms[0]}
        assert {r.argv for r in bundle.at(WEB)} >= further.union(q.TCP_LISTENERS.forms)
        assert [pod for _, pod, _ in replay.execs].count("web") == 1


@pytest.mark.parametrize(("protocol", "facts"), [(UDP, [q.UDP_SOCKETS]), (ICMP, [])])
def test_only_the_packets_protocol_is_asked_for(
    cluster: Opened, protocol: int, facts: list[Any]
) -> None:
    session, _ = cluster("vxlan-kpr")
    to = to_object("pod", "web", 53 if protocol == UDP else None)
    by_protocol = PathRequest(**{name: getattr(to, name) for name in to.__slots__} | {
        "protocol": protocol
    })  # fmt: skip
    bundle = looked(session, by_protocol, timeout=50)[1]
    for fact in (q.TCP_LISTENERS, q.UDP_SOCKETS):
        assert asked(bundle, fact) == ({WEB} if fact in facts else set())


def test_a_capture_has_the_sockets_of_its_destinations_pods(
    cluster: Opened, tmp_path: Path
) -> None:
    session, replay = cluster("vxlan-kpr")
    replay.sockets["web"] = {"tcp": LISTENS, "tcp6": HEAD, "udp": HEAD, "udp6": HEAD}
    file = tmp_path / "x.zip"
    to = destination("svc/web")
    capture(session, [Target("pod", "client")], file, destinations=[to])
    stored = open_bundle(file)
    assert asked(stored) == asked(stored, q.UDP_SOCKETS) == {CLIENT, WEB, NODE1, NODE2}
    record = q.best_record(stored, WEB, q.TCP_LISTENERS)
    assert record is not None
    assert record.ok
    assert b":1F90 " in record.stdout.read()
