"""What a walk asks further: a third node, between the packet's own and that of its destination, and
rows of tables that were left out at a node. They are asked for once the records lead there, in a
round of their own, and never else."""

from __future__ import annotations

import json
from concurrent.futures import Future, wait
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.collect import packet
from kubectl_ebpfnet.explain.path.walk import explained
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind, Record, agent_place
from kubectl_ebpfnet.model.path import Path, PathRequest
from kubectl_ebpfnet.model.request import Further
from tests.collect.conftest import Opened
from tests.collect.looking import looked
from tests.collect.replay_cluster import ReplayCluster
from tests.collect.test_path import request, to_object

EGRESS = q.EGRESS_GATEWAY.forms[0]
HEADER = "Source IP      Destination CIDR   Egress IP     Gateway IP\n"
ROUTES = q.ROUTES.forms[0]


def answer(session: Session, asked: PathRequest) -> tuple[Path, Bundle]:
    paths: list[Path] = []

    def further(request: PathRequest, bundle: Bundle) -> Further:
        path, more = explained(request, bundle)
        paths.append(path)
        return more

    _, bundle = looked(session, asked, timeout=50, further=further)
    return paths[-1], bundle


def execs(replay: ReplayCluster) -> list[str]:
    return [pod for _, pod, _ in replay.execs]


def record(replay: ReplayCluster, node: str, argv: tuple[str, ...]) -> Record:
    return next(r for r in replay.bundle.records if (r.place.node, r.argv) == (node, argv))


def nodes(bundle: Bundle) -> set[str]:
    return {place.node for place in bundle.places(PlaceKind.AGENT)}


def by_gateway(replay: ReplayCluster, gateway: str, egress: str) -> None:
    """Both nodes' maps send the client's packets to a gateway, as the gateway's map has them."""
    row = f"10.244.1.160   9.9.9.0/24         {egress:<11}   {gateway}\n"
    replay.also[EGRESS] = (HEADER + row).encode()


def test_an_egress_gateway_is_asked_for_the_address_that_the_packet_leaves_with(
    cluster: Opened,
) -> None:
    session, replay = cluster("vxlan-kpr")
    by_gateway(replay, "172.30.0.11", "172.30.0.11")
    path, bundle = answer(session, request("9.9.9.9"))
    assert nodes(bundle) == {"node1", "node2"}
    assert "leaves the cluster as 172.30.0.11" in path.reason
    assert any(hop.node == "node1" and hop.kind == "program" for hop in path.hops)
    assert len(execs(replay)) == 3


def test_a_packet_that_needs_no_gateway_costs_no_further_round(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    by_gateway(replay, "172.30.0.11", "172.30.0.11")
    for asked, expected in ((request("1.1.1.1"), {"node2"}), (request("172.30.0.12"), {"node2"})):
        assert nodes(answer(session, asked)[1]) == expected


def test_a_gateway_that_cannot_be_asked_is_the_unknown_by_its_name(cluster: Opened) -> None:
    session, replay = cluster("vxlan-kpr")
    by_gateway(replay, "172.30.0.11", "172.30.0.11")
    agent = next(
        o
        for o in replay.objects
        if o["kind"] == "Pod"
        and o["spec"].get("nodeName") == "node1"
        and o["metadata"].get("labels", {}).get("k8s-app") == "cilium"
    )
    replay.objects.remove(agent)
    path, _ = answer(session, request("9.9.9.9"))
    assert path.verdict == "unknown"
    assert "nothing is known of node1" in path.reason
    assert path.reason.count("node1") >= 1


def test_a_node_that_routes_for_another_is_asked(cluster: Opened) -> None:
    """node2's own route for a prefix outside leads by node1."""
    session, replay = cluster("vxlan-kpr")
    said = json.loads(record(replay, "node2", ROUTES).stdout.read())
    said.append({"dst": "9.9.9.0/24", "gateway": "172.30.0.11", "dev": "eth0", "flags": []})
    replay.at[agent_place("node2")] = {ROUTES: json.dumps(said).encode()}
    path, bundle = answer(session, request("9.9.9.9"))
    assert nodes(bundle) == {"node1", "node2"}
    assert any(hop.node == "node1" for hop in path.hops)
    assert "nothing is known of node1" not in path.reason


@pytest.mark.parametrize("destination", ["svc/web:80", "pod/web:8080", "1.1.1.1"])
def test_a_row_that_was_left_out_is_asked_for_where_the_walk_needs_it(
    cluster: Opened, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    session, replay = cluster("vxlan-kpr")
    # Rows are selected where the nodes are listed in time.
    monkeypatch.setattr(Future, "done", lambda future: bool(wait([future], 20)))
    kind, _, rest = destination.rpartition("/")
    name, _, port = rest.partition(":")
    kinds = {"svc": "service", "pod": "pod"}
    asked = to_object(kinds[kind], name, int(port)) if kind else request(destination)
    for fact, row in (
        (q.IPCACHE, "10.9.0.{}/32 identity={} encryptkey=0 tunnelendpoint=0.0.0.0"),
        (q.LB_MAP, "10.9.0.{}:80/TCP (0)   0.0.0.0:0 ({}) (0) [ClusterIP]"),
    ):
        said = record(replay, "node2", fact.forms[0]).stdout.read()
        rows = "".join(f"{row.format(n, n + 900)}\n" for n in range(30))
        replay.at.setdefault(agent_place("node2"), {})[fact.forms[0]] = rows.encode() + said
    selected, bundle = answer(session, asked)
    printed = [r for r in bundle.records if r.argv == q.IPCACHE.forms[0]]
    (ipcache,) = (r for r in printed if r.place.node == "node2")
    assert ipcache.left_out >= 10
    rounds = len(execs(replay))

    monkeypatch.setattr(packet, "row_addresses", lambda *_: (ip_address("10.9.0.1"),))
    by_need, bundle = answer(session, asked)
    assert q.best_record(bundle, agent_place("node2"), q.IPCACHE).line_filter == ()
    assert len(execs(replay)) > 2 * rounds
    monkeypatch.setattr(packet, "row_addresses", lambda *_: ())
    whole, _ = answer(session, asked)
    for path in (selected, by_need):
        assert [hop.summary for hop in path.hops] == [hop.summary for hop in whole.hops]
        assert (path.verdict, path.reason) == (whole.verdict, whole.reason)
