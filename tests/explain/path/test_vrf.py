"""VRFs on the way: devices in one, routes into one, rules that look up the table of one."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_ebpfnet.explain.path import state
from kubectl_ebpfnet.model.path import Path, Verdict
from tests.explain.path.changed import NATIVE, VXLAN, Change, ask, changed, dropped_at
from tests.explain.path.test_node_routing import WORLD, route_hops, routes, rules
from tests.explain.path.variants import json_edit

L3MDEV = {"priority": 1000, "src": "all", "l3mdev": None}
LINKS = "ip -j -d link"


@pytest.fixture(autouse=True)
def never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.PathBuilder, "attempt", None)


def vrf(node: str, *slaves: str, table: int | None = 10) -> Change:
    """A VRF `red` of a node with these devices in it."""

    def edit(value: Any) -> None:
        data = {} if table is None else {"table": table}
        info = {"info_kind": "vrf", "info_data": data}
        value.append({"ifindex": 90, "ifname": "red", "flags": ["UP", "LOWER_UP"], "mtu": 65575,
                      "linkinfo": info})  # fmt: skip
        for link in value:
            if link["ifname"] in slaves:
                link["master"] = "red"

    return json_edit(node, LINKS, edit)


def red(destination: str, **more: str) -> dict[str, object]:
    return {"dst": destination, "dev": "eth0", "gateway": "172.30.0.9", "table": "10", **more}


def to_world(*changes: Change) -> Path:
    return ask(changed(NATIVE, *changes), "client", WORLD)


def by_red(*changes: Change, table: int | None = 10) -> Path:
    """The recorded route to 1.1.1.1 leads into the VRF."""

    def edit(value: Any) -> None:
        for route in value:
            if route["dst"] == "1.1.1.1":
                route.pop("gateway")
                route["dev"] = "red"

    into = json_edit("node2", "ip -j route show table all", edit)
    return to_world(vrf("node2", "eth0", table=table), into, *changes)


def test_a_route_into_a_vrf_goes_on_by_its_table() -> None:
    path = by_red(rules(L3MDEV), routes(red("default")))
    first, second, *_ = route_hops(path)
    assert first.summary == "1.1.1.1/32 dev red: red is a VRF, whose own table is looked up"
    assert second.summary.startswith("default via 172.30.0.9 dev eth0 by rule 1000")
    assert path.verdict is Verdict.LEAVES, path.reason


def test_a_table_of_a_vrf_that_has_no_route_drops() -> None:
    assert (
        "unreachable"
        in dropped_at(
            by_red(rules(L3MDEV), routes({"type": "unreachable", "dst": "default", "table": "10"}))
        ).summary
    )


@pytest.mark.parametrize(
    ("table", "more"),
    [(10, ()), (None, (routes(red("default")),)), (11, (routes(red("default")),))],
)
def test_a_table_that_is_not_known_is_undecided(
    table: int | None, more: tuple[Change, ...]
) -> None:
    path = by_red(rules(L3MDEV), *more, table=table)
    assert path.verdict is Verdict.UNKNOWN
    assert "the table of the VRF is not known" in path.reason


def test_without_a_rule_for_vrfs_nothing_looks_its_table_up() -> None:
    path = by_red(rules({"priority": 9, "src": "1.2.3.4", "table": "7"}), routes(red("default")))
    assert path.verdict is Verdict.UNKNOWN
    assert "no rule of node2 looks up the table of VRF red" in path.reason


def test_what_comes_in_by_a_device_in_a_vrf_is_looked_up_in_its_table() -> None:
    """The pod's host side is in it, as a routed CNI beside Cilium may do."""
    lxc = vrf("node2", "lxc00f235fb673a")
    path = to_world(lxc, rules(L3MDEV), routes(red("default")))
    assert "default via 172.30.0.9 dev eth0 by rule 1000" in route_hops(path)[0].summary


def test_a_device_of_which_nothing_tells_whether_it_is_in_a_vrf() -> None:
    def unnamed(value: Any) -> None:
        for link in value:
            if link["ifname"] == "lxc00f235fb673a":
                link["master"] = "gone"

    path = to_world(json_edit("node2", LINKS, unnamed), rules(L3MDEV))
    assert path.verdict is Verdict.UNKNOWN
    assert "it is not known whether its device is in a VRF" in path.reason


def test_a_socket_of_the_node_takes_it_only_where_it_is_told_to() -> None:
    """Here VXLAN's, to which the outer packet comes by a device in a VRF."""
    path = ask(changed(VXLAN, vrf("node1", "eth0")), "client", "pod/web:8080")
    assert path.verdict is Verdict.UNKNOWN
    assert "eth0 is in VRF red of node1, and whether a socket there takes it" in path.reason
    assert path.fix is not None
    assert path.fix.command == "sysctl net.ipv4.udp_l3mdev_accept"


def test_a_vrf_that_is_not_on_the_way_changes_nothing() -> None:
    path = to_world(vrf("node2"), rules(L3MDEV), routes(red("1.1.1.1")))
    assert path.verdict is Verdict.LEAVES, path.reason
