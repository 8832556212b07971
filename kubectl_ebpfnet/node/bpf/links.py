"""The bpf_link of each attachment, and where a link is pinned.

Sources: include/uapi/linux/bpf.h (struct bpf_link_info, enum bpf_link_type), kernel/bpf/inode.c
(bpffs), kernel/bpf/syscall.c (anonymous inodes' names).
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.host import mounts

# enum bpf_link_type
_CGROUP, _NETNS, _XDP = 3, 5, 6
_XDP_ATTACH_TYPE = 37
_INFO_BYTES = 64
# Folders that may have pinned links: folders named `links`, and small ones; the folder of Cilium's
# maps has hundreds of pins.
_SMALL_FOLDER = 64
_FOLDER_OF_MAPS = "tc/globals"

Place = tuple[int, int, int]
"""The attach point of a link: cgroup id, netns inode or ifindex; attach type; program id."""


def places() -> dict[Place, int]:
    """Return the links of cgroups, network namespaces and XDP by their attach point.

    XDP links have an ifindex without its namespace; two equal attach points both get 0. tcx and
    netkit links are left out: BPF_PROG_QUERY returns their ids.

    Raises:
        KernelError: EPERM without CAP_SYS_ADMIN, EINVAL before Linux 5.8.
    """
    found: dict[Place, int] = {}
    for id in syscall.link_ids():
        try:
            with syscall.closing(syscall.open_link(id)) as fd:
                info = syscall.info(fd, _INFO_BYTES)
        except KernelError:
            continue  # the link is gone meanwhile
        kind, _, program = struct.unpack_from("=III", info)
        if kind == _CGROUP:
            target, attach_type = struct.unpack_from("=QI", info, 16)
        elif kind == _NETNS:
            target, attach_type = struct.unpack_from("=II", info, 16)
        elif kind == _XDP:
            target, attach_type = struct.unpack_from("=I", info, 16)[0], _XDP_ATTACH_TYPE
        else:
            continue
        place = (target, attach_type, program)
        found[place] = 0 if place in found else id
    return found


def xdp_place(ifindex: int, program: int) -> Place:
    """Return the attach point of an XDP program on a device."""
    return ifindex, _XDP_ATTACH_TYPE, program


def pinned() -> dict[int, str]:
    """Return the paths of pinned links by link id, of several the first.

    Pins that cannot be opened are left out, as are pins in large folders not named `links`.

    Raises:
        KernelError: mountinfo cannot be read.
    """
    found: dict[int, str] = {}
    for mount in mounts.reachable("bpf"):
        for path in _candidates(str(mount.opened)):
            id = _link_id(path)
            if id:
                shown = os.fsencode(path.removeprefix(mount.below))
                found.setdefault(id, shown.decode("utf-8", "replace"))
    return found


def _candidates(folder: str) -> Iterator[str]:
    """Yield files that may be links, a folder's files before its subfolders'."""
    if folder.endswith(_FOLDER_OF_MAPS):
        return
    names: list[str] = []
    folders: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
    if len(names) <= _SMALL_FOLDER or "links" in folder.split("/"):
        yield from (f"{folder}/{name}" for name in sorted(names))
    for name in sorted(folders):
        yield from _candidates(f"{folder}/{name}")


def _link_id(path: str) -> int:
    """Return the id of the link pinned at a path, 0 for any other object."""
    try:
        with syscall.closing(syscall.open_pinned(path)) as fd:
            if "bpf_link" not in os.readlink(f"/proc/self/fd/{fd}").replace("-", "_"):
                return 0
            return int(struct.unpack_from("=I", syscall.info(fd, _INFO_BYTES), 4)[0])
    except (KernelError, OSError):
        return 0
