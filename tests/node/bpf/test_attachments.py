"""What is attached at devices and where, against how it was made, and what tc, ip and bpftool say.

bpftool 7.1 knows no tcx: its order is the order in which the test attached.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.bpf import attachments, syscall
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import links as netlink_links
from kubectl_ebpfnet.parse.bpf import tc
from tests.node.bpf import bpf_programs as made
from tests.node.bpf.hook_netns import Net, at, ids, tool

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(made.why_not()), reason=f"no kernel to test: {made.why_not()}"),
]


def test_nothing_attached_is_no_attachment(net: Net) -> None:
    assert [one for one in net.asked() if one.device or one.hook == "sk_lookup"] == []


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_tcx_programs_are_in_the_order_in_which_they_run(net: Net, direction: str) -> None:
    attach_type = {"ingress": made.TCX_INGRESS, "egress": made.TCX_EGRESS}[direction]
    middle, last, first, between = (
        made.load(net.stack, made.SCHED_CLS, name)
        for name in ("middle", "last", "first", "between")
    )
    links = {
        middle: net.link(middle, "a1", attach_type),
        last: net.link(last, "a1", attach_type, made.AFTER, middle),
        first: net.link(first, "a1", attach_type, made.BEFORE),
        between: net.link(between, "a1", attach_type, made.BEFORE, last),
    }
    found = at(net.asked(), f"tcx/{direction}", "a1")
    order = (first, middle, between, last)
    assert ids(found) == [made.id_of(one) for one in order]
    assert [one.link_id for one in found] == [made.id_of(links[one]) for one in order]
    assert [one.program_name for one in found] == ["first", "middle", "between", "last"]
    assert [one.priority for one in found] == [0, 1, 2, 3]
    other = {"ingress": "egress", "egress": "ingress"}[direction]
    assert at(net.asked(), f"tcx/{other}", "a1") == []


def test_tcx_without_a_link_has_no_link(net: Net) -> None:
    program = made.load(net.stack, made.SCHED_CLS, "unlinked")
    with netns.inside(net.path):
        try:
            # Detached by the namespace's end: a detach from here would be another namespace's.
            made.bpf(made.PROG_ATTACH, made.attach_attr(program, net.index("a1"), made.TCX_INGRESS))
        except OSError as error:
            pytest.skip(f"this kernel has no tcx: {error}")
    (found,) = at(net.asked(), "tcx/ingress", "a1")
    assert (found.program_id, found.link_id, found.pin) == (made.id_of(program), None, "")


def test_links_say_where_they_are_pinned(net: Net, pins: Path) -> None:
    program = made.load(net.stack, made.SCHED_CLS, "p")
    link = net.link(program, "a1", made.TCX_INGRESS)
    bare = net.link(made.load(net.stack, made.SCHED_CLS, "q"), "a1", made.TCX_INGRESS)
    path = made.pin(link, pins / "cilium/endpoints/448/links/cil_from_container")
    for n in range(3):  # programs among them are no links
        made.pin(program, pins / f"cilium/endpoints/448/links/program{n}")
    found = {one.link_id: one.pin for one in at(net.asked(), "tcx/ingress", "a1")}
    assert found == {made.id_of(link): str(path), made.id_of(bare): ""}


def test_filters_are_as_tc_shows_them(net: Net, pins: Path) -> None:
    one, two = (
        made.pin(made.load(net.stack, made.SCHED_CLS, name), pins / name) for name in ("one", "two")
    )
    net.run("tc qdisc add dev a1 clsact")
    for words in (
        f"ingress pref 9 bpf da pinned {one}",
        f"ingress pref 3 bpf pinned {two} classid 1:1",
        f"ingress pref 3 handle 7 bpf da pinned {one}",
        f"ingress pref 3 handle 5 bpf da pinned {two}",
        f"ingress pref 5 protocol ip bpf da pinned {two}",
        "ingress pref 6 protocol ip u32 match u32 0 0",
        f"egress pref 1 bpf da pinned {two}",
    ):
        net.run(f"tc filter add dev a1 {words}")
    classic = ("pref", "4", "bpf", "da", "bytecode", "1,6 0 0 4294967295,")
    made.inside(net.name, *["tc", "filter", "add", "dev", "a1", "ingress"], *classic)
    found = net.asked()
    for direction in ("ingress", "egress"):
        shown = tc.filters(net.run(f"tc filter show dev a1 {direction}").encode(), "a1", direction)
        own = at(found, f"clsact/{direction}", "a1")
        ordered = sorted(shown, key=lambda a: a.priority)
        assert [essence(a) for a in own] == [essence(a) for a in ordered]
        listed = json.loads(net.run("bpftool -j net show"))[0]["tc"]
        theirs = [a["id"] for a in listed if a["kind"] == f"clsact/{direction}" and "id" in a]
        assert sorted(id for id in ids(own) if id) == sorted(theirs)
    ingress = at(found, "clsact/ingress", "a1")
    assert [a.priority for a in ingress] == [3, 3, 3, 4, 5, 6, 9]
    assert {a.program_name for a in ingress} == {"one", "two", ""}  # "" is the classic BPF one
    assert [a.direct_action for a in ingress if not a.classifier].count(False) == 1
    assert [(a.classifier, a.protocol) for a in ingress[4:6]] == [("", "ip"), ("u32", "ip")]


def essence(a: Attachment) -> tuple[object, ...]:
    """What both ways of asking tell."""
    return (a.priority, a.program_id, a.tag, a.direct_action, a.classifier, a.protocol)


def test_filters_of_other_chains_run_last(net: Net, pins: Path) -> None:
    paths = [
        made.pin(made.load(net.stack, made.SCHED_CLS, f"p{n}"), pins / f"p{n}") for n in range(2)
    ]
    net.run("tc qdisc add dev a1 clsact")
    net.run(f"tc filter add dev a1 ingress chain 4 pref 1 bpf da pinned {paths[0]}")
    net.run(f"tc filter add dev a1 ingress pref 2 bpf da pinned {paths[1]}")
    found = at(net.asked(), "clsact/ingress", "a1")
    assert [(one.program_name, one.priority) for one in found] == [("p1", 2), ("p0", 1)]


def test_an_ingress_qdisc_has_filters_too(net: Net, pins: Path) -> None:
    path = made.pin(made.load(net.stack, made.SCHED_CLS, "p"), pins / "p")
    net.run("tc qdisc add dev a1 ingress")
    net.run(f"tc filter add dev a1 ingress pref 2 bpf da pinned {path}")
    assert [one.hook for one in net.asked() if one.device] == ["clsact/ingress"]


@pytest.mark.parametrize("mode", ["xdpgeneric", "xdpdrv"])
def test_xdp_by_netlink_is_as_ip_shows_it(net: Net, pins: Path, mode: str) -> None:
    path = made.pin(made.load(net.stack, made.XDP, "cil_xdp_entry", 2), pins / "x")
    net.run(f"ip link set dev a1 {mode} pinned {path}")
    shown = json.loads(net.run("ip -j -d link show dev a1"))[0]["xdp"]["prog"]
    (found,) = at(net.asked(), "xdp", "a1")
    assert (found.program_id, found.tag) == (shown["id"], shown["tag"])
    assert (found.program_name, found.link_id) == ("cil_xdp_entry", None)
    (listed,) = json.loads(net.run("bpftool -j net show"))[0]["xdp"]
    assert (listed["devname"], listed["id"]) == ("a1", found.program_id)


def test_xdp_by_a_link_says_the_link_and_its_pin(net: Net, pins: Path) -> None:
    program = made.load(net.stack, made.XDP, "cil_xdp_entry", 2, made.AT_XDP)
    link = net.link(program, "b1", made.AT_XDP, made.XDP_GENERIC)
    path = made.pin(link, pins / "cilium/devices/b1/links/cil_xdp_entry")
    (found,) = at(net.asked(), "xdp", "b1")
    assert (found.program_id, found.link_id) == (made.id_of(program), made.id_of(link))
    assert found.pin == str(path)
    (listed,) = [one for one in tool("bpftool", "-j", "link", "show") if one["id"] == found.link_id]
    assert (listed["type"], listed["prog_id"]) == ("xdp", found.program_id)


def test_hooks_of_a_device_are_in_the_way_of_a_packet(net: Net, pins: Path) -> None:
    path = made.pin(made.load(net.stack, made.SCHED_CLS, "filter"), pins / "filter")
    net.run("tc qdisc add dev a1 clsact")
    for direction in ("egress", "ingress"):
        net.run(f"tc filter add dev a1 {direction} bpf da pinned {path}")
        attach_type = {"ingress": made.TCX_INGRESS, "egress": made.TCX_EGRESS}[direction]
        net.link(made.load(net.stack, made.SCHED_CLS, "tcx"), "a1", attach_type)
    program = made.load(net.stack, made.XDP, "xdp", 2, made.AT_XDP)
    net.link(program, "a1", made.AT_XDP, made.XDP_GENERIC)
    assert [one.hook for one in net.asked() if one.device] == [
        "xdp", "tcx/ingress", "clsact/ingress", "tcx/egress", "clsact/egress",
    ]  # fmt: skip


def test_devices_are_as_ip_shows_them(net: Net) -> None:
    net.run("ip link add br0 type bridge")
    net.run("ip link add vx0 type vxlan id 1 dstport 4789")
    shown = json.loads(net.run("ip -j -d link"))
    with netns.inside(net.path):
        found = [(one.index, one.name, one.kind) for one in netlink_links.devices()]
    assert len(found) == 9
    assert found == [
        (one["ifindex"], one["ifname"], one.get("linkinfo", {}).get("info_kind", ""))
        for one in shown
    ]


def test_netkit_is_asked_at_netkit_devices_alone(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernels of CI have no netkit: tcx hooks and veth devices stand in for it.
    for device in ("a1", "b1"):
        net.link(made.load(net.stack, made.SCHED_CLS, device), device, made.TCX_EGRESS)
    real = netlink_links.devices

    def one_is_netkit() -> list[netlink_links.NetDevice]:
        return [replace(one, kind="netkit") if one.name == "a1" else one for one in real()]

    def peers_are_refused(target: int, attach_type: int, flags: int = 0) -> list[tuple[int, int]]:
        if attach_type == syscall.NETKIT_PEER:
            raise KernelError("ask for programs: Permission denied", errno.EACCES)
        return query(target, attach_type, flags)

    query = syscall.query
    monkeypatch.setattr(attachments, "devices", one_is_netkit)
    monkeypatch.setattr(syscall, "query", peers_are_refused)
    monkeypatch.setitem(attachments._NETKIT, "primary", made.TCX_EGRESS)
    found = [(one.device, one.hook) for one in net.asked() if one.device]
    assert found == [("a1", "netkit/primary"), ("a1", "tcx/egress"), ("b1", "tcx/egress")]


def test_devices_can_be_named(net: Net) -> None:
    for device in ("a1", "b1", "c1"):
        net.link(made.load(net.stack, made.SCHED_CLS, device), device, made.TCX_INGRESS)
    assert [one.device for one in net.asked() if one.device] == ["a1", "b1", "c1"]
    assert [one.device for one in net.asked("c1", "a1") if one.device] == ["a1", "c1"]
    assert [one.device for one in net.asked("nosuch") if one.device] == []


_WITHOUT_RIGHTS = """
import os, sys
sys.path[:] = sys.argv[1].split(":")
from kubectl_ebpfnet.node.bpf import attachments  # while the files can be read
from kubectl_ebpfnet.node.server.answer import whole_answer
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
os.setresuid(65534, 65534, 65534)
said = whole_answer(NodeRequest(1, node_argv("attachments")))
assert said.exit_code == 0 and "Operation not permitted" in said.error, said
sys.stdout.buffer.write(said.stdout)
"""


def test_what_is_refused_does_not_hide_the_rest_and_is_told(net: Net, pins: Path) -> None:
    path = made.pin(made.load(net.stack, made.SCHED_CLS, "named", 1), pins / "filter")
    xdp = made.pin(made.load(net.stack, made.XDP, "cil_xdp_entry", 2), pins / "xdp")
    net.run("tc qdisc add dev a1 clsact")
    net.run(f"tc filter add dev a1 ingress pref 3 bpf da pinned {path}")
    net.run(f"ip link set dev a1 xdpgeneric pinned {xdp}")
    full = [one for one in net.asked() if one.device]
    argv = (sys.executable, "-c", _WITHOUT_RIGHTS, ":".join(sys.path))
    said = made.inside(net.name, *argv)
    found = [json.loads(line) for line in said.splitlines()]
    assert [one["hook"] for one in found] == ["xdp", "clsact/ingress"]
    assert [one["program_id"] for one in found] == ids(full)
    assert [one["program_name"] for one in found] == ["", "filter:[*fsobj]"]  # as tc named it
    assert [one.get("tag", "") for one in found] == ["", full[1].tag]


def test_when_nothing_can_be_read_the_first_reason_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise KernelError("list devices: no", 1)

    def refuse_more(*_: object) -> None:
        raise KernelError("more", 1)

    monkeypatch.setattr(attachments, "devices", refuse)
    monkeypatch.setattr(attachments, "Filters", refuse_more)
    monkeypatch.setattr(syscall, "query", refuse_more)
    with pytest.raises(KernelError, match="list devices: no"):
        list(attachments.attachments(NodeRequest(1, node_argv("attachments"))))


def test_an_attach_type_that_the_kernel_does_not_know_is_absent(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.link(made.load(net.stack, made.SCHED_CLS, "in"), "a1", made.TCX_INGRESS)
    net.link(made.load(net.stack, made.SCHED_CLS, "out"), "a1", made.TCX_EGRESS)
    monkeypatch.setitem(attachments._TCX, "ingress", 9999)
    assert [one.hook for one in net.asked() if one.device] == ["tcx/egress"]


def test_time_grows_with_the_devices_and_no_faster(net: Net) -> None:
    far = made.network(net.stack)
    took = []
    for first, end in ((0, 50), (50, 250)):
        names = range(first, end)
        lines = "".join(f"link add v{n} type veth peer name p{n} netns {far}\n" for n in names)
        subprocess.run(("ip", "-n", net.name, "-batch", "-"), input=lines, text=True, check=True)
        for n in names:
            program = made.load(net.stack, made.SCHED_CLS, f"p{n}")
            net.link(program, f"v{n}", made.TCX_INGRESS)
        seconds = []
        for _ in range(7):  # the machine may be busy with other things
            start = time.perf_counter()
            found = net.asked()
            seconds.append(time.perf_counter() - start)
        assert [one.program_name for one in found if one.device] == [f"p{n}" for n in range(end)]
        took.append(min(seconds))
    assert took[1] < 10 * took[0], took  # of five times as many devices
