"""Which bpf_link holds which attachment, and where a link is pinned.

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
# Folders of pinned objects that may hold links: those that are named so, and small ones; the
# folder of Cilium's maps has hundreds.
_SMALL_FOLDER = 64
_FOLDER_OF_MAPS = "tc/globals"

Place = tuple[int, int, int]
"""What a link attaches: cgroup id, netns inode or ifindex; attach type; program id."""


def places() -> dict[Place, int]:
    """Links of cgroups, network namespaces and XDP by what they attach.

    XDP links say an ifindex without its namespace; where two are alike, there is 0 for both. tcx
    and netkit links are not here: BPF_PROG_QUERY says their ids.

    Raises:
        KernelError: EPERM without CAP_SYS_ADMIN, EINVAL before Linux 5.8.
    """
    found: dict[Place, int] = {}
    for id in syscall.link_ids():
        try:
            with syscall.closing(syscall.open_link(id)) as fd:
                said = syscall.info(fd, _INFO_BYTES)
        except KernelError:
            continue  # it has gone meanwhile
        kind, _, program = struct.unpack_from("=III", said)
        if kind == _CGROUP:
            target, attach_type = struct.unpack_from("=QI", said, 16)
        elif kind == _NETNS:
            target, attach_type = struct.unpack_from("=II", said, 16)
        elif kind == _XDP:
            target, attach_type = struct.unpack_from("=I", said, 16)[0], _XDP_ATTACH_TYPE
        else:
            continue
        place = (target, attach_type, program)
        found[place] = 0 if place in found else id
    return found


def xdp_place(ifindex: int, program: int) -> Place:
    """The place of an XDP program on a device."""
    return ifindex, _XDP_ATTACH_TYPE, program


def pinned() -> dict[int, str]:
    """Paths of pinned links by link id, the first one where a link has several.

    Pins that cannot be opened are left out, as are those in large folders that are not named
    `links`.

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
    """Files that may be links, each folder's before those of its folders."""
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
    """Id of the link that is pinned there, 0 when it is none."""
    try:
        with syscall.closing(syscall.open_pinned(path)) as fd:
            if "bpf_link" not in os.readlink(f"/proc/self/fd/{fd}").replace("-", "_"):
                return 0
            return int(struct.unpack_from("=I", syscall.info(fd, _INFO_BYTES), 4)[0])
    except (KernelError, OSError):
        return 0
