"""Where Cilium pins its maps, and which are there.

Source: Cilium pkg/bpf/bpffs_linux.go (`<bpffs>/tc/globals`). The bpffs is looked for in the mounts
of this process (a node pod mounts the node's there), else in those of the node's first process,
which hostPID shows. Kernels cut map names at 15 characters, so maps are known by their pins only.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.cilium.layout_tuple import of_sizes
from kubectl_ebpfnet.node.host import mounts

T = TypeVar("T")

GLOBALS = PurePosixPath("/tc/globals")


def root() -> Path:
    """The folder that Cilium's maps are pinned in.

    Raises:
        KernelError: ENOENT: no bpffs with `tc/globals` can be seen.
    """
    empty: Path | None = None
    for folder in _folders():
        try:
            found = os.listdir(folder)
        except OSError:
            continue
        if any(name.startswith("cilium_") for name in found):
            return folder
        empty = empty or folder
    if empty is not None:
        return empty
    raise KernelError(
        "no bpffs with Cilium's maps (tc/globals) is mounted here", errno.ENOENT,
        hint="Cilium is not on this node, or the pod has neither its /sys/fs/bpf nor hostPID",
    )  # fmt: skip


def _folders() -> Iterator[Path]:
    """Where the maps would be on each bpffs that can be seen, this process's own first."""
    for visible in (mounts.own, mounts.of_first_process):
        with contextlib.suppress(KernelError):  # no /proc, or not its own
            for mount in visible("bpf"):
                if GLOBALS.is_relative_to(mount.root):
                    yield mount.opened / GLOBALS.relative_to(mount.root)


def names(folder: Path) -> tuple[str, ...]:
    """Names of Cilium's maps in the folder, sorted. Raises KernelError."""
    try:
        return tuple(sorted(name for name in os.listdir(folder) if name.startswith("cilium_")))
    except OSError as error:
        raise KernelError(f"list {folder}: {error.strerror}", error.errno or 0) from None


def absent(folder: Path, *wanted: str) -> KernelError:
    """The error that says which map is not there."""
    return KernelError(f"no map {' or '.join(wanted)} is pinned under {folder}", errno.ENOENT)


def present(folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of the wanted maps that are pinned, in the order in which they are wanted.

    Raises:
        KernelError: ENOENT when there is none of them.
    """
    found = frozenset(names(folder))
    here = tuple(name for name in wanted if name in found)
    if not here:
        raise absent(folder, *wanted)
    return here


def opened(folder: Path, name: str) -> syscall.Map | None:
    """A pinned map; None when it has gone meanwhile.

    Raises:
        KernelError: the kernel refuses.
    """
    try:
        return syscall.Map.pinned(folder / name)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def entries(
    folder: Path, name: str, known: Mapping[tuple[int, int], T]
) -> Iterator[tuple[T, bytes, bytes]]:
    """(layout, key, value) of every entry; nothing when the map has gone.

    Args:
        folder: what `root` gives.
        name: of the map.
        known: layouts by key and value size.

    Raises:
        KernelError: the map is of other sizes, even when it is empty; the kernel refuses.
    """
    table = opened(folder, name)
    if table is not None:
        with table:
            layout = of_sizes(name, (table.info.key_size, table.info.value_size), known)
            for key, value in table.items():
                yield layout, key, value
