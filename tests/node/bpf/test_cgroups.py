"""Programs of cgroups and of sk_lookup, against how they were attached and what bpftool says."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from tests.node.bpf import bpf_programs as made
from tests.node.bpf.hook_netns import Net, at, ids, tool

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(made.why_not()), reason=f"no kernel to test: {made.why_not()}"),
]


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
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.node.bpf import cgroups
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
