"""An agent that takes a pod for what it is not: a recorded cluster whose ipcache lacks a pod."""

from __future__ import annotations

import json

from tests.explain.path.changed import POLICY, Change, ask, changed, dropped_at, finding
from tests.explain.path.variants import edit, json_edit

IPCACHE, MAPS = "cilium-dbg bpf ipcache list", "cilium-dbg bpf policy get --all -o json"
SERVICES = "../features/services/agent.zip"
SAID = "node2 takes 10.244.0.135 for identity 2 (world), and CiliumEndpoint default/web has "


def lost(text: str) -> str:
    """The ipcache without the pod web: what is left is the world."""
    return "".join(row for row in text.splitlines(True) if not row.startswith("10.244.0.135/"))


def web_alone(text: str) -> str:
    """The client's policy map lets it out to web's identity at every port, and to nobody else."""
    maps = json.loads(text)
    for one in maps:
        for entry in one["Content"] if one["EndpointID"] == "1174" else ():
            if entry["Key"]["TrafficDirection"] == 1:
                any_port = {"DestPortNetwork": 0, "Nexthdr": 0, "Prefixlen": 40}
                entry["Key"] |= {"Identity": 1395, **any_port}
    return json.dumps(maps)


def path_of(*changes: Change):  # type: ignore[no-untyped-def]
    return ask(changed(POLICY, *changes), "client", "pod/web:8080")


def test_a_pod_that_is_taken_for_the_world_is_a_warning() -> None:
    path = path_of(edit("node2", IPCACHE, lost))
    assert finding(path, f"{SAID}identity 1395 (app=web)").severity == "warning"
    assert path.drop is not None  # web's own identity would be denied as well
    assert path.drop.object == "CiliumNetworkPolicy default/client-egress"


def test_it_is_the_cause_where_the_pods_own_identity_is_let_through() -> None:
    path = path_of(edit("node2", IPCACHE, lost), edit("node2", MAPS, web_alone))
    assert dropped_at(path).kind == "policy"
    assert path.cause.startswith(SAID)
    assert path.fix is not None
    assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")
    told = path_of(edit("node2", MAPS, web_alone))
    assert not any(hop.kind == "policy" and hop.drops for hop in told.hops)


def test_a_pod_with_its_own_identity_is_no_finding() -> None:
    assert not [found for found in path_of().findings if " takes " in found.title]


def relabelled(value: object) -> None:
    """CiliumEndpoint of the client has another identity than the one that its node sends."""
    assert isinstance(value, dict)
    for item in value["items"]:
        if item["metadata"]["name"].startswith("client"):
            item["status"]["identity"]["id"] = 4242


def test_the_identity_in_a_tunnel_is_of_the_senders_agent() -> None:
    path = ask(changed(SERVICES, json_edit("api", "get ciliumendpoints -A", relabelled)),
               "client", "svc/web")  # fmt: skip
    found = finding(path, "node2 sends what 10.44.1.144 sends as ")
    assert "identity 4242" in found.title
    assert "Cilium's agent on node2 is behind" in found.detail
    assert not [one for one in path.findings if one.title.startswith("node1 takes 10.44.1.144")]
    healthy = ask(changed(SERVICES), "client", "svc/web")
    assert not [one for one in healthy.findings if " sends what " in one.title]
