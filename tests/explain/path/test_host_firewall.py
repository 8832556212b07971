"""A node's own policy: a capture of a real cluster with the host firewall (tests/features), with
one thing changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, finding, swap
from tests.explain.path.variants import json_edit

CAPTURE = "../features/host-firewall/agent.zip"
POLICY = "cilium-dbg bpf policy get --all -o json"
INGRESS, EGRESS = 0, 1


def deny(
    node: str, endpoint: str, identity: int, port: int, direction: int, protocol: int
) -> Change:
    """A deny entry in a host endpoint's map."""

    def change(value: Any) -> None:
        (own,) = [each for each in value if each["EndpointID"] == endpoint]
        entry = json.loads(json.dumps(own["Content"][0]))
        swapped = (port & 0xFF) << 8 | port >> 8
        entry["Key"] |= {"Prefixlen": 64, "Nexthdr": protocol, "DestPortNetwork": swapped,
                         "TrafficDirection": direction, "Identity": identity}  # fmt: skip
        entry |= {"Flags": 1, "ProxyPortNetwork": 0}
        own["Content"].append(entry)

    return json_edit(node, POLICY, change)


def path(*changes: Change, source: str = "pod/client", to: str = "svc/web") -> Path:
    return ask(changed(CAPTURE, *changes), source, to)


TUNNEL_IN = deny("node1", "731", 33554433, 8472, INGRESS, 17)


def test_what_carries_a_packet_in_the_tunnel_is_asked_of_the_receiver() -> None:
    found = path(TUNNEL_IN)
    where = dropped_at(found)
    assert (where.kind, where.node, where.where) == ("policy", "node1", "eth0")
    assert "8472/UDP" in where.summary
    assert "for the host endpoint 731" in where.summary


def test_what_carries_it_is_asked_of_the_sender() -> None:
    egress = deny("node1", "731", 33554433, 8472, EGRESS, 17)
    found = path(egress, source="pod/client1", to="pod/tn-ok:8080")
    where = dropped_at(found)
    assert (where.node, where.where) == ("node1", "eth0")
    assert "8472/UDP" in where.summary
    # The answer's carrier is asked as well.
    back = path(egress, source="pod/client", to="svc/web")
    assert back.drop is not None
    assert back.drop.direction == "answer"


@pytest.mark.parametrize("change", [None, deny("node1", "731", 33554433, 8473, INGRESS, 17)])
def test_a_carrier_that_is_allowed_adds_no_hop(change: Change | None) -> None:
    found = path(*filter(None, [change]))
    assert found.verdict == "reachable"
    assert not [hop for hop in found.hops if "host endpoint" in hop.summary]


def test_without_the_mark_of_the_host_it_is_not_known_whether_the_policy_is_asked() -> None:
    unmarked = swap("node1", "iptables-save -c", "-j MARK --set-xmark 0xc00/0xf00", "-j ACCEPT")
    found = path(unmarked, source="pod/hostnet", to="1.1.1.1:7777")
    assert found.verdict == "unknown"
    assert "CILIUM_OUTPUT" in found.reason
    assert finding(found, "the policy map of the host endpoint 731 denies egress")


def test_a_service_address_that_a_node_has_is_the_world_to_the_policy() -> None:
    """As IPVS' device has them: Cilium asks the host's policy about the ipcache's host alone."""
    found = path(source="pod/client1", to="172.31.7.11:10250")
    assert dropped_at(found).kind == "policy"
    world = swap(
        "node1", "cilium-dbg bpf ipcache list", "172.31.7.11/32      identity=1 ",
        "172.31.7.11/32      identity=2 ",
    )  # fmt: skip
    assert path(world, source="pod/client1", to="172.31.7.11:10250").verdict != "dropped"
