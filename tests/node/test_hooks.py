"""What is attached where, against what it was made with, and what tc, ip and bpftool say.

bpftool 7.1 knows no tcx: its order is the order in which the test attached.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpf_programs as made
import pytest

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.kernel import Attachment
from kubectl_ebpfnet.model.node_side import NodeRequest, PodNamespace, ask
from kubectl_ebpfnet.node import bpf, devices, hooks, netns, tc_ids
from kubectl_ebpfnet.parse import tc

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(made.why_not()), reason=f"no kernel to test: {made.why_not()}"),
]


@dataclass
class Net:
    """A network namespace with the devices a1, b1 and c1."""

    name: str
    stack: ExitStack

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def run(self, command: str) -> str:
        return made.inside(self.name, *command.split())

    def index(self, device: str) -> int:
        with netns.inside(self.path):
            return socket.if_nametoindex(device)

    def asked(self, *devices: str, pod: PodNamespace | None = None) -> list[Attachment]:
        with netns.inside(self.path):
            return list(hooks.attachments(NodeRequest(1, ask("attachments", *devices), pod)))

    def link(
        self, program: int, device: str, attach_type: int, flags: int = 0, near: int = 0
    ) -> int:
        try:
            with netns.inside(self.path):
                index = socket.if_nametoindex(device)
                return made.link(self.stack, program, index, attach_type, flags, near)
        except OSError as error:
            pytest.skip(f"this kernel has no such link: {error}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture
def net(stack: ExitStack) -> Net:
    one = Net(made.network(stack), stack)
    for device in ("a", "b", "c"):
        one.run(f"ip link add {device}1 type veth peer name {device}2")
    return one


@pytest.fixture
def pins(stack: ExitStack, tmp_path: Path) -> Path:
    return made.bpffs(stack, tmp_path / "bpf")


def at(found: list[Attachment], hook: str, device: str = "") -> list[Attachment]:
    return [one for one in found if one.hook == hook and one.device == device]


def ids(found: list[Attachment]) -> list[int | None]:
    return [one.program_id for one in found]


def tool(*argv: str) -> Any:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    return json.loads(subprocess.run(argv, capture_output=True, check=True).stdout or b"[]")


# Devices


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
        shown = tc.filters(
            net.run(f"tc -j filter show dev a1 {direction}").encode(), "a1", direction
        )
        own = at(found, f"clsact/{direction}", "a1")
        essence = [(a.priority, a.program_id, a.tag, a.direct_action) for a in own]
        assert essence == [(a.priority, a.program_id, a.tag, a.direct_action) for a in shown]
        listed = json.loads(net.run("bpftool -j net show"))[0]["tc"]
        theirs = [a["id"] for a in listed if a["kind"] == f"clsact/{direction}" and "id" in a]
        assert sorted(id for id in ids(own) if id) == sorted(theirs)
    ingress = at(found, "clsact/ingress", "a1")
    assert [a.priority for a in ingress] == [3, 3, 3, 4, 5, 9]
    assert {a.program_name for a in ingress} == {"one", "two", ""}  # "" is the classic BPF one
    assert [a.direct_action for a in ingress].count(False) == 1


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
        found = [(one.index, one.name, one.kind) for one in devices.devices()]
    assert len(found) == 9
    assert found == [
        (one["ifindex"], one["ifname"], one.get("linkinfo", {}).get("info_kind", ""))
        for one in shown
    ]


def test_netkit_is_asked_at_netkit_devices_alone(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernels of CI have no netkit: tcx hooks and veth devices stand in for it.
    for device in ("a1", "b1"):
        net.link(made.load(net.stack, made.SCHED_CLS, device), device, made.TCX_EGRESS)
    real = devices.devices

    def one_is_netkit() -> list[devices.Device]:
        return [replace(one, kind="netkit") if one.name == "a1" else one for one in real()]

    def peers_are_refused(target: int, attach_type: int, flags: int = 0) -> list[tuple[int, int]]:
        if attach_type == bpf.NETKIT_PEER:
            raise KernelError("ask for programs: Permission denied", errno.EACCES)
        return query(target, attach_type, flags)

    query = bpf.query
    monkeypatch.setattr(hooks, "devices", one_is_netkit)
    monkeypatch.setattr(bpf, "query", peers_are_refused)
    monkeypatch.setitem(hooks._NETKIT, "primary", made.TCX_EGRESS)
    found = [(one.device, one.hook) for one in net.asked() if one.device]
    assert found == [("a1", "netkit/primary"), ("a1", "tcx/egress"), ("b1", "tcx/egress")]


def test_devices_can_be_named(net: Net) -> None:
    for device in ("a1", "b1", "c1"):
        net.link(made.load(net.stack, made.SCHED_CLS, device), device, made.TCX_INGRESS)
    assert [one.device for one in net.asked() if one.device] == ["a1", "b1", "c1"]
    assert [one.device for one in net.asked("c1", "a1") if one.device] == ["a1", "c1"]
    assert [one.device for one in net.asked("nosuch") if one.device] == []


# What is no device's


def test_sk_lookup_programs_are_in_their_order(net: Net) -> None:
    programs = [
        made.load(net.stack, made.SK_LOOKUP, name, 1, made.AT_SK_LOOKUP) for name in ("one", "two")
    ]
    target = made.opened(net.stack, net.path)
    links = [made.link(net.stack, one, target, made.AT_SK_LOOKUP) for one in programs]
    found = at(net.asked("nosuch"), "sk_lookup")
    assert ids(found) == [made.id_of(one) for one in programs]
    assert [one.link_id for one in found] == [made.id_of(one) for one in links]
    assert [one.priority for one in found] == [0, 1]
    shown = {one["id"]: one for one in tool("bpftool", "-j", "link", "show")}
    inode = os.stat(net.path).st_ino
    assert [shown[made.id_of(one)]["netns_ino"] for one in links] == [inode, inode]


def connect4(stack: ExitStack, name: str) -> int:
    return made.load(stack, made.CGROUP_SOCK_ADDR, name, 1, made.INET4_CONNECT)


def linked(stack: ExitStack, program: int, cgroup: Path, flags: int = 0) -> int:
    try:
        return made.link(stack, program, made.opened(stack, cgroup), made.INET4_CONNECT, flags)
    except OSError as error:
        pytest.skip(f"nothing can be attached to {cgroup} so: {error}")


def test_the_root_cgroup_is_always_asked(net: Net, pins: Path) -> None:
    program = connect4(net.stack, "cil_sock4_conne")
    link = linked(net.stack, program, made.cgroup_top())
    path = made.pin(link, pins / "cilium/socketlb/links/cgroup/cil_sock4_connect")
    found = [one for one in net.asked("a1") if one.program_id == made.id_of(program)]
    (one,) = found
    assert (one.hook, one.cgroup, one.device) == ("cgroup_inet4_connect", "/", "")
    assert (one.link_id, one.pin) == (made.id_of(link), str(path))
    shown = tool("bpftool", "-j", "cgroup", "show", str(made.cgroup_top()))
    connects = [a["id"] for a in shown if a["attach_type"] == "cgroup_inet4_connect"]
    assert ids(at(net.asked(), "cgroup_inet4_connect")) == connects


@dataclass
class Pod:
    """A process in a network namespace and in a cgroup that is named for a pod."""

    uid: str
    cgroup: Path
    container: Path
    namespace: PodNamespace


@pytest.fixture
def pod(net: Net) -> Pod:
    uid = str(uuid.uuid4())
    steps = f"ebpfnet-node-{os.getpid()}/pod{uid.replace('-', '_')}.slice"
    container = made.cgroup(net.stack, f"{steps}/container.scope")
    sleeping = "import sys; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        ("ip", "netns", "exec", net.name, sys.executable, "-c", sleeping),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    net.stack.callback(process.communicate)
    assert process.stdout is not None
    process.stdout.readline()
    (container / "cgroup.procs").write_text(str(process.pid))
    return Pod(uid, container.parent, container, PodNamespace(uid))


def below_top(path: Path) -> str:
    return "/" + str(path.relative_to(made.cgroup_top()))


def test_cgroups_on_the_way_to_a_pod_run_from_the_inside_out(net: Net, pod: Pod) -> None:
    programs = {}
    for place in (pod.cgroup.parent, pod.container, pod.cgroup):
        programs[place] = connect4(net.stack, "way")
        linked(net.stack, programs[place], place)
    inner = connect4(net.stack, "unlinked")
    target = made.opened(net.stack, pod.container)
    made.attach(net.stack, inner, target, made.INET4_CONNECT, made.ALLOW_MULTI)
    found = [
        one for one in at(net.asked(pod=pod.namespace), "cgroup_inet4_connect") if one.cgroup != "/"
    ]
    places = [pod.container, pod.container, pod.cgroup, pod.cgroup.parent]
    assert [one.cgroup for one in found] == [below_top(place) for place in places]
    wanted = [programs[pod.container], inner, programs[pod.cgroup], programs[pod.cgroup.parent]]
    assert ids(found) == [made.id_of(one) for one in wanted]
    assert [one.priority for one in found] == [0, 1, 2, 3]
    assert [one.link_id is None for one in found] == [False, True, False, False]
    argv = ("bpftool", "-j", "cgroup", "show", str(pod.container), "effective")
    assert [one["id"] for one in tool(*argv)][:4] == ids(found)


def test_a_program_may_run_before_those_further_inside(net: Net, pod: Pod) -> None:
    early, inner = connect4(net.stack, "early"), connect4(net.stack, "inner")
    linked(net.stack, inner, pod.container)
    linked(net.stack, early, pod.cgroup, made.PREORDER)
    found = at(net.asked(pod=pod.namespace), "cgroup_inet4_connect")
    own = [one for one in found if one.cgroup != "/"]
    assert ids(own) == [made.id_of(early), made.id_of(inner)]
    assert [one.cgroup for one in own] == [below_top(pod.cgroup), below_top(pod.container)]


def test_all_containers_of_a_pod_are_looked_at(net: Net, pod: Pod) -> None:
    other = made.cgroup(net.stack, f"{below_top(pod.cgroup)[1:]}/other.scope")
    empty = made.cgroup(net.stack, f"{below_top(pod.cgroup)[1:]}/empty.scope")
    process = subprocess.Popen(("sleep", "60"))
    net.stack.callback(process.wait)
    net.stack.callback(process.kill)
    (other / "cgroup.procs").write_text(str(process.pid))
    programs = {
        place: connect4(net.stack, "own") for place in (other, pod.container, empty, pod.cgroup)
    }
    for place, program in programs.items():
        linked(net.stack, program, place)
    found = at(net.asked(pod=pod.namespace), "cgroup_inet4_connect")
    own = [one for one in found if one.cgroup != "/"]
    assert {one.cgroup for one in own[:2]} == {below_top(other), below_top(pod.container)}
    assert [one.cgroup for one in own[2:]] == [below_top(pod.cgroup)]


def test_containers_may_lie_side_by_side_without_a_cgroup_of_the_pod(net: Net) -> None:
    words = [uuid.uuid4().hex for _ in range(3)]
    places = [made.cgroup(net.stack, f"ebpfnet-node-{os.getpid()}/{word}") for word in words]
    programs = []
    for place in places:
        process = subprocess.Popen(("sleep", "60"))
        net.stack.callback(process.wait)
        net.stack.callback(process.kill)
        (place / "cgroup.procs").write_text(str(process.pid))
        programs.append(made.id_of(connect := connect4(net.stack, "own")))
        linked(net.stack, connect, place)
    pod = PodNamespace(str(uuid.uuid4()), (words[0], words[1]))
    found = at(net.asked(pod=pod), "cgroup_inet4_connect")
    assert {one.program_id for one in found if one.cgroup != "/"} == set(programs[:2])


_FROM_A_NAMESPACE = """
import os, sys
from pathlib import Path
sys.path[:] = sys.argv[1].split(":")
from kubectl_ebpfnet.model.node_side import PodNamespace
from kubectl_ebpfnet.node import cgroups
Path(sys.argv[2], "cgroup.procs").write_text(str(os.getpid()))
cgroups._FIRST = Path("/proc", sys.argv[4])
assert cgroups._libc.unshare(cgroups._CLONE_NEWCGROUP) == 0
before = Path("/proc/self/cgroup").read_text()
print(*(one.cgroup for one in cgroups.programs(PodNamespace(sys.argv[3])) if one.cgroup != "/"))
assert Path("/proc/self/cgroup").read_text() == before  # it came back
"""


def test_a_node_pod_with_its_own_cgroup_namespace_sees_other_pods(net: Net, pod: Pod) -> None:
    linked(net.stack, connect4(net.stack, "own"), pod.container)
    reader = made.cgroup(net.stack, f"ebpfnet-node-{os.getpid()}/reader/deep/deeper")
    words = (":".join(sys.path), str(reader), pod.uid, str(os.getpid()))
    argv = (sys.executable, "-c", _FROM_A_NAMESPACE, *words)
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert said.stderr == ""
    assert said.stdout.split() == [below_top(pod.container)]


def test_the_node_does_not_show_cgroups_of_pods(net: Net, pod: Pod) -> None:
    program = connect4(net.stack, "own")
    linked(net.stack, program, pod.container)
    assert made.id_of(program) not in ids(net.asked())


# What cannot be read


_WITHOUT_RIGHTS = """
import os, sys
sys.path[:] = sys.argv[1].split(":")
from pyroute2 import IPRoute  # while the files can be read
from kubectl_ebpfnet.node import hooks, cgroups, filters, links, programs, devices
from kubectl_ebpfnet.model import codec
from kubectl_ebpfnet.model.node_side import NodeRequest, ask
import pyroute2.netlink.exceptions
os.setresuid(65534, 65534, 65534)
sys.stdout.buffer.write(codec.lines(hooks.attachments(NodeRequest(1, ask("attachments")))))
"""


def test_what_is_refused_does_not_hide_the_rest(net: Net, pins: Path) -> None:
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
    assert [one["tag"] for one in found] == ["", full[1].tag]


def test_when_nothing_can_be_read_the_first_reason_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise KernelError("list devices: no", 1)

    def refuse_more(*_: object) -> None:
        raise KernelError("more", 1)

    monkeypatch.setattr(hooks, "devices", refuse)
    monkeypatch.setattr(hooks, "Filters", refuse_more)
    monkeypatch.setattr(bpf, "query", refuse_more)
    with pytest.raises(KernelError, match="list devices: no"):
        hooks.attachments(NodeRequest(1, ask("attachments")))


def test_an_attach_type_that_the_kernel_does_not_know_is_absent(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.link(made.load(net.stack, made.SCHED_CLS, "in"), "a1", made.TCX_INGRESS)
    net.link(made.load(net.stack, made.SCHED_CLS, "out"), "a1", made.TCX_EGRESS)
    monkeypatch.setitem(hooks._TCX, "ingress", 9999)
    assert [one.hook for one in net.asked() if one.device] == ["tcx/egress"]


# pyroute2's tables


def table(*names: str) -> Any:
    return type("options", (), {"nla_map": tuple((name, "uint32") for name in names)})


KNOWN, ADDED = ("ONE", "TWO"), (("THREE", "cdata"), ("FOUR", "hex"))


def test_pyroute2_is_taught_once() -> None:
    from pyroute2.netlink.rtnl import tcmsg

    tc_ids.teach()
    before = tcmsg.sched_bpf.options.nla_map, tcmsg.tcmsg.nla_map
    # As the kernel numbers them.
    assert [row[0] for row in before[0]][10:12] == ["TCA_BPF_TAG", "TCA_BPF_ID"]
    assert before[1][11][0] == "TCA_CHAIN"
    tc_ids.teach()
    assert (tcmsg.sched_bpf.options.nla_map, tcmsg.tcmsg.nla_map) == before


def test_rows_are_put_behind_a_known_table() -> None:
    one = table(*KNOWN)
    assert tc_ids.extend(one, KNOWN, ADDED)
    assert one.nla_map == (("ONE", "uint32"), ("TWO", "uint32"), *ADDED)


def test_a_table_that_has_them_is_left_alone() -> None:
    one = table(*KNOWN, "THREE", "FOUR", "FIVE")
    before = one.nla_map
    assert tc_ids.extend(one, KNOWN, ADDED)
    assert one.nla_map is before


@pytest.mark.parametrize(
    "one",
    [
        table("ONE"),
        table(*KNOWN, "THREE"),
        table("NEW", *KNOWN),
        type("options", (), {}),
        type("options", (), {"nla_map": {"ONE": "none"}}),
    ],
)
def test_another_table_is_not_touched(one: Any) -> None:
    before = getattr(one, "nla_map", None)
    assert not tc_ids.extend(one, KNOWN, ADDED)
    assert getattr(one, "nla_map", None) is before


def test_a_pyroute2_that_cannot_be_taught_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyroute2.netlink.rtnl import tcmsg

    monkeypatch.setattr(tcmsg.sched_bpf.options, "nla_map", (("TCA_BPF_NEW", "hex"),))
    with pytest.raises(Unsupported, match="their programs are not known"):
        tc_ids.teach()


_FILTERS_FIRST = """
import sys
sys.path[:] = sys.argv[1].split(":")
from pyroute2 import IPRoute
from kubectl_ebpfnet.node.filters import Filters
with IPRoute() as netlink:
    (index,) = netlink.link_lookup(ifname="a1")
    assert list(netlink.get_filters(index=index, parent=0xFFFFFFF2))
with Filters() as filters:
    (found,) = filters.of(index, "ingress")
print(found.program, found.chain)
"""


def test_pyroute2_can_be_taught_after_it_has_seen_filters(net: Net, pins: Path) -> None:
    program = made.load(net.stack, made.SCHED_CLS, "p")
    path = made.pin(program, pins / "p")
    net.run("tc qdisc add dev a1 clsact")
    net.run(f"tc filter add dev a1 ingress chain 4 bpf da pinned {path}")
    said = made.inside(net.name, sys.executable, "-c", _FILTERS_FIRST, ":".join(sys.path))
    assert said.split() == [str(made.id_of(program)), "4"]


# Speed


def test_250_devices_take_less_than_100_ms(net: Net) -> None:
    far = made.network(net.stack)
    lines = "".join(f"link add v{n} type veth peer name p{n} netns {far}\n" for n in range(250))
    subprocess.run(("ip", "-n", net.name, "-batch", "-"), input=lines, text=True, check=True)
    for n in range(250):
        program = made.load(net.stack, made.SCHED_CLS, f"p{n}")
        net.link(program, f"v{n}", made.TCX_INGRESS)
    seconds = []
    for _ in range(7):  # the machine may be busy with other things
        start = time.perf_counter()
        found = net.asked()
        seconds.append(time.perf_counter() - start)
    assert [one.program_name for one in found if one.device] == [f"p{n}" for n in range(250)]
    assert min(seconds) < 0.1, seconds
