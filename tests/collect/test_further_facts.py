"""What decides only after the first round is asked in one of its own: the socket of an L7 proxy,
the names that an endpoint looked up."""

from __future__ import annotations

import json

from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import agent_place
from tests.collect.conftest import Opened
from tests.collect.replay_cluster import ReplayCluster
from tests.collect.test_path import request
from tests.collect.test_third_node import answer, execs, record

POLICY = q.POLICY_MAPS.forms[0]


def redirected(replay: ReplayCluster, port: int) -> None:
    """The policy map of the client's endpoint sends everything that it allows to a proxy."""
    maps = json.loads(record(replay, "node2", POLICY).stdout.read())
    for each in maps:
        for entry in each["Content"] or []:
            entry["ProxyPortNetwork"] = (port & 0xFF) << 8 | port >> 8
    replay.at[agent_place("node2")] = {POLICY: json.dumps(maps).encode()}


def test_the_socket_of_an_l7_proxy_is_asked_for_once_a_policy_redirects_to_it(
    cluster: Opened,
) -> None:
    session, replay = cluster("vxlan-kpr")
    redirected(replay, 18113)
    path, bundle = answer(session, request("1.1.1.1"))
    assert any("listens at port 18113 of node node2" in each for each in path.presumed)
    asked = [each.argv for each in bundle.at(agent_place("node2"))]
    assert set(q.TCP_LISTENERS.forms) & set(asked)
    first = len(execs(replay))
    session, replay = cluster("vxlan-kpr")
    answer(session, request("1.1.1.1"))
    assert len(execs(replay)) == first - 1  # without a redirection no round more


def test_the_fqdn_cache_of_one_endpoint_is_asked_for_where_names_do_not_allow_an_address(
    cluster: Opened,
) -> None:
    session, replay = cluster("vxlan-kpr-egress-policy")
    command = q.ENDPOINTS.forms[0]
    listed = json.loads(record(replay, "node2", command).stdout.read())
    (client,) = [one for one in listed if "10.244.1.160" in json.dumps(one["status"]["networking"])]
    rule = {"port": 8081, "protocol": "TCP",
            "l7-rules": [{"MatchName: ok.example.test, MatchPattern: ": None}]}  # fmt: skip
    client["status"]["policy"]["realized"]["l4"]["egress"].append({"rule": json.dumps(rule)})
    replay.at[agent_place("node2")] = {command: json.dumps(listed).encode()}
    asked = q.FQDN_CACHE.about("-e", str(client["id"])).forms[0]
    said = [{"endpoint-id": client["id"], "fqdn": "ok.example.test.", "ips": ["9.9.9.1"]}]
    replay.also[asked] = json.dumps(said).encode()
    path, bundle = answer(session, request("9.9.9.9", 8081))
    assert path.verdict == "dropped"
    assert "it has ok.example.test → 9.9.9.1" in path.cause
    assert any(each.argv == asked for each in bundle.records)
