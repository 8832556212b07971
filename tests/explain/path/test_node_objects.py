"""Objects and devices that disagree about the address of a node: a recorded cluster with one thing
changed; test_tunnel_end.py has the control."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.explain.path.changed import Change, ask, changed, finding, say
from tests.explain.path.test_owners import (
    ADDRESSES,
    CILIUM_NODES,
    NODES,
    Items,
    answer,
    named,
    node_address,
    objects,
)
from tests.explain.path.test_tunnel_end import CT, IPCACHE, RECORDED
from tests.explain.path.variants import edit


def cilium_address(name: str, number: int, address: str) -> Callable[[Items], object]:
    def change(items: Items) -> None:
        named(items, name)["spec"]["addresses"][number]["ip"] = address

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (objects(CILIUM_NODES, cilium_address("node1", 0, "172.31.7.66")),
         "CiliumNode node1 has the address 172.31.7.66, and Node node1 has 172.31.7.11"),
        (objects(NODES, node_address("node2", "172.31.7.66")),
         "CiliumNode node2 has the address 172.31.7.12, and Node node2 has 172.31.7.66"),
        (objects(CILIUM_NODES, cilium_address("node2", 1, "10.44.1.9")),
         "cilium_host of node2 has 10.44.1.184, and CiliumNode node2 has 10.44.1.9"),
        (edit("node1", ADDRESSES, lambda text: text.replace("10.44.0.201", "10.44.0.202")),
         "cilium_host of node1 has 10.44.0.202, and CiliumNode node1 has 10.44.0.201"),
    ],
)  # fmt: skip
def test_objects_and_devices_that_disagree_are_a_warning(change: Change, said: str) -> None:
    path = answer(change)
    assert path.verdict == "reachable"
    assert finding(path, said).severity == "warning"


def test_an_address_of_the_other_ip_version_is_no_other_address() -> None:
    six = objects(CILIUM_NODES, cilium_address("node1", 0, "fd00:7::11"))
    assert not [f.title for f in answer(six).findings if "CiliumNode node1" in f.title]


@pytest.mark.parametrize(
    ("at", "row", "source", "destination"),
    [
        ("node2", "172.31.7.11/32", "client", "172.31.7.11:10250"),
        ("node1", "10.44.1.184/32", "node/node2", "svc/web"),
    ],
)
def test_a_node_that_the_ipcache_lacks_is_taken_for_the_world(
    at: str, row: str, source: str, destination: str
) -> None:
    def without(text: str) -> str:
        return "".join(each for each in text.splitlines(True) if not each.startswith(row))

    unseen = [say(node, CT, "") for node in ("node1", "node2")]
    whole = ask(changed(RECORDED, *unseen), source, destination)
    assert not [f.title for f in whole.findings if "for the world" in f.title]
    path = ask(changed(RECORDED, *unseen, edit(at, IPCACHE, without)), source, destination)
    assert finding(path, f"the ipcache of {at} takes {row[:-3]}, an address of node")


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_encryption_on_one_node_alone_is_a_warning(node: str) -> None:
    def on(text: str) -> str:
        value = json.loads(text)
        value["encryption"] = {"mode": "Wireguard"}
        return json.dumps(value)

    status = "cilium-dbg status -o json"
    path = answer(edit(node, status, on))
    assert finding(path, "the agent of node2 has encryption").severity == "warning"
    both = answer(edit("node1", status, on), edit("node2", status, on))
    assert not [f.title for f in both.findings if "has encryption" in f.title]
