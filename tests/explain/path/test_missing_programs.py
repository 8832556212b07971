"""A program of Cilium that is certainly attached nowhere: the walk does not go on as if it ran."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import TailCalls
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, node_place
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import (
    NATIVE,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    fail,
    finding,
    swap,
)
from tests.explain.path.variants import json_edit

NET = "bpftool -j net show"


def detached(node: str, device: str, program: str) -> Change:
    """A program of a device is attached no more; its pin stays."""

    def edit(value: Any) -> None:
        rows = value[0]["tc"]
        kept = [row for row in rows if (row["devname"], row["name"]) != (device, program)]
        assert len(kept) == len(rows) - 1
        value[0]["tc"] = kept

    return json_edit(node, NET, edit)


def without(node: str, device: str, program: str, destination: str = "pod/web:8080") -> Answer:
    """The answer on a cluster where a program is missing, and the flow was answered before."""
    with attempt(5.0):
        return ask(changed(VXLAN, detached(node, device, program)), "client", destination)


@pytest.mark.parametrize(
    ("node", "device", "program", "destination", "consequence"),
    [
        ("node2", "lxcca1c984e26ef", "cil_from_container", "pod/web:8080", "What the pod sends"),
        ("node1", "cilium_vxlan", "cil_from_overlay", "pod/web:8080", "out of the tunnel"),
        ("node2", "eth0", "cil_from_netdev", "1.1.1.1:80", "answers to masqueraded packets"),
    ],
)
def test_it_is_an_error_and_an_answer_proves_nothing(
    node: str, device: str, program: str, destination: str, consequence: str
) -> None:
    assert ask(changed(VXLAN), "client", destination).verdict != "unknown"
    path = without(node, device, program, destination)
    assert path.verdict == "unknown"
    error = finding(path, f"no program of Cilium's is attached at {device}")
    assert error.severity == "error"
    assert f"the pinned link of {program} is attached to no device" in error.title
    assert consequence in error.detail
    assert error.title in path.reason


def test_without_cil_from_overlay_no_ingress_policy_is_claimed() -> None:
    path = without("node1", "cilium_vxlan", "cil_from_overlay")
    after = [hop for hop in path.hops if hop.node == "node1" and hop.where == "cilium_vxlan"]
    assert not any("BPF host routing hands it" in hop.summary for hop in path.hops)
    assert after


def test_tools_that_could_not_be_asked_leave_it_open() -> None:
    """Neither bpftool nor tc: the walk goes on as Cilium's datapath does it."""
    commands = (NET, "bpftool -j link show", "ls -R /sys/fs/bpf")
    changes = [fail("node2", command, "not found", 127) for command in commands]
    with attempt(5.0):
        path = ask(changed(VXLAN, *changes), "client", "1.1.1.1:80")
    assert path.verdict == "delivered"
    assert not [one for one in path.findings if one.severity == "error"]


# --- programs whose absence leaves the way as it is ---------------------------------------------


@pytest.mark.parametrize(
    ("node", "device", "program", "destination", "consequence"),
    [
        ("node2", "eth0", "cil_to_netdev", "1.1.1.1:80", "not masqueraded"),
        ("node2", "cilium_vxlan", "cil_to_overlay", "pod/web:8080", "NodePorts"),
        ("node1", "eth0", "cil_from_netdev", "pod/web:8080", "not load-balanced"),
    ],
)
def test_a_program_that_this_packet_does_not_need_is_an_error_all_the_same(
    node: str, device: str, program: str, destination: str, consequence: str
) -> None:
    path = without(node, device, program, destination)
    error = finding(path, f"no program of Cilium's is attached at {device}")
    assert (error.severity, consequence in error.detail) == ("error", True)
    assert (path.verdict == "delivered") is (destination == "pod/web:8080")


def test_without_cil_to_netdev_nothing_masquerades() -> None:
    path = without("node2", "eth0", "cil_to_netdev", "1.1.1.1:80")
    assert path.verdict == "unknown"
    assert not any("Cilium masquerades" in hop.summary for hop in path.hops)
    assert finding(path, "leaves the cluster without masquerading").severity == "error"


def test_the_program_of_the_other_direction_tells_that_the_device_is_ciliums() -> None:
    """Without the agent nobody names Cilium's devices."""
    status = "cilium-dbg status -o json"
    unnamed = swap("", "get cilium-config", '"devices": "eth0"', '"devices": ""')
    hidden = fail("node1", status), unnamed, detached("node1", "eth0", "cil_from_netdev")
    path = ask(changed(VXLAN, *hidden), "client", "pod/web:8080")
    assert finding(path, "no program of Cilium's is attached at eth0").severity == "error"
    bare = detached("node1", "eth0", "cil_to_netdev")
    path = ask(changed(VXLAN, *hidden, bare), "client", "pod/web:8080")
    assert not [one for one in path.findings if "is attached at eth0" in one.title]


def test_where_no_configuration_wants_cil_to_netdev_nothing_is_missing() -> None:
    """Native routing with kube-proxy and masquerading by iptables: it is attached nowhere."""
    path = ask(changed(NATIVE), "client", "1.1.1.1:80")
    assert [one for one in path.findings if one.severity == "error"] == []


# --- maps of tail calls ---------------------------------------------

CAPTURE = Path(__file__).parents[2] / "faults/v25-xdp-node1/agent.zip"


def unloaded(node: str, device: str, *names: str) -> Bundle:
    """A capture in which the parts of an endpoint's program are gone, as where its map of tail
    calls was emptied."""
    bundle = open_bundle(CAPTURE)
    view = ClusterView(bundle).node(node)
    (entry,) = (a.program_id for a in view.having(q.BPF_NET, device, "device"))

    def edit(rows: Any) -> None:
        (own,) = (set(row["map_ids"]) for row in rows if row["id"] == entry)
        entries = [row for row in rows if row["name"] == "cil_from_container"]
        own -= {m for row in entries if row["id"] != entry for m in row["map_ids"]}
        kept = [
            row
            for row in rows
            if not (row.get("name", "").startswith(names) and own & set(row.get("map_ids", ())))
        ]
        assert len(kept) < len(rows)
        rows[:] = kept

    change = json_edit(node, "bpftool -j prog show", edit)
    records = (change(record) for record in bundle.records)
    return Bundle(tuple(record for record in records if record is not None), bundle.source)


@pytest.mark.parametrize(
    ("node", "device", "parts", "name"),
    [
        ("node2", "lxc55417be4e677", "tail_", "cilium_calls_00845"),
        ("node1", "lxc45d26c3061be", "tail_", "cilium_calls_02052"),
        ("node1", "lxc45d26c3061be", "cil_lxc_policy", "cilium_call_policy"),
    ],
)
def test_an_agent_shows_by_its_programs_that_a_map_of_tail_calls_is_empty(
    node: str, device: str, parts: str, name: str
) -> None:
    path = ask(unloaded(node, device, parts), "client", "svc/web")
    hop = dropped_at(path)
    assert (hop.node, hop.where) == (node, device)
    assert name in hop.summary
    assert hop.summary.endswith("Missed tail call")
    assert path.fix is not None
    assert "endpoint regenerate" in path.fix.command


def test_where_no_program_shows_its_parts_nothing_is_claimed() -> None:
    """Cilium 1.9 gives its programs no names in the kernel."""
    bundle = unloaded("node2", "lxc55417be4e677", "tail_")
    nameless = json_edit(
        "node2", "bpftool -j prog show",
        lambda rows: [row.update(name="") for row in rows if row["name"].startswith("tail_")],
    )  # fmt: skip
    records = (nameless(record) for record in bundle.records)
    bundle = Bundle(tuple(record for record in records if record is not None), bundle.source)
    assert ask(bundle, "client", "1.1.1.1:80").verdict != "dropped"


@pytest.mark.parametrize(
    ("node", "rows", "where"),
    [
        ("node2", [TailCalls("cilium_calls_{:05d}", False)], "lxcca1c984e26ef"),
        ("node1", [TailCalls("cilium_calls_overlay_2", False)], "cilium_vxlan"),
        ("node1", [TailCalls("cilium_calls_netdev_00002", False)], "eth0"),
        ("node1", [TailCalls("cilium_call_policy", False, 448)], "lxc890578bef1bb"),
        ("node1", [TailCalls("cilium_call_policy", True, 448)], ""),
        ("node2", [TailCalls("cilium_calls_{:05d}", True)], ""),
    ],
)
def test_a_node_pod_reads_the_maps(node: str, rows: list[TailCalls], where: str) -> None:
    number = 448 if node == "node1" else CLIENT_ENDPOINT
    said = [replace(row, map=row.map.format(number)) for row in rows]
    record = Record(0, node_place(node), node_argv("tail-calls"), 0,
                    InMemory(b"".join(map(codec.line_of, said))))  # fmt: skip
    with attempt(600.0):
        path = ask(changed(VXLAN, more=(record,)), "client", "pod/web:8080")
    assert (path.hops[-1].where if path.verdict == "dropped" else "") == where


CLIENT_ENDPOINT = next(
    endpoint.id
    for endpoint in ClusterView(changed(VXLAN)).node("node2")[q.ENDPOINTS].facts
    if endpoint.interface == "lxcca1c984e26ef"
)


# --- the socket load-balancer -------------------------------------------------------------------


@pytest.mark.parametrize(("call", "missing"), [("connect", True), ("sendmsg", False)])
def test_a_detached_program_of_connect_translates_nothing(call: str, missing: bool) -> None:
    """The link's pin stays; its cgroup is 0 (kernel/bpf/cgroup.c)."""

    def edit(rows: Any) -> None:
        name = f"/cil_sock4_{call}"
        (link,) = [row for row in rows if any(pin.endswith(name) for pin in row["pinned"])]
        link["cgroup_id"] = 0

    bundle = open_bundle(CAPTURE)
    change = json_edit("node1", "bpftool -j -f link show", edit)
    records = (change(record) for record in bundle.records)
    bundle = Bundle(tuple(record for record in records if record is not None), bundle.source)
    path = ask(bundle, "hostnet", "svc/web")
    errors = [one.title for one in path.findings if one.severity == "error"]
    found = [title for title in errors if "is attached nowhere" in title]
    assert bool(found) is missing
    by_socket = any("at connect()" in hop.summary for hop in path.hops)
    assert by_socket is not missing
    if missing:
        assert path.verdict == "unknown"
        assert "without having become a backend's address" in path.reason


# --- XDP ------------------------------------------------------------------------------------------

XDP = {"devname": "eth0", "ifindex": 2, "mode": "driver", "id": 4711}


def accelerated(how: str, *xdp: dict[str, Any], name: str = "cil_xdp_entry") -> Answer:
    """The answer where node1 is to accelerate NodePorts, and has these XDP programs."""

    def status(value: Any) -> None:
        value["kube-proxy-replacement"]["features"]["nodePort"]["acceleration"] = how

    def net(value: Any) -> None:
        value[0]["xdp"] = list(xdp)

    def programs(value: Any) -> None:
        value.append({"id": 4711, "type": "xdp", "name": name, "tag": "00"})

    changes = [json_edit("node1", "cilium-dbg status -o json", status)]
    changes += [json_edit("node1", NET, net)] if xdp else []
    changes += [json_edit("node1", "bpftool -j prog show", programs)]
    return ask(changed(VXLAN, *changes), "client", "pod/web:8080")


TITLE = "cil_xdp_entry is not attached at eth0 of node node1, though bpf-lb-acceleration is "


@pytest.mark.parametrize(
    ("how", "said", "severity"),
    [("Native", "native", "error"), ("Generic", "generic", "error"),
     ("Best-Effort", "best-effort, or its driver cannot run it", "warning")],
)  # fmt: skip
def test_xdp_that_is_missing_is_named_with_its_consequence(
    how: str, said: str, severity: str
) -> None:
    path = accelerated(how)
    found = finding(path, TITLE)
    assert (found.title, found.severity) == (TITLE + said, severity)
    assert "is balanced by cil_from_netdev" in found.detail
    assert path.verdict == "delivered"


def test_xdp_that_is_there_or_not_wanted_is_no_fault() -> None:
    for path in (accelerated("Native", XDP), accelerated("Disabled"), accelerated("")):
        assert not any("cil_xdp_entry is not" in found.title for found in path.findings)


def test_an_xdp_program_of_somebody_else_in_its_place_is_both_named() -> None:
    with attempt(600.0):
        path = accelerated("Native", XDP, name="guard")
    assert finding(path, TITLE)
    assert "what guard (xdp, id 4711" in path.reason


def test_xdp_is_no_program_behind_it() -> None:
    """Cilium's XDP program alone does not do what cil_from_netdev does."""

    def net(value: Any) -> None:
        value[0]["xdp"] = [XDP]

    def programs(value: Any) -> None:
        value.append({"id": 4711, "type": "xdp", "name": "cil_xdp_entry", "tag": "00"})

    changes = (
        detached("node1", "eth0", "cil_from_netdev"), json_edit("node1", NET, net),
        json_edit("node1", "bpftool -j prog show", programs),
    )  # fmt: skip
    path = ask(changed(VXLAN, *changes), "client", "pod/web:8080")
    assert finding(path, "no program of Cilium's is attached at eth0 (ingress) of node node1")
