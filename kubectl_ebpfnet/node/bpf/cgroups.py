"""Programs at the socket hooks of cgroups: of the root, and of a pod's cgroup and its ancestors.

Sources: cgroups(7), cgroup_namespaces(7), include/uapi/linux/bpf.h (enum bpf_attach_type),
kernel/bpf/cgroup.c: for a socket, the programs of its own cgroup run before its ancestors', and
BPF_F_QUERY_EFFECTIVE returns that order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.protocol.questions import PodNamespace
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.host import mounts, netns

# enum bpf_attach_type and bpftool's words, in the order of a socket's life. Types without packets
# (cgroup_device, cgroup_sysctl, Unix sockets) are left out.
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
CILIUMS = "/run/cilium/cgroupv2"
"""Where Cilium mounts the root of the hierarchy (pkg/cgroups, --cgroup-root)."""
_CGROUP2 = 0x63677270  # CGROUP2_SUPER_MAGIC, linux/magic.h
_STATFS = 256  # bytes, more than any struct statfs has
_TOP_INODE = 1  # inode of the hierarchy's real root
_FIRST = netns.PROC / "1"  # the node's first process, where hostPID shows it
_CLONE_NEWCGROUP = 0x02000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class CgroupProgram:
    """A program at a hook of a cgroup.

    Attributes:
        attach_type: of ATTACH_TYPES.
        program: id.
        cgroup: path below the hierarchy's root.
        cgroup_id: kernfs id, as in a bpf_link.
        position: 0 runs first.
    """

    attach_type: int
    program: int
    cgroup: str
    cgroup_id: int
    position: int


def programs(pod: PodNamespace | None) -> Iterator[CgroupProgram]:
    """Yield the programs that run for sockets, by hook, in the order in which they run.

    Args:
        pod: selects the cgroups of its processes; None for the root of the hierarchy alone.

    Raises:
        KernelError: no cgroup v2 hierarchy is mounted here, or the kernel refuses.
    """
    top = hierarchy_root()
    leaves = [""] if pod is None else _leaves(pod, top)
    open_cgroups: dict[str, tuple[int, int]] = {}
    try:
        for path in dict.fromkeys(
            ancestor for leaf in leaves for ancestor in _with_ancestors(leaf)
        ):
            try:
                fd = os.open(f"{top}/{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # its processes have ended
            open_cgroups[path] = fd, os.fstat(fd).st_ino
        for attach_type in ATTACH_TYPES:
            yield from _at_hook(attach_type, leaves, open_cgroups)
    except OSError as error:
        raise KernelError(f"open a cgroup: {error.strerror}", error.errno or 0) from None
    finally:
        for fd, _ in open_cgroups.values():
            os.close(fd)


def _at_hook(
    attach_type: int, leaves: list[str], open_cgroups: dict[str, tuple[int, int]]
) -> Iterator[CgroupProgram]:
    merged: list[tuple[str, int]] = []
    try:
        for leaf in leaves:
            if leaf in open_cgroups:
                run_order = _run_order(
                    attach_type,
                    [ancestor for ancestor in _with_ancestors(leaf) if ancestor in open_cgroups],
                    open_cgroups,
                )
                # Programs of a second leaf alone run before the shared ones.
                merged = [entry for entry in run_order if entry not in merged] + merged
    except Unsupported:
        return  # the kernel has no such hook
    for position, (path, program) in enumerate(merged):
        yield CgroupProgram(attach_type, program, f"/{path}", open_cgroups[path][1], position)


def _run_order(
    attach_type: int, ancestors: list[str], open_cgroups: dict[str, tuple[int, int]]
) -> list[tuple[str, int]]:
    """Return (cgroup, program) in order, for a socket of the path's first cgroup."""
    effective = [
        id for id, _ in syscall.query(open_cgroups[ancestors[0]][0], attach_type, _EFFECTIVE)
    ]
    if not effective:
        return []
    attached = [
        (ancestor, id)
        for ancestor in ancestors
        for id, _ in syscall.query(open_cgroups[ancestor][0], attach_type)
    ]
    run_order = []
    for id in effective:
        # A program of a cgroup above the mounted ones counts for the topmost.
        entry = next((entry for entry in attached if entry[1] == id), (ancestors[-1], id))
        if entry in attached:
            attached.remove(entry)
        run_order.append(entry)
    return run_order


def _with_ancestors(leaf: str) -> Iterator[str]:
    """Yield a cgroup and its ancestors; the root is ""."""
    while leaf:
        yield leaf
        leaf = leaf.rpartition("/")[0]
    yield ""


def hierarchy_root() -> Path:
    """Return the root of the hierarchy: mounted here, or in the mounts of process 1.

    A mount that mountinfo lists may lie under another one: then its path shows another file system,
    and what is queried there is no cgroup. Cilium mounts the root once more for its own programs
    (CILIUMS).

    Raises:
        KernelError: no cgroup v2 hierarchy is to be seen.
    """
    inodes: dict[Path, int] = {}
    for mount in (*mounts.of_first_process("cgroup2"), *mounts.own("cgroup2")):
        for path in (mount.opened, Path(f"{mount.below}{CILIUMS}")):
            with contextlib.suppress(OSError):
                if is_cgroup2(path):
                    inodes[path] = path.stat().st_ino
    if not inodes:
        raise KernelError(
            "no cgroup v2 hierarchy is mounted here", hint="mount the node's /sys/fs/cgroup"
        )
    # A node that is a container (kind) has no real root; then the root of its process 1 counts.
    return next((path for path in inodes if inodes[path] == _TOP_INODE), next(iter(inodes)))


def is_cgroup2(path: Path) -> bool:
    """Tell whether a path is in a cgroup v2 file system (statfs(2)). Raises OSError."""
    found = ctypes.create_string_buffer(_STATFS)
    if _libc.statfs(os.fsencode(path), found):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    # f_type is the first word of struct statfs on every 64-bit architecture.
    return int.from_bytes(found.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) == _CGROUP2


def _leaves(pod: PodNamespace, top: Path) -> list[str]:
    """Return the cgroups of the pod's processes, without their first `/`.

    Raises:
        KernelError: no process of the pod is found.
    """
    process = Path(netns.of_pod(pod)).parent.parent
    with _cgroups_of_the_node():
        try:
            text = (process / "cgroup").read_text()
        except OSError as error:
            raise KernelError(
                f"read {process}/cgroup: {error.strerror}", error.errno or 0
            ) from None
    cgroup = next((line[3:] for line in text.splitlines() if line.startswith("0::/")), "/")
    if cgroup.startswith("/.."):
        raise KernelError(
            f"the pod's cgroup {cgroup} is outside of this cgroup namespace",
            hint="CAP_SYS_ADMIN and hostPID let the node side enter the node's",
        )
    cgroup = cgroup.strip("/")
    return list(dict.fromkeys((cgroup, *_sibling_cgroups(cgroup, pod, top))))


def _sibling_cgroups(cgroup: str, pod: PodNamespace, top: Path) -> Iterator[str]:
    """Yield the cgroups of the pod's other processes: all below the cgroup with the pod's uid.

    Runtimes that put containers side by side (`/k8s.io/<id>`) have no cgroup for the pod.
    """
    parts = cgroup.split("/")
    uids = {uid for uid in (pod.uid, pod.uid.replace("-", "_")) if uid}
    depth = next((n for n, ancestor in enumerate(parts, 1) if any(u in ancestor for u in uids)), 0)
    folders = [top / "/".join(parts[:depth])]
    if not depth:
        siblings = (top / cgroup).parent.iterdir() if cgroup else ()
        folders = [entry for entry in siblings if any(id in entry.name for id in pod.containers)]
    for folder in sorted(folders):
        for inner, names, _ in os.walk(folder):
            names.sort()
            with contextlib.suppress(OSError):
                if Path(inner, "cgroup.procs").read_bytes():
                    yield str(Path(inner).relative_to(top))


@contextlib.contextmanager
def _cgroups_of_the_node() -> Iterator[None]:
    """Run the block where /proc/PID/cgroup is relative to the root of the node's hierarchy.

    An unprivileged pod has a cgroup namespace of its own, and sees other pods as `/../..`. If the
    namespace of process 1 cannot be entered, the block runs in the current one.
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
