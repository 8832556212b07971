"""Programs of somebody else at the cgroups of the sockets at both ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, pod_place
from kubectl_ebpfnet.model.path import Path, Verdict
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from tests.explain.path.attempted import attempt
from tests.explain.path.changed import VXLAN, ask, changed, fail, swap

TREE = "bpftool cgroup tree /run/cilium/cgroupv2"
ROOT = "/run/cilium/cgroupv2"
CLIENT, WEB = "bcb1a8d2-c693-4909-a624-b33382361adf", "bd1fea85-6de8-4bb8-8f93-3507210d78ce"
HEAD = "AttachFlags     Name           \n"
KUBEPODS = "/kubepods.slice/kubepods-burstable.slice"


def slice_of(uid: str) -> str:
    pod = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    return f"{KUBEPODS}/{pod}/cri-containerd-1f.scope"


@pytest.fixture(autouse=True)
def nothing_of_now() -> Iterator[None]:
    with attempt(600.0):
        yield


def at(node: str, hook: str, cgroup: str, name: str = "guard") -> Bundle:
    """The recorded cluster with a program more in the tree of a node's cgroups."""
    rows = f"{ROOT}{cgroup}\n9001     {hook}     multi           {name}   \n"
    return changed(VXLAN, swap(node, TREE, HEAD, HEAD + rows))


def undecided(path: Path, what: str) -> bool:
    assert path.fix is not None or path.verdict is not Verdict.UNKNOWN
    return path.verdict is Verdict.UNKNOWN and what in path.reason


@pytest.mark.parametrize(
    ("node", "hook", "cgroup"),
    [
        ("node2", "cgroup_inet4_connect", ""),
        ("node2", "cgroup_inet4_connect", KUBEPODS),
        ("node2", "connect4", slice_of(CLIENT)),
        ("node2", "cgroup_inet_sock_create", f"/kubepods/burstable/pod{CLIENT}/c1"),
        ("node2", "cgroup_inet_egress", slice_of(CLIENT)),
        ("node1", "cgroup_inet_ingress", slice_of(WEB)),
        ("node1", "cgroup_inet_egress", ""),  # the answer's
        ("node2", "cgroup_inet_ingress", slice_of(CLIENT)),
    ],
)
def test_one_on_the_way_may_lose_it(node: str, hook: str, cgroup: str) -> None:
    path = ask(at(node, hook, cgroup), "client", "pod/web:8080")
    assert undecided(path, f"at cgroup {cgroup or '/'} does with the packet"), path.reason
    assert path.fix is not None
    assert path.fix.command == "bpftool prog dump xlated id 9001"


@pytest.mark.parametrize(
    ("node", "hook", "cgroup"),
    [
        ("node2", "cgroup_inet6_connect", ""),  # of another IP version
        ("node2", "cgroup_udp4_sendmsg", ""),  # of another protocol
        ("node2", "cgroup_device", slice_of(CLIENT)),
        ("node2", "cgroup_inet4_connect", slice_of(WEB)),  # of another pod
        ("node2", "cgroup_inet_egress", "/system.slice/systemd-logind.service"),
        ("node1", "cgroup_inet4_connect", ""),  # at the end that does not connect
    ],
)
def test_one_that_is_not_on_the_way_is_not_mentioned(node: str, hook: str, cgroup: str) -> None:
    path = ask(at(node, hook, cgroup), "client", "pod/web:8080")
    assert path.verdict is Verdict.REACHABLE, path.reason
    assert not any("guard" in hop.summary for hop in path.hops)


def test_a_datagram_meets_those_of_sendmsg_and_connect() -> None:
    for hook in ("cgroup_udp4_sendmsg", "cgroup_inet4_connect"):
        path = ask(at("node2", hook, ""), "client", "pod/web:53", "udp")
        assert undecided(path, "at cgroup / does"), path.reason


def test_one_of_ciliums_is_told_apart() -> None:
    path = ask(at("node2", "cgroup_inet4_connect", "", "cil_sock4_connect"), "client", "pod/web:80")
    assert path.verdict is not Verdict.UNKNOWN, path.reason


def test_what_is_answered_now_was_let_pass() -> None:
    with attempt(5.0):
        path = ask(at("node2", "cgroup_inet4_connect", ""), "client", "svc/web")
    assert path.verdict is Verdict.DELIVERED, path.reason
    assert any("guard" in hop.summary and "it let this flow pass" in hop.summary
               for hop in path.hops)  # fmt: skip


def test_a_tree_that_nobody_read_is_presumed() -> None:
    path = ask(changed(VXLAN, fail("node2", TREE, "Error: can't get cgroup")), "client", "pod/web")
    assert "programs at the cgroups of pod default/client (`bpftool cgroup tree`)" in path.presumed


def told(place: str, *programs: tuple[str, str]) -> Record:
    """What a node pod reads of a pod's namespace and cgroups."""
    found = (Attachment(hook, "", name, 77, cgroup="/kubepods") for hook, name in programs)
    stdout = b"".join(map(codec.line_of, found))
    return Record(0, pod_place("default", place), node_argv("attachments"), 0, InMemory(stdout))


def test_by_a_node_pod_those_of_the_pods_processes_are_known() -> None:
    ciliums = ("cgroup_inet4_connect", "cil_sock4_connect")
    foreign = ("cgroup_inet4_connect", "guard")
    path = ask(changed(VXLAN, more=(told("client", ciliums),)), "client", "pod/web:8080")
    assert path.verdict is Verdict.REACHABLE, path.reason
    path = ask(changed(VXLAN, more=(told("client", foreign, ciliums),)), "client", "pod/web:8080")
    assert undecided(path, "at cgroup /kubepods does"), path.reason


def test_a_program_at_the_pods_own_device_may_lose_the_answer() -> None:
    xdp = Attachment("xdp", "eth0", "guard", 77)
    record = Record(0, pod_place("default", "client"), node_argv("attachments"), 0,
                    InMemory(codec.line_of(xdp)))  # fmt: skip
    path = ask(changed(VXLAN, more=(record,)), "client", "pod/web:8080")
    assert path.verdict is Verdict.UNKNOWN, path.reason
    assert "of the way back: what guard (xdp, id 77) at eth0 does" in path.reason
