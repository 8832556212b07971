"""Tunnel devices of two nodes that do not fit: a recorded cluster with one device changed.

Its healthy self is the control of test_tunnel_end.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, ask, changed, dropped_at, say, without
from tests.explain.path.test_tunnel_end import CT, RECORDED
from tests.explain.path.variants import edit, everywhere, json_edit

LINKS, STATUS = "ip -j -d link", "cilium-dbg status -o json"


def answer(*changes: Change) -> Path:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    return ask(changed(RECORDED, *unseen, *changes), "client", "svc/web")


def device(node: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change a node's tunnel device, in place."""

    def edited(links: list[dict[str, Any]]) -> None:
        change(next(link for link in links if link["ifname"] == "cilium_vxlan"))

    return json_edit(node, LINKS, edited)  # type: ignore[arg-type]


def not_external(link: dict[str, Any]) -> None:
    del link["linkinfo"]["info_data"]["external"]


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_a_device_that_takes_no_end_from_a_packet_is_not_ciliums(node: str) -> None:
    path = answer(device(node, not_external))
    assert "(external)" in dropped_at(path).summary
    assert path.drop is not None
    assert path.drop.node == node
    assert path.fix is not None
    assert path.fix.command == "ip link del cilium_vxlan"


def test_a_device_of_which_no_details_were_read_is_taken_for_ciliums() -> None:
    assert answer(device("node1", lambda link: link.pop("linkinfo"))).verdict == "reachable"


def to_geneve(link: dict[str, Any]) -> None:
    link["linkinfo"]["info_kind"] = "geneve"


def geneve(node: str) -> tuple[Change, ...]:
    """A node's tunnel is Geneve, at the port that VXLAN has."""
    return (
        device(node, to_geneve),
        everywhere(("cilium_vxlan", "cilium_geneve"), at=node),
        edit(node, STATUS, lambda text: text.replace("vxlan", "geneve")),
    )


@pytest.mark.parametrize(
    ("node", "said"),
    [("node1", "comes in VXLAN, and node1 has Geneve"),
     ("node2", "comes in Geneve, and node1 has VXLAN")],
)  # fmt: skip
def test_geneve_on_one_node_and_vxlan_on_the_other_is_a_drop(node: str, said: str) -> None:
    path = answer(*geneve(node))
    assert said in dropped_at(path).summary
    assert path.fix is not None
    assert path.fix.command.startswith("kubectl rollout restart")


def test_geneve_on_both_nodes_is_no_finding() -> None:
    path = answer(*geneve("node1"), *geneve("node2"))
    assert path.verdict == "reachable", path.reason
    assert any("cilium_geneve (GENEVE)" in hop.summary for hop in path.hops)
    assert not [found for found in path.findings if found.severity != "info"]


def test_geneve_is_open_where_the_others_devices_were_not_read() -> None:
    unread = (without("node1", each) for each in (LINKS, "ip -j addr", STATUS))
    path = answer(*geneve("node2"), *unread)
    assert path.verdict != "dropped"
