"""Find Cilium's pinned maps.

Source: Cilium pkg/bpf/bpffs_linux.go (`<bpffs>/tc/globals`). The bpffs is searched in the mounts of
this process (a node pod mounts the node's), then in the mounts of the node's first process, which
hostPID shows. Kernels cut map names at 15 characters, so a map is known by its pin only.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf.maps import Map
from kubectl_ebpfnet.node.cilium.layout_tuple import of_sizes
from kubectl_ebpfnet.node.host import mounts

T = TypeVar("T")

GLOBALS = PurePosixPath("/tc/globals")


def root() -> Path:
    """Return the folder of Cilium's pinned maps.

    Raises:
        KernelError: ENOENT: no visible bpffs has `tc/globals`.
    """
    without_maps: Path | None = None
    for folder in _folders():
        try:
            found = os.listdir(folder)
        except OSError:
            continue
        if any(name.startswith("cilium_") for name in found):
            return folder
        without_maps = without_maps or folder
    if without_maps is not None:
        return without_maps
    raise KernelError(
        "no bpffs with Cilium's maps (tc/globals) is mounted here", errno.ENOENT,
        hint="Cilium is not on this node, or the pod has neither its /sys/fs/bpf nor hostPID",
    )  # fmt: skip


def _folders() -> Iterator[Path]:
    """Yield the folder of the maps on each visible bpffs, this process's own first."""
    for mounts_of in (mounts.own, mounts.of_first_process):
        with contextlib.suppress(KernelError):  # no /proc, or no access
            for mount in mounts_of("bpf"):
                if GLOBALS.is_relative_to(mount.root):
                    yield mount.opened / GLOBALS.relative_to(mount.root)


def names(folder: Path) -> tuple[str, ...]:
    """Return the names of Cilium's maps in the folder, sorted. Raises KernelError."""
    try:
        return tuple(sorted(name for name in os.listdir(folder) if name.startswith("cilium_")))
    except OSError as error:
        raise KernelError(f"list {folder}: {error.strerror}", error.errno or 0) from None


def absent(folder: Path, *wanted: str) -> KernelError:
    """Return the error for missing maps."""
    return KernelError(f"no map {' or '.join(wanted)} is pinned under {folder}", errno.ENOENT)


def present(folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the maps that are pinned, in the order of `wanted`.

    Raises:
        KernelError: ENOENT when none is.
    """
    found = frozenset(names(folder))
    pinned_names = tuple(name for name in wanted if name in found)
    if not pinned_names:
        raise absent(folder, *wanted)
    return pinned_names


def opened(folder: Path, name: str) -> Map | None:
    """Open a pinned map; return None when it is gone.

    Raises:
        KernelError: the kernel refuses.
    """
    try:
        return Map.pinned(folder / name)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def entries(
    folder: Path, name: str, known: Mapping[tuple[int, int], T]
) -> Iterator[tuple[T, bytes, bytes]]:
    """Yield (layout, key, value) of every entry; nothing when the map is gone.

    Args:
        folder: of `root`.
        name: of the map.
        known: layouts by key and value size.

    Raises:
        KernelError: the map has other sizes, even if it is empty; the kernel refuses.
    """
    table = opened(folder, name)
    if table is not None:
        with table:
            layout = of_sizes(name, (table.info.key_size, table.info.value_size), known)
            for key, value in table.items():
                yield layout, key, value
