"""Programs at the socket hooks of cgroups: of the root, and on the way to a pod's processes.

Sources: cgroups(7), cgroup_namespaces(7), include/uapi/linux/bpf.h (enum bpf_attach_type),
kernel/bpf/cgroup.c: for a socket, the programs of its own cgroup run before its ancestors', and
that order is what BPF_F_QUERY_EFFECTIVE says.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.host import mounts, netns

# enum bpf_attach_type and bpftool's words, in the order of a socket's life. Types that have
# nothing to do with packets (cgroup_device, cgroup_sysctl, Unix sockets) are left out.
ATTACH_TYPES = {
    2: "cgroup_inet_sock_create",
    8: "cgroup_inet4_bind",
    9: "cgroup_inet6_bind",
    12: "cgroup_inet4_post_bind",
    13: "cgroup_inet6_post_bind",
    10: "cgroup_inet4_connect",
    11: "cgroup_inet6_connect",
    29: "cgroup_inet4_getpeername",
    30: "cgroup_inet6_getpeername",
    31: "cgroup_inet4_getsockname",
    32: "cgroup_inet6_getsockname",
    14: "cgroup_udp4_sendmsg",
    15: "cgroup_udp6_sendmsg",
    19: "cgroup_udp4_recvmsg",
    20: "cgroup_udp6_recvmsg",
    22: "cgroup_setsockopt",
    21: "cgroup_getsockopt",
    3: "cgroup_sock_ops",
    0: "cgroup_inet_ingress",
    1: "cgroup_inet_egress",
    34: "cgroup_inet_sock_release",
}
_EFFECTIVE = 1  # BPF_F_QUERY_EFFECTIVE
_TOP_INODE = 1  # of the hierarchy's real root, whatever part of it is mounted
_FIRST = netns.PROC / "1"  # the node's first process, where hostPID shows it
_CLONE_NEWCGROUP = 0x02000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class CgroupProgram:
    """A program at a hook of a cgroup.

    Attributes:
        attach_type: of ATTACH_TYPES.
        program: its id.
        cgroup: path below the hierarchy's root.
        cgroup_id: kernfs id, which a bpf_link says too.
        position: 0 runs first.
    """

    attach_type: int
    program: int
    cgroup: str
    cgroup_id: int
    position: int


def programs(pod: PodNamespace | None) -> Iterator[CgroupProgram]:
    """The programs that run for sockets, by hook, in the order in which they run.

    Args:
        pod: whose processes' cgroups are meant; None for the root of the hierarchy alone.

    Raises:
        KernelError: no cgroup v2 hierarchy is mounted here, or the kernel refuses.
    """
    top = _top()
    leaves = [""] if pod is None else _leaves(pod, top)
    opened: dict[str, tuple[int, int]] = {}
    try:
        for path in dict.fromkeys(step for leaf in leaves for step in _way(leaf)):
            try:
                fd = os.open(f"{top}/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # its processes have ended
            opened[path] = fd, os.fstat(fd).st_ino
        for attach_type in ATTACH_TYPES:
            yield from _at_hook(attach_type, leaves, opened)
    except OSError as error:
        raise KernelError(f"open a cgroup: {error.strerror}", error.errno or 0) from None
    finally:
        for fd, _ in opened.values():
            os.close(fd)


def _at_hook(
    attach_type: int, leaves: list[str], opened: dict[str, tuple[int, int]]
) -> Iterator[CgroupProgram]:
    merged: list[tuple[str, int]] = []
    try:
        for leaf in leaves:
            if leaf in opened:
                runs = _runs(attach_type, [step for step in _way(leaf) if step in opened], opened)
                # What a second leaf has of its own runs before what both have.
                merged = [one for one in runs if one not in merged] + merged
    except Unsupported:
        return  # so nothing can be attached to it
    for position, (path, program) in enumerate(merged):
        yield CgroupProgram(attach_type, program, f"/{path}", opened[path][1], position)


def _runs(
    attach_type: int, way: list[str], opened: dict[str, tuple[int, int]]
) -> list[tuple[str, int]]:
    """(cgroup, program) as they run for a socket of the first cgroup of the way."""
    effective = [id for id, _ in syscall.query(opened[way[0]][0], attach_type, _EFFECTIVE)]
    if not effective:
        return []
    owned = [(step, id) for step in way for id, _ in syscall.query(opened[step][0], attach_type)]
    runs = []
    for id in effective:
        # A program of a cgroup above what is mounted here is said to be of the highest.
        one = next((one for one in owned if one[1] == id), (way[-1], id))
        if one in owned:
            owned.remove(one)
        runs.append(one)
    return runs


def _way(leaf: str) -> Iterator[str]:
    """A cgroup and its ancestors up to the root, which is ""."""
    while leaf:
        yield leaf
        leaf = leaf.rpartition("/")[0]
    yield ""


def _top() -> Path:
    """Where the root of the hierarchy can be opened: here, or in the mounts of process 1."""
    inodes = {}
    for mount in (*mounts.of_first_process("cgroup2"), *mounts.own("cgroup2")):
        with contextlib.suppress(OSError):
            inodes[mount.opened] = mount.opened.stat().st_ino
    if not inodes:
        raise KernelError(
            "no cgroup v2 hierarchy is mounted here", hint="mount the node's /sys/fs/cgroup"
        )
    # A node that is a container (kind) has no real root; then what its process 1 sees is the top.
    return next((path for path in inodes if inodes[path] == _TOP_INODE), next(iter(inodes)))


def _leaves(pod: PodNamespace, top: Path) -> list[str]:
    """Cgroups that hold the pod's processes, without their first `/`.

    Raises:
        KernelError: no process of the pod is here.
    """
    process = Path(netns.of_pod(pod)).parent.parent
    with _cgroups_of_the_node():
        try:
            text = (process / "cgroup").read_text()
        except OSError as error:
            raise KernelError(
                f"read {process}/cgroup: {error.strerror}", error.errno or 0
            ) from None
    own = next((line[3:] for line in text.splitlines() if line.startswith("0::/")), "/")
    if own.startswith("/.."):
        raise KernelError(
            f"the pod's cgroup {own} is outside of this cgroup namespace",
            hint="CAP_SYS_ADMIN and hostPID let the node side enter the node's",
        )
    own = own.strip("/")
    return list(dict.fromkeys((own, *_beside(own, pod, top))))


def _beside(own: str, pod: PodNamespace, top: Path) -> Iterator[str]:
    """Cgroups of the pod's other processes: all below the one that is named for the pod.

    Runtimes that put containers side by side (`/k8s.io/<id>`) name none for the pod.
    """
    steps = own.split("/")
    uids = {uid for uid in (pod.uid, pod.uid.replace("-", "_")) if uid}
    depth = next((n for n, step in enumerate(steps, 1) if any(u in step for u in uids)), 0)
    folders = [top / "/".join(steps[:depth])]
    if not depth:
        beside = (top / own).parent.iterdir() if own else ()
        folders = [one for one in beside if any(id in one.name for id in pod.containers)]
    for folder in sorted(folders):
        for inner, names, _ in os.walk(folder):
            names.sort()
            with contextlib.suppress(OSError):
                if Path(inner, "cgroup.procs").read_bytes():
                    yield str(Path(inner).relative_to(top))


@contextlib.contextmanager
def _cgroups_of_the_node() -> Iterator[None]:
    """Do the block where /proc/PID/cgroup is told from the root of the node's hierarchy.

    A pod without `privileged` has a cgroup namespace of its own, and sees other pods as `/../..`.
    Where that of process 1 cannot be entered, the block is done as it is.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            home = os.open("/proc/thread-self/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, home)
            nodes = os.open(_FIRST / "ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, nodes)
            if _libc.setns(nodes, _CLONE_NEWCGROUP) == 0:
                stack.callback(_libc.setns, home, _CLONE_NEWCGROUP)
        yield
