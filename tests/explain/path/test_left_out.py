"""Rows of a table that a live run did not bring home, and that nobody read after all: they are not
rows that the table lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubectl_ebpfnet.explain.path.services import find
from kubectl_ebpfnet.explain.path.stages import forward
from kubectl_ebpfnet.explain.views import room
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import InMemory, Record
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.room import Table
from tests.explain.path.changed import POLICY, VXLAN, Change, ask, changed, say, without

IPCACHE = "cilium-dbg bpf ipcache list"
CT, NAT = "cilium-dbg bpf ct list global -d", "cilium-dbg bpf nat list"
UNTRACKED = [say(node, table, "") for node in ("node1", "node2") for table in (CT, NAT)]


def without_rows(node: str, *kept: str) -> Change:
    """The ipcache of a node, of which the rows that begin with these came home."""

    def change(record: Record) -> Record:
        if (record.place.node, record.command) != (node, IPCACHE):
            return record
        lines = record.stdout.read().decode().splitlines(keepends=True)
        there = "".join(line for line in lines if line.startswith(("IP", *kept)))
        return replace(
            record, stdout=InMemory(there.encode()), line_filter=("10.9.9.9",), left_out=len(lines)
        )

    return change


@pytest.mark.parametrize("to", ["pod/web:8080", "svc/web"])
def test_a_row_of_the_ipcache_that_was_left_out_is_none_that_is_missing(to: str) -> None:
    path = ask(changed(VXLAN, without_rows("node2"), *UNTRACKED), "client", to)
    assert path.verdict == "unknown", path.reason
    assert "Stale or unroutable IP" not in path.reason
    assert path.reason.endswith("10.244.0.135 is not known: its row of the ipcache was not read")


def test_a_drop_that_a_row_may_change_is_open() -> None:
    """The policy map of this pod allows some identities, and which one the destination has is in a
    row that nobody read."""
    monitors = [without("node2", f"cilium-dbg monitor{flag}") for flag in ("", " -j", " -v")]
    unseen = [*UNTRACKED, *monitors]
    assert ask(changed(POLICY, *unseen), "client", "pod/web:8080").verdict == "dropped"
    path = ask(changed(POLICY, without_rows("node2"), *unseen), "client", "pod/web:8080")
    assert path.verdict == "unknown", path.reason
    assert "cilium-ipcache of node2 was not asked for 10.244.0.135" in path.reason
    assert not [one for one in path.findings if one.severity == "error"]


def test_a_row_that_the_ipcache_lacks_is_the_worlds() -> None:
    node = ClusterView(changed(VXLAN)).node("node2")
    lacking = ClusterView(changed(VXLAN, say("node2", IPCACHE, "IP PREFIX/ADDRESS   IDENTITY\n")))
    pod = next(a for a in ClusterView(changed(VXLAN)).kube.pods if a.name == "web").addresses[0]
    assert not node.ipcache_lacks(pod)
    assert lacking.node("node2").ipcache_lacks(pod)
    left_out = ClusterView(changed(VXLAN, without_rows("node2"))).node("node2")
    assert left_out.ipcache_of(pod) is None
    assert not left_out.ipcache_lacks(pod)


def test_a_tunnel_that_neither_the_mode_nor_the_devices_tell_leaves_the_way_open() -> None:
    """Where the node's programs route the packet themselves, past the node's stack."""

    def changes(record: Record) -> Record:
        text = record.stdout.read()
        if record.place.node == "node2" and q.LINKS.is_answered_by(record.argv):
            return replace(record, stdout=InMemory(), exit_code=1)
        if record.command == "cilium-dbg status -o json":
            value = json.loads(text)
            value.pop("routing", None)
            value["host-routing"] = {"mode": "BPF"}
            return replace(record, stdout=InMemory(json.dumps(value).encode()))
        if "cilium-config" in record.argv:
            text = text.replace(b'"routing-mode"', b'"x"').replace(b'"tunnel-protocol"', b'"y"')
            return replace(record, stdout=InMemory(text))
        return record

    bundle = changed(VXLAN, changes)
    view = ClusterView(bundle)
    node = view.node("node2")
    assert node.config.routing_mode == ""
    pod = next(pod for pod in view.kube.pods if pod.name == "web").addresses[0]
    entry = node.ipcache_of(pod)
    assert entry is not None
    assert forward.is_tunnelled(node, entry) is None
    walk = cast(Any, SimpleNamespace(cluster=view, doubt=lambda why, _: said.append(why)))
    said: list[str] = []
    forward._doubt_tunnel(walk, node, pod)
    assert said[0].startswith(f"whether node2 sends to {pod} in a tunnel: its routing mode is not ")


@pytest.mark.parametrize("listed", [True, False])
def test_a_frontend_whose_rows_were_left_out_is_none_that_the_map_lacks(listed: bool) -> None:
    """By the agent's list it is there; without that, it may be."""

    def change(record: Record) -> Record:
        if record.place.node == "node2" and q.LB_MAP.is_answered_by(record.argv):
            return replace(record, stdout=InMemory(), line_filter=("10.9.9.9",), left_out=40)
        if record.place.node == "node2" and q.SERVICES.is_answered_by(record.argv) and not listed:
            return replace(record, stdout=InMemory(b"[]"))
        return record

    view = ClusterView(changed(VXLAN, change))
    address = next(s for s in view.kube.services if s.name == "web").cluster_addresses[0]
    found = find(view, "node2", address, 80, TCP)
    assert found is not None
    assert found.in_cilium is (True if listed else None)
    assert listed or "were left out" in found.unread


def test_a_policy_map_that_was_not_asked_for_is_not_empty() -> None:
    def filtered(record: Record) -> Record:
        if record.command == "cilium-dbg bpf policy get --all -o json":
            return replace(record, stdout=InMemory(b"[]"), line_filter=("10.9.9.9",))
        return record

    whole = ClusterView(changed(VXLAN)).node("node2")
    endpoint = next(e.id for e in whole[q.ENDPOINTS].facts if e.pod)
    asked = room._printed(whole, Table.POLICY, 4, endpoint)
    left_out = ClusterView(changed(VXLAN, filtered)).node("node2")
    assert asked[0]
    assert room._printed(left_out, Table.POLICY, 4, endpoint)[0] is None
