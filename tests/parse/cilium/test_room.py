"""The sizes of Cilium's maps in `status -o json` (cilium-facts 2.11)."""

from __future__ import annotations

import json

from kubectl_ebpfnet.model.room import Table
from kubectl_ebpfnet.parse.cilium import room


def status(**sizes: int) -> bytes:
    maps = [{"name": name.replace("_", " "), "size": size} for name, size in sizes.items()]
    return json.dumps({"bpf-maps": {"dynamic-size-ratio": 0.0025, "maps": maps}}).encode()


def test_the_name_of_the_policy_map_changed() -> None:
    old = room.sizes(status(Endpoint_policy=65535, Global_policy=16384, Per_endpoint_policy=65536))
    new = room.sizes(status(Endpoints=65535, Endpoint_policy=16384, Policy_stats=65536))
    assert {(one.table, one.most) for one in old} == {(one.table, one.most) for one in new}
    assert {one.table for one in new} == {Table.POLICY, Table.ENDPOINTS}


def test_maps_of_both_ip_versions_have_one_size_or_two() -> None:
    found = room.sizes(status(NAT=100, IPv4_service=10, IPv6_service=20, Metrics=1024))
    assert [(one.table, one.version, one.most) for one in found] == [
        (Table.NAT, None, 100),
        (Table.SERVICES, 4, 10),
        (Table.SERVICES, 6, 20),
    ]
    assert found[1].span.path == ("bpf-maps", "maps", 1)


def test_an_agent_that_says_nothing_of_its_maps() -> None:
    assert room.sizes(b"{}") == ()
    assert room.sizes(b'{"bpf-maps": {"maps": [{"name": "NAT"}, 7]}}') == ()
