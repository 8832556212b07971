"""Addresses and prefixes that two have, pods that are gone, rows of the endpoint map that are not
the pod's: a recorded cluster with one thing changed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.path import Path
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import VXLAN, Change, ask, changed, dropped_at, finding, say
from tests.explain.path.changed import without as without_record
from tests.explain.path.test_tunnel_end import CT, RECORDED
from tests.explain.path.variants import edit

WEB, WEB_ADDRESS, CLIENT_ADDRESS = "web-7c469c57c9-54wmd", "10.44.0.5", "10.44.1.144"
LXC, ADDRESSES = "cilium-dbg bpf endpoint list", "ip -j addr"
ENDPOINT_LIST = "cilium-dbg endpoint list -o json"
PODS, NODES, CILIUM_NODES = "get pods -A", "get nodes", "get ciliumnodes"
CONFIG = "get configmaps -n kube-system cilium-config"
Items = list[dict[str, Any]]


def objects(command: str, change: Callable[[Items], object]) -> Change:
    """Change the objects of a list; `change` works in place."""

    def text(before: str) -> str:
        value = json.loads(before)
        change(value["items"])
        return json.dumps(value)

    return edit("api", command, text)


def named(items: Items, name: str) -> dict[str, Any]:
    return next(one for one in items if one["metadata"]["name"] == name)


def without(name: str) -> Callable[[Items], object]:
    return lambda items: items.remove(named(items, name))


def answer(*changes: Change, to: str = "svc/web") -> Path:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    return ask(changed(RECORDED, *unseen, *changes), "client", to)


def twin(items: Items, *, deleting: bool = False, of: str = WEB) -> None:
    """A pod of node2 with the address of web."""
    pod = copy.deepcopy(named(items, of))
    pod["metadata"] |= {"name": "twin", "uid": "another"}
    if deleting:
        pod["metadata"]["deletionTimestamp"] = "2026-11-30T05:00:00Z"
    pod["spec"]["nodeName"] = "node2"
    items.insert(0, pod)


@pytest.mark.parametrize("to", ["svc/web", "pod/twin:8080", f"{WEB_ADDRESS}:8080"])
def test_two_pods_with_one_address_are_open(to: str) -> None:
    path = answer(objects(PODS, twin), to=to)
    assert path.verdict == "unknown"
    assert f"have the same address {WEB_ADDRESS}" in path.cause
    assert finding(path, "default/twin (node2)").severity == "error"


def test_a_pod_that_is_being_deleted_does_not_take_its_address_from_the_other() -> None:
    path = answer(objects(PODS, lambda items: twin(items, deleting=True)))
    assert path.verdict == "reachable"
    assert f"to pod default/{WEB} at" in path.reason
    assert finding(path, "have the same address").severity == "warning"


def node_address(name: str, address: str) -> Callable[[Items], object]:
    def change(items: Items) -> None:
        named(items, name)["status"]["addresses"][0]["address"] = address

    return change


@pytest.mark.parametrize(
    "change",
    [
        objects(NODES, node_address("node2", "172.31.7.11")),
        edit("node2", ADDRESSES, lambda text: text.replace("172.31.7.12", "172.31.7.11")),
    ],
    ids=["by its object", "by its device"],
)
def test_two_nodes_with_one_address_are_open(change: Change) -> None:
    path = answer(change)
    assert path.verdict == "unknown"
    assert "nodes node1 and node2 have the same address 172.31.7.11" in path.cause


def test_an_address_of_ipvs_is_no_nodes_own() -> None:
    local = {"family": "inet", "local": "172.31.7.11", "prefixlen": 32, "scope": "global"}
    device = {"ifindex": 77, "ifname": "kube-ipvs0", "addr_info": [local]}
    with_ipvs = edit("node2", ADDRESSES, lambda text: json.dumps([*json.loads(text), device]))
    kind = {"ifindex": 77, "ifname": "kube-ipvs0", "flags": [], "mtu": 1500,
            "linkinfo": {"info_kind": "dummy"}}  # fmt: skip
    is_dummy = edit("node2", "ip -j -d link", lambda text: json.dumps([*json.loads(text), kind]))
    path = answer(with_ipvs, is_dummy)
    assert not [f.title for f in path.findings if "same address" in f.title]


def prefix(name: str, cidr: str) -> Callable[[Items], object]:
    def change(items: Items) -> None:
        named(items, name)["spec"]["ipam"]["podCIDRs"] = [cidr]

    return change


@pytest.mark.parametrize(
    ("name", "cidr", "said"),
    [
        ("node2", "10.44.0.0/24", "nodes node1 and node2 give pods addresses of 10.44.0.0/24"),
        ("node1", "10.44.1.0/24", "nodes node1 and node2 give pods addresses of 10.44.1.0/24"),
        ("node1", "10.44.0.0/16", "10.44.0.0/16 and 10.44.1.0/24, which overlap"),
        ("node1", "10.97.0.0/16", "10.97.125.117 of svc default/web is in 10.97.0.0/16"),
        ("node1", "172.31.7.0/24", "172.31.7.11 of node node1 is in 172.31.7.0/24"),
    ],
)
def test_prefixes_that_overlap_are_a_finding(name: str, cidr: str, said: str) -> None:
    path = answer(objects(CILIUM_NODES, prefix(name, cidr)))
    found = finding(path, said)
    assert found.severity == "warning" or f"but {found.title}" in path.reason


def test_a_ciliumnode_without_a_node_is_what_is_left_of_one() -> None:
    def old(items: Items) -> None:
        left = copy.deepcopy(named(items, "node1"))
        left["metadata"]["name"] = "old"
        items.append(left)

    path = answer(objects(CILIUM_NODES, old))
    assert path.verdict == "reachable"
    found = finding(path, "nodes node1 and old give pods addresses of 10.44.0.0/24")
    assert found.severity == "warning"
    assert "kubectl delete ciliumnode old" in found.detail


def test_prefixes_of_nodes_that_cilium_does_not_use_may_overlap() -> None:
    def unused(items: Items) -> None:
        for item in items:
            item["spec"]["podCIDRs"] = ["10.44.0.0/16"]

    path = answer(objects(NODES, unused))
    assert path.verdict == "reachable"
    assert not [f.title for f in path.findings if f.severity != "info"]


def test_a_pod_with_an_address_of_a_node_is_open() -> None:
    def router(items: Items) -> None:
        named(items, "node1")["spec"]["addresses"][1]["ip"] = WEB_ADDRESS

    path = answer(objects(CILIUM_NODES, router))
    assert path.verdict == "unknown"
    assert f"pod default/{WEB} has {WEB_ADDRESS}, an address of node node1" in path.cause


def quiet(path: Path) -> bool:
    """Whether it is reachable, with nothing to warn of."""
    return path.verdict == "reachable" and all(f.severity == "info" for f in path.findings)


def test_nodes_without_cilium_may_have_the_address_of_a_pod_or_of_each_other() -> None:
    def virtual(items: Items) -> None:
        for number in range(2):
            node = copy.deepcopy(named(items, "node1"))
            node["metadata"]["name"] = f"fargate-{number}"
            node["status"]["addresses"] = [{"type": "InternalIP", "address": WEB_ADDRESS}]
            items.append(node)

    assert quiet(answer(objects(NODES, virtual)))


@pytest.mark.parametrize("ipam", ["eni", "azure", "multi-pool", "delegated-plugin"])
def test_prefixes_say_nothing_where_nodes_have_none_of_their_own(ipam: str) -> None:
    def made_up(items: Items) -> None:
        for item in items:
            item["spec"]["ipam"]["podCIDRs"] = ["10.44.0.0/16", "172.31.0.0/16"]

    def mode(text: str) -> str:
        value = json.loads(text)
        value["data"]["ipam"] = ipam
        return json.dumps(value)

    change = objects(CILIUM_NODES, made_up)
    assert not quiet(answer(change))
    assert quiet(answer(change, edit("api", CONFIG, mode)))


@pytest.mark.parametrize("to", ["svc/web", f"{WEB_ADDRESS}:8080"])
def test_a_pod_that_is_gone_is_open(to: str) -> None:
    path = answer(objects(PODS, without(WEB)), to=to)
    assert path.verdict == "unknown"
    assert f"pod default/{WEB} is gone from the API server" in path.cause
    assert "EndpointSlices, its CiliumEndpoint, the agent of node1" in path.cause
    assert path.fix is not None


def at(started: str, *commands: str) -> Change:
    """Commands were asked at a time of 04:52."""

    def change(record: Record) -> Record:
        asked = record.command in commands
        return replace(record, started=f"2026-11-30T04:52:{started}Z") if asked else record

    return change


SLICES, CILIUM_ENDPOINTS = "get endpointslices -A", "get ciliumendpoints -A"


def test_a_pod_that_only_an_agent_names_which_was_asked_later_may_be_new() -> None:
    def unnamed(items: Items) -> None:
        items[:] = [one for one in items if WEB_ADDRESS not in json.dumps(one)]

    gone = objects(PODS, without(WEB))
    agent_alone = (gone, objects(SLICES, unnamed), objects(CILIUM_ENDPOINTS, unnamed))
    path = answer(*agent_alone, to=f"{WEB_ADDRESS}:8080")
    assert path.verdict == "unknown"
    said = f"pod default/{WEB} is not in the list of pods, and {WEB_ADDRESS} is its address by the"
    assert said in path.cause
    assert finding(path, "it is gone, or was made since").severity == "warning"
    path = answer(*agent_alone, at("40", ENDPOINT_LIST), to=f"{WEB_ADDRESS}:8080")
    assert finding(path, "is gone from the API server").severity == "error"


def test_lists_that_were_read_long_after_the_pods_may_name_a_new_one() -> None:
    gone, agent = objects(PODS, without(WEB)), edit("node1", ENDPOINT_LIST, unlisted)
    later = answer(gone, agent, at("40", PODS))
    assert finding(later, "it is gone, or was made since").severity == "warning"
    at_once = answer(gone, agent, at("54", PODS))
    assert finding(at_once, "is gone from the API server").severity == "error"


def test_a_pod_that_nobody_listed_is_not_gone() -> None:
    gone = objects(PODS, without(WEB))
    in_part = edit_argv(PODS, ("get", "pods", "-n", "other"))
    assert answer(gone, in_part).verdict == "reachable"


def edit_argv(command: str, argv: tuple[str, ...]) -> Change:
    """A command was another one."""
    return lambda record: replace(record, argv=argv) if record.command == command else record


def row(address: str, pattern: str, new: str) -> Callable[[str], str]:
    """Change a word of an address's row."""

    def change(text: str) -> str:
        return "".join(
            re.sub(pattern, new, line, count=1) if line.startswith(f"{address}:") else line
            for line in text.splitlines(True)
        )

    return change


def other_device(text: str) -> str:
    """The row of web leads to client1's device."""
    index = re.search(r"10\.44\.0\.132:0.*?ifindex=(\d+)", text)
    assert index is not None
    return row(WEB_ADDRESS, r"ifindex=\d+", f"ifindex={index[1]}")(text)


def test_a_row_that_leads_to_another_pods_device_is_a_drop() -> None:
    path = answer(edit("node1", LXC, other_device))
    assert "which is not the pod's device" in dropped_at(path).summary
    assert "Cilium's endpoint map of node1 (cilium_lxc) has 10.44.0.5 at" in path.cause
    assert path.fix is not None
    assert "endpoint regenerate 605" in path.fix.command


def test_a_row_of_the_answer_that_leads_to_another_pods_device_is_a_drop() -> None:
    path = answer(edit("node2", LXC, row(CLIENT_ADDRESS, r"ifindex=\d+", "ifindex=15")))
    assert path.verdict == "dropped"
    assert path.drop is not None
    assert path.drop.direction == "answer"


def test_a_row_with_another_endpoints_id_asks_another_policy() -> None:
    path = answer(edit("node1", LXC, row(WEB_ADDRESS, r"id=\d+ ", "id=3145 ")))
    assert path.verdict == "unknown"
    assert "as endpoint 3145, whose policy is asked, and it is 605" in path.cause


@pytest.mark.parametrize(
    ("pattern", "new", "said"),
    [
        (r"sec_id=\d+", "sec_id=999", "with identity 999, and it is 28122"),
        (r" mac=\S+", " mac=02:00:00:00:00:99", "with MAC 02:00:00:00:00:99, and it is"),
    ],
)
def test_a_row_that_is_not_the_agents_is_a_warning(pattern: str, new: str, said: str) -> None:
    path = answer(edit("node1", LXC, row(WEB_ADDRESS, pattern, new)))
    assert path.verdict == "reachable"
    assert finding(path, said).severity == "warning"


def test_without_the_agents_list_the_ciliumendpoint_is_compared() -> None:
    silent = say("node1", ENDPOINT_LIST, "[]")
    wrong = edit("node1", LXC, row(WEB_ADDRESS, r"sec_id=\d+", "sec_id=999"))
    assert finding(answer(silent, wrong), f"and it is 28122 by pod default/{WEB}")
    assert not [f.title for f in answer(silent).findings if "cilium_lxc" in f.title]


def without_row(text: str) -> str:
    return "".join(row for row in text.splitlines(True) if f"{WEB_ADDRESS}:" not in row)


def unlisted(text: str) -> str:
    """The agent's list without the endpoint."""
    return json.dumps([e for e in json.loads(text) if WEB_ADDRESS not in json.dumps(e)])


def test_a_pod_that_is_gone_for_the_datapath_too_is_named_by_who_still_names_it() -> None:
    gone = objects(PODS, without(WEB))
    path = answer(gone, edit("node1", LXC, without_row), edit("node1", ENDPOINT_LIST, unlisted))
    assert f"no endpoint has {WEB_ADDRESS} on node1" in dropped_at(path).summary
    assert f"pod default/{WEB} is gone from the API server" in path.cause
    assert "EndpointSlices" in path.cause
    assert path.fix is not None
    assert path.fix.command.startswith("kubectl get endpointslices")


def test_a_pod_that_is_there_and_lacks_its_row_is_not_gone() -> None:
    path = answer(edit("node1", LXC, without_row), edit("node1", ENDPOINT_LIST, unlisted))
    assert f"no endpoint has {WEB_ADDRESS} on node1" in dropped_at(path).summary
    assert "is gone" not in path.cause


def test_an_endpoint_that_is_being_deleted_has_its_address_no_more() -> None:
    def left(before: str) -> str:
        listed = json.loads(before)
        old = copy.deepcopy(next(one for one in listed if WEB_ADDRESS in json.dumps(one)))
        old["id"], old["status"]["state"] = 9999, "disconnecting"
        old["status"]["networking"] |= {"interface-name": "lxcgone", "interface-index": 77}
        return json.dumps([old, *listed])

    path = answer(edit("node1", ENDPOINT_LIST, left))
    assert path.verdict == "reachable"
    assert not [one.title for one in path.findings if one.severity != "info"]


def test_an_answer_beside_two_pods_with_one_address_is_said_with_them() -> None:
    with attempt(1.0):
        path = ask(changed(VXLAN, objects("get pods", lambda items: twin(items, of="web"))),
                   "client", "pod/web:8080")  # fmt: skip
    assert path.verdict == "delivered"
    assert "; but pods default/web (node1) and default/twin (node2) have the same" in path.reason


VIP = "172.31.7.100"


def lists_vip(items: Items) -> None:
    """kube-vip's address, which moved, is an InternalIP of both nodes."""
    for item in items:
        item["status"]["addresses"].append({"type": "InternalIP", "address": VIP})


def on_device(node: str) -> Change:
    def change(text: str) -> str:
        links = json.loads(text)
        device = next(one for one in links if one["ifname"] == "eth0")
        one = {"family": "inet", "local": VIP, "prefixlen": 32, "scope": "global"}
        device["addr_info"].append(one)
        return json.dumps(links)

    return edit(node, ADDRESSES, change)


def test_a_virtual_address_that_two_nodes_list_is_the_ones_whose_devices_have_it() -> None:
    both = objects(NODES, lists_vip)
    assert quiet(answer(both))
    path = answer(both, to=f"{VIP}:10250")
    assert path.verdict == "unknown"
    said = f"nodes node1 and node2 both list {VIP}, which moves between them"
    assert said in path.reason
    assert not [f.title for f in path.findings if f.severity == "error"]
    held = answer(both, on_device("node2"), to=f"{VIP}:10250")
    assert not [f.title for f in held.findings if f.severity != "info"]


def test_nodes_of_another_cluster_with_the_same_names_are_not_this_ones() -> None:
    """Where no CiliumNode was read, an agent's list has the nodes of all clusters of the mesh."""

    def both(text: str) -> str:
        own = json.loads(text)
        far = json.loads(text.replace("172.31.7.", "172.31.8.").replace("10.44.", "10.200."))
        for cluster, items in (("far", far), ("near", own)):
            for item in items:
                item["name"] = f"{cluster}/{item['name']}"
        return json.dumps([*far, *own])

    agents = [edit(node, "cilium-dbg node list -o json", both) for node in ("node1", "node2")]
    unread = without_record("", CILIUM_NODES), without_record("", NODES)
    unset = without_record("", CONFIG)
    for settings in ((), (unset,)):
        cluster = ClusterView(changed(RECORDED, *unread, *settings, *agents))
        assert cluster.node_of(ip_address("172.31.7.11")) == "node1"
        assert cluster.node_of(ip_address("172.31.8.11")) == ""
        assert {str(cidr) for cidr in cluster.pod_cidrs} == {"10.44.0.0/24", "10.44.1.0/24"}


FROM_NODE = ["node/node1", "hostnet"]
"""The node's own stack, whose packets cil_from_host hands to the endpoint's row."""


@pytest.mark.parametrize("source", FROM_NODE)
@pytest.mark.parametrize("index", ["99", "the other pod's"])
def test_a_row_leads_the_nodes_own_packets_to_another_device_too(source: str, index: str) -> None:
    wrong = row(WEB_ADDRESS, r"ifindex=\d+", "ifindex=99") if index == "99" else other_device
    path = from_node(source, edit("node1", LXC, wrong))
    assert "endpoint map of node1" in path.cause
    assert dropped_at(path).node == "node1"


@pytest.mark.parametrize("source", FROM_NODE)
@pytest.mark.parametrize(
    ("pattern", "new", "said"),
    [
        (r"id=\d+ ", "id=3145 ", "as endpoint 3145, whose policy is asked"),
        (r" mac=\S+", " mac=02:00:00:00:00:99", "with MAC 02:00:00:00:00:99, and it is"),
    ],
)
def test_a_row_that_is_not_the_agents_leaves_the_nodes_own_packets_open(
    source: str, pattern: str, new: str, said: str
) -> None:
    """cil_from_host redirects to the host's side of the pod, not to its peer: the MAC decides."""
    path = from_node(source, edit("node1", LXC, row(WEB_ADDRESS, pattern, new)))
    assert path.verdict == "unknown"
    assert said in path.cause


def from_node(source: str, *changes: Change) -> Path:
    unseen = [say("node1", CT, ""), say("node1", "cat /proc/net/nf_conntrack", "")]
    return ask(changed(RECORDED, *unseen, *changes), source, f"{WEB_ADDRESS}:8080")
