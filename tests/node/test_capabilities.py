"""What a kernel is: the same as uname(2), /proc, findmnt(8) and headers say; what it refuses."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node import capabilities as node_kernel
from kubectl_ebpfnet.node.bpf import syscall

HEADER = Path("/usr/include/linux/capability.h")
ROOT = sys.platform.startswith("linux") and os.geteuid() == 0
as_root = [
    pytest.mark.kernel,
    pytest.mark.skipif(not ROOT, reason="not root"),
    pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv"),
]
EVERYTHING = (
    "BPF programs cannot be listed", "programs at tcx hooks", "pods' network namespaces",
    "nf_conntrack cannot be read",
)  # fmt: skip


def facts() -> KernelFacts:
    (one,) = node_kernel.facts(NodeRequest(1, ("ebpfnet-node", "kernel")))
    return one


def facts_of(*wrapping: str) -> KernelFacts:
    """The facts of a node side that runs inside other words, e.g. setpriv's."""
    argv = (*wrapping, sys.executable, "-m", "kubectl_ebpfnet.node", "ask", "kernel")
    done = subprocess.run(argv, capture_output=True, check=True, timeout=30)
    fact = codec.fact(done.stdout, KernelFacts)
    assert isinstance(fact, KernelFacts)
    return fact


def without(*capabilities: str) -> KernelFacts:
    dropped = ",".join(f"-{name}" for name in capabilities)
    return facts_of("setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}")


def effective() -> int:
    found = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.M)
    assert found
    return int(found[1], 16)


def test_the_machine_is_as_python_and_proc_know_it() -> None:
    before = time.monotonic()
    one = facts()
    assert (one.release, one.machine) == (platform.release(), platform.machine())
    assert one.monotonic_seconds is not None
    assert before <= one.monotonic_seconds <= time.monotonic()
    assert one.boot_seconds is not None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(one.boot_seconds - uptime) < 5
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    assert one.bpf_stats is (bool(int(switch.read_text())) if switch.exists() else None)


def test_capabilities_have_the_names_of_the_header() -> None:
    if not HEADER.exists():
        pytest.skip("no linux/capability.h")
    pairs = re.findall(r"^#define (CAP_\w+)\s+(\d+)\s*$", HEADER.read_text(), re.M)
    names = {int(number): name for name, number in pairs}
    assert len(names) > 37
    assert {number: node_kernel._capability(number) for number in names} == names
    assert node_kernel._capability(63) == "CAP_63"
    held = {names.get(bit, f"CAP_{bit}") for bit in range(64) if effective() >> bit & 1}
    assert set(facts().capabilities) == held
    assert list(facts().capabilities) == sorted(held)


def test_mounts_are_as_findmnt_lists_them() -> None:
    if not shutil.which("findmnt"):
        pytest.skip("no findmnt")

    def listed(kind: str) -> list[str]:
        argv = ("findmnt", "-rno", "TARGET", "-t", kind)
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split("\n")

    one = facts()
    for path, kind in ((one.cgroup2, "cgroup2"), (one.bpffs, "bpf")):
        targets = [target for target in listed(kind) if target]
        if targets:
            assert path in targets
        elif not path.startswith("/proc/1/root"):
            assert path == ""


class TestRefusals:
    pytestmark = as_root

    def test_without_any_capability_each_thing_is_named(self) -> None:
        one = without("all")
        assert one.capabilities == ()
        for words in EVERYTHING:
            (problem,) = (said for said in one.problems if said.startswith(words))
            # By name, so that an administrator knows what to add.
            assert re.search(r"\(CAP_\w+( and CAP_\w+)* would allow it\)$", problem), problem

    def test_what_one_capability_allows_is_named_with_it(self) -> None:
        held = set(facts().capabilities)
        if not {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} <= held:
            pytest.skip("this root has too few capabilities")
        usual = set(facts().problems)
        new = set(without("net_admin").problems) - usual
        # CAP_SYS_ADMIN stands in for CAP_NET_ADMIN where BPF is asked, not where netlink is.
        (problem,) = new
        assert problem.startswith("nf_conntrack cannot be read: ")
        assert problem.endswith("(CAP_NET_ADMIN would allow it)")
        new = set(without("sys_admin").problems) - usual
        assert any(
            said.startswith("BPF programs cannot be listed")
            and said.endswith("(CAP_SYS_ADMIN would allow it)")
            for said in new
        )

    def test_a_kernel_that_refuses_nothing_has_no_such_problem(self) -> None:
        one = facts()
        assert {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} <= set(one.capabilities), "root without rights"
        assert not [said for said in one.problems if "CAP_NET_ADMIN" in said]
        assert not [said for said in one.problems if said.startswith("BPF programs")]


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of our own with a map that is pinned as Cilium pins its maps."""
    where = tmp_path / "bpf"
    where.mkdir()
    done = subprocess.run(("mount", "-t", "bpf", "bpf", str(where)), capture_output=True)
    if done.returncode:
        pytest.skip(f"no bpffs: {done.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(("umount", str(where)), check=True)


@pytest.mark.kernel
@pytest.mark.skipif(not ROOT, reason="not root")
def test_ciliums_maps_are_known_by_their_pins(bpffs: Path) -> None:
    if not shutil.which("bpftool"):
        pytest.skip("no bpftool")
    folder = bpffs / "tc" / "globals"
    folder.mkdir(parents=True)
    words = "type hash key 4 value 4 entries 1 name x flags 0"
    for name in ("cilium_metrics", "cilium_ct4_global", "another"):
        argv = ("bpftool", "map", "create", str(folder / name), *words.split())
        subprocess.run(argv, check=True, capture_output=True)
    # A mount namespace of its own: the bpffs of a real Cilium must not be in the way.
    unmount = (
        'for one in $(findmnt -rno TARGET -t bpf); do [ "$one" = "$1" ] || umount "$one"; done'
    )
    alone = ("unshare", "-m", "sh", "-c", f'{unmount}; shift; exec "$@"', "sh", str(bpffs))
    one = facts_of(*alone)
    assert one.bpffs == str(bpffs)
    assert one.cilium_maps == ("cilium_ct4_global", "cilium_metrics")
    assert not [said for said in one.problems if "Cilium" in said or "bpffs" in said]
    for name in one.cilium_maps:
        os.close(syscall.open_pinned(folder / name))


def test_a_map_that_cannot_be_opened_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> int:
        raise KernelError(f"open {path}: Operation not permitted", errno.EPERM)

    folder = Path("/sys/fs/bpf/tc/globals")
    monkeypatch.setattr(node_kernel, "_cilium", lambda: (folder, ("cilium_lxc",)))
    monkeypatch.setattr(node_kernel, "_capabilities", tuple)
    monkeypatch.setattr(syscall, "open_pinned", refuse)
    (said,) = (one for one in facts().problems if one.startswith("Cilium's maps"))
    assert said == (
        f"Cilium's maps cannot be opened: open {folder}/cilium_lxc: Operation not permitted"
        " (CAP_BPF would allow it)"
    )
