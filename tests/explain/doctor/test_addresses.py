"""`doctor` on recorded clusters whose lists contradict themselves, and on healthy ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_ebpfnet.explain.doctor.report import examine
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.render.doctor.report import render
from kubectl_ebpfnet.render.text.view import View
from tests.explain.path.changed import SCENARIOS, changed, opened
from tests.explain.path.variants import json_edit

SERVICES = "../features/services/agent.zip"
HEALTHY = sorted(SCENARIOS.parent.glob("features/*/*.zip"))


def found(bundle: Bundle) -> list[tuple[str, str]]:
    return [(str(each.severity), each.title) for each in examine(bundle).findings]


def edited(command: str, change: Callable[[list[dict[str, Any]]], None]) -> Bundle:
    """The cluster's list, changed."""
    return changed(SERVICES, json_edit("api", command, lambda value: change(value["items"])))


@pytest.mark.parametrize("capture", HEALTHY, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_cluster_that_does_not_contradict_itself(capture: Any) -> None:
    assert found(opened(capture)) == []


def test_prefixes_that_overlap() -> None:
    def wider(items: list[dict[str, Any]]) -> None:
        items[0]["spec"]["ipam"]["podCIDRs"] = ["10.44.0.0/16"]

    ((severity, title),) = found(edited("get ciliumnodes", wider))
    assert severity == "error"
    assert title.startswith("nodes node1 and node2 give pods addresses of 10.44.0.0/16 and 10.44.")


def test_a_cilium_node_without_a_node() -> None:
    def left(items: list[dict[str, Any]]) -> None:
        gone = copy.deepcopy(items[0])
        gone["metadata"]["name"] = "node9"
        gone["spec"]["ipam"]["podCIDRs"] = ["10.44.9.0/24"]
        gone["spec"]["addresses"] = [{"ip": "172.31.7.19", "type": "InternalIP"}]
        items.append(gone)

    bundle = edited("get ciliumnodes", left)
    assert found(bundle) == [("warning", "CiliumNode node9 has no Node")]
    text = render(examine(bundle), bundle, "table", View(100, False, False))
    assert "WARNING  CiliumNode node9 has no Node" in text
    assert "kubectl delete ciliumnode node9" in text


def test_a_prefix_of_what_is_left_of_a_node_is_no_error() -> None:
    """path says the same (tests/explain/path/test_owners.py)."""

    def left(items: list[dict[str, Any]]) -> None:
        gone = copy.deepcopy(items[0])
        gone["metadata"]["name"] = "node9"
        items.append(gone)

    said = {title: severity for severity, title in found(edited("get ciliumnodes", left))}
    overlaps = [severity for title, severity in said.items() if "give pods addresses of" in title]
    assert overlaps == ["warning"]


def test_a_virtual_address_that_two_nodes_list_is_no_error() -> None:
    def virtual(items: list[dict[str, Any]]) -> None:
        for item in items:
            vip = {"type": "InternalIP", "address": "172.31.7.100"}
            item["status"]["addresses"].append(vip)

    bundle = edited("get nodes", virtual)
    assert found(bundle) == [
        ("info", "nodes node1 and node2 list 172.31.7.100 beside an address of their own")
    ]
    text = render(examine(bundle), bundle, "table", View(100, False, False))
    assert "172.31.7.100" in text


def test_two_nodes_with_one_address() -> None:
    def same(items: list[dict[str, Any]]) -> None:
        for item in items:
            item["status"]["addresses"] = [{"type": "InternalIP", "address": "172.31.7.11"}]

    assert (
        "error", "nodes node1 and node2 have the same address 172.31.7.11",
    ) in found(edited("get nodes", same))  # fmt: skip


def test_a_link_local_address_of_cilium_host_is_on_all_nodes() -> None:
    def same(items: list[dict[str, Any]]) -> None:
        for item in items:
            for address in item["spec"]["addresses"]:
                if address["type"] == "CiliumInternalIP":
                    address["ip"] = "169.254.23.0"

    assert found(edited("get ciliumnodes", same)) == []


def test_virtual_nodes_may_have_one_address() -> None:
    def virtual(items: list[dict[str, Any]]) -> None:
        for number in range(2):
            node = copy.deepcopy(items[0])
            node["metadata"]["name"] = f"kwok-{number}"
            node["status"]["addresses"] = [{"type": "InternalIP", "address": "10.44.0.5"}]
            items.append(node)

    assert not [title for _, title in found(edited("get nodes", virtual)) if "address" in title]


def test_two_pods_with_one_address() -> None:
    def same(items: list[dict[str, Any]]) -> None:
        pods = [i for i in items if i["status"].get("podIP", "").startswith("10.44.")]
        for pod in pods[:2]:
            pod["status"]["podIP"] = "10.44.0.5"
            pod["status"]["podIPs"] = [{"ip": "10.44.0.5"}]

    assert any("have the same address 10.44.0.5" in title for _, title in found(
        edited("get pods -A", same)))  # fmt: skip
