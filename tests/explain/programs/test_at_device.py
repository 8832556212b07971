"""The programs at a device, and the names that tools give them (cilium-facts 4.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ebpfnet.explain.programs.at_device import Presence, at_device
from kubectl_ebpfnet.explain.programs.roles import OBSERVER, best_name, role_of, socket_role
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, bundle_of, node_place
from kubectl_ebpfnet.model.protocol import codec


@pytest.mark.parametrize(
    "name",
    [
        "cil_from_container",
        "cil_from_container-lxc890578bef1bb",
        "cil_from_container-lxc890578bef1bb:[*fsobj]",
        "cil_from_contai",
        "bpf_lxc.o:[from-container]",
        "from-container",
        "handle_xgress",  # the function of 1.11
    ],
)
def test_every_name_of_the_program_has_its_role(name: str) -> None:
    assert role_of(name).startswith("what leaves the pod")


@pytest.mark.parametrize(
    "name", ["", "my_filter", "cil_from_contain", "cil_from", "prog.o:[classifier]", "[*fsobj]"]
)
def test_programs_of_others_have_none(name: str) -> None:
    assert role_of(name) == ""


def test_a_link_of_another_namespace_is_not_at_the_device_of_that_number() -> None:
    """bpftool 7.5 gives the tcx link of a pod's own eth0 (2) the name of the node's device 2."""
    theirs = {"id": 7, "type": "tcx", "prog_id": 42, "devname": "eth0", "attach_type": "tcx_egress"}
    ours = {"devname": "eth0", "ifindex": 2, "kind": "clsact/egress", "name": "cil_to_netdev",
            "id": 41}  # fmt: skip
    said = {
        ("bpftool", "-j", "net", "show"): [{"xdp": [], "tc": [ours], "flow_dissector": []}],
        ("bpftool", "-j", "-f", "link", "show"): [theirs],
    }
    records = [
        Record(number, agent_place("n1"), argv, 0, InMemory(json.dumps(rows).encode()))
        for number, (argv, rows) in enumerate(said.items(), 1)
    ]
    found = at_device(ClusterView(bundle_of(records)).node("n1"), "eth0", "egress")
    assert [p.attachment.program_id for p in found.programs] == [41]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("to_netdev", "to the network"),
        ("bpf_netdev_eth0.o:[from-netdev]", "from the network"),
        ("bpf_host_cilium_net.o:[to-host]", "to the node's stack"),
        ("sock4_connect", "socket LB: connect()"),
        ("cil_sock4_conne", "socket LB: connect()"),
        ("cil_sock6_recvm", "socket LB: datagrams in"),
        ("netkat_gate", OBSERVER),
        ("netkat:12:345:6", OBSERVER),
    ],
)
def test_names_of_other_versions_and_our_own(name: str, role: str) -> None:
    assert role_of(name).startswith(role)


def test_a_nameless_program_of_a_cgroup_has_the_role_of_its_hook() -> None:
    assert socket_role("cgroup_inet4_connect") == "socket LB: connect()"
    assert socket_role("cgroup_inet6_getpeername") == "socket LB: peer's name"
    assert socket_role("cgroup_device") == ""


@pytest.mark.parametrize(
    ("attached", "loaded", "best"),
    [
        ("bpf_overlay.o:[to-overlay]", "cil_to_overlay", "cil_to_overlay"),  # 1.13, by agent
        ("cil_to_overlay", "cil_to_overlay", "cil_to_overlay"),  # and by node pod
        ("bpf_lxc.o:[from-container]", "", "bpf_lxc.o:[from-container]"),  # 1.9
        ("bpf_lxc.o:[from-container]", "handle_xgress", "bpf_lxc.o:[from-container]"),  # 1.11
        ("cil_from_netdev-eth0", "cil_from_netdev", "cil_from_netdev"),
        ("cil_from_container", "cil_from_contai", "cil_from_container"),  # a pin
        ("", "filter_tc", "filter_tc"),
    ],
)
def test_the_best_name(attached: str, loaded: str, best: str) -> None:
    assert best_name(attached, loaded) == best


NET = ("bpftool", "-j", "net", "show")
LINKS = ("bpftool", "-j", "-f", "link", "show")
PIN = "/sys/fs/bpf/cilium/endpoints/845/links/cil_from_container"
LS = "/sys/fs/bpf/cilium/endpoints/845/links:\ncil_from_container\n"
LXC = "lxc1"


def agent(**said: Any) -> NodeView:
    """A node by its agent: `net` rows, `links` rows, `pins` and `tc` as text."""
    argvs = {
        "net": NET,
        "links": LINKS,
        "pins": ("ls", "-R", "/sys/fs/bpf"),
        "tc": ("tc", "filter", "show", "dev", LXC, "ingress"),
        "status": ("cilium-dbg", "status", "-o", "json"),
    }
    texts = {
        name: rows if isinstance(rows, str) else json.dumps(rows) for name, rows in said.items()
    }
    records = [
        Record(number, agent_place("n1"), argvs[name], 0, InMemory(text.encode()))
        for number, (name, text) in enumerate(texts.items(), 1)
    ]
    return ClusterView(bundle_of(records)).node("n1")


def listed(*rows: dict[str, object]) -> list[dict[str, object]]:
    """`bpftool net` with these programs of tc."""
    return [{"xdp": [], "tc": list(rows), "flow_dissector": []}]


HEALTH = {"devname": "lxc_health", "kind": "tcx/ingress", "name": "cil_from_container", "id": 1}
LINK = {"id": 3, "type": "tcx", "prog_id": 4, "attach_type": "tcx_ingress", "pinned": [PIN]}
DETACHED = {**LINK, "devname": "(detached)", "ifindex": 0}


@pytest.mark.parametrize(
    ("node", "presence", "detached"),
    [
        # The fault v26: the pin is there, its link is attached to nothing.
        (agent(net=listed(HEALTH), links=[DETACHED], pins=LS), Presence.ABSENT, 1),
        (agent(links=[DETACHED], pins=LS), Presence.ABSENT, 1),
        (agent(links=[{**LINK, "devname": LXC, "ifindex": 9}], pins=LS), Presence.PRESENT, 0),
        # bpftool 7.1 prints the type as a number, and no device; it does not list tcx.
        (agent(net=listed(), links=[{**LINK, "type": 11}], pins=LS), Presence.UNKNOWN, 0),
        (agent(pins=LS), Presence.UNKNOWN, 0),
        (agent(net=listed(), pins="/sys/fs/bpf:\ntc\n"), Presence.ABSENT, 0),
        # tc alone shows no tcx, unless the agent says that it uses none.
        (agent(tc=""), Presence.UNKNOWN, 0),
        (agent(tc="", status={"attach-mode": "tc"}), Presence.ABSENT, 0),
        (agent(), Presence.UNKNOWN, 0),
    ],
)
def test_a_pins_name_is_no_attachment(node: NodeView, presence: Presence, detached: int) -> None:
    found = at_device(node, LXC, "ingress", 845)
    assert found.cilium is presence
    assert len(found.detached) == detached
    assert (found.missing == "") == (presence is not Presence.UNKNOWN)


@pytest.mark.parametrize(
    ("stderr", "presence"),
    [
        ("", Presence.ABSENT),
        # What could not be asked of cgroups takes nothing from a device.
        ("ask for programs of attach type 2: Bad file descriptor", Presence.ABSENT),
        ("ask for programs of attach type 46: Operation not permitted", Presence.UNKNOWN),
        ("list tc filters: Operation not permitted", Presence.UNKNOWN),
    ],
)
def test_gaps_of_a_node_pods_answer(stderr: str, presence: Presence) -> None:
    argv = ("ebpfnet-node", "attachments")
    record = Record(1, node_place("n1"), argv, 0, InMemory(), stderr.encode())
    found = at_device(ClusterView(bundle_of([record])).node("n1"), LXC, "ingress", 845)
    assert found.cilium is presence
    assert found.missing == ("" if presence is Presence.ABSENT else stderr)


def test_a_nameless_program_that_uses_ciliums_maps_is_ciliums() -> None:
    """Programs of 1.9 have no name; here tc's filter has none either."""
    programs = [{"id": n, "type": "sched_cls", "map_ids": [10 + n, 30]} for n in (1, 2)]
    programs.append({"id": 3, "type": "sched_cls", "map_ids": [99]})
    section = "bpf_netdev_eth0.o:[to-netdev]"
    rows = [
        {"devname": "eth0", "kind": "clsact/egress", "name": section, "id": 1},
        {"devname": LXC, "kind": "clsact/ingress", "id": 2},
        {"devname": "lxc2", "kind": "clsact/ingress", "id": 3},
    ]
    said = {NET: listed(*rows), ("bpftool", "-j", "prog", "show"): programs}
    records = [
        Record(number, agent_place("n1"), argv, 0, InMemory(json.dumps(value).encode()))
        for number, (argv, value) in enumerate(said.items(), 1)
    ]
    node = ClusterView(bundle_of(records)).node("n1")
    assert at_device(node, LXC, "ingress").cilium is Presence.PRESENT
    theirs = at_device(node, "lxc2", "ingress")
    assert theirs.cilium is Presence.UNKNOWN  # no name tells whose it is


@pytest.mark.parametrize(
    ("direction", "order"),
    [
        ("ingress", ["xdp", "netkit/peer", "tcx/ingress", "clsact/ingress"]),
        ("egress", ["tcx/egress", "clsact/egress", "netkit/primary"]),
    ],
)
def test_the_kernel_runs_them_in_this_order(direction: str, order: list[str]) -> None:
    """A netkit pair's programs run as it transmits (drivers/net/netkit.c)."""
    hooks = ["clsact/egress", "netkit/primary", "clsact/ingress", "tcx/ingress", "netkit/peer",
             "xdp", "tcx/egress"]  # fmt: skip
    facts = [Attachment(hook, "eth0", "p", number) for number, hook in enumerate(hooks, 1)]
    stdout = InMemory(b"".join(map(codec.line_of, facts)))
    record = Record(1, node_place("n1"), ("ebpfnet-node", "attachments"), 0, stdout)
    found = at_device(ClusterView(bundle_of([record])).node("n1"), "eth0", direction)
    assert [program.attachment.hook for program in found.programs] == order
    chains = [program.chain for program in found.programs]
    assert chains == [hook.partition("/")[0].replace("tcx", "tc").replace("clsact", "tc")
                      for hook in order]  # fmt: skip
