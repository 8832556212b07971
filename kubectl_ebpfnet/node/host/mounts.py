"""Find mounts of a file system type.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass

_OWN = (Path("/proc/self/mountinfo"), "")
_FIRST = (Path("/proc/1/mountinfo"), "/proc/1/root")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    Attributes:
        device: `major:minor` of the superblock; mounts with the same one show the same files.
        root: the mounted directory of the file system, `/` for all of it.
        path: mount point.
        below: prefix of `path` for this process: `/proc/1/root` for a mount of process 1.
    """

    device: str
    root: str
    path: Path
    below: str = ""

    @property
    def opened(self) -> Path:
        """Path of the mount point for this process."""
        return Path(f"{self.below}{self.path}")


def own(kind: str) -> list[Mount]:
    """Return this process's mounts of a type, e.g. `bpf`; for each superblock the widest mount.

    Raises:
        KernelError: mountinfo cannot be read.
    """
    return _mounts(kind, *_OWN)


def of_first_process(kind: str) -> list[Mount]:
    """Return process 1's mounts of a type: with hostPID, the node's; [] where access is denied."""
    try:
        return _mounts(kind, *_FIRST)
    except KernelError:
        return []


def reachable(kind: str) -> list[Mount]:
    """Return this process's mounts of a type, else those of process 1. Raises KernelError."""
    return own(kind) or of_first_process(kind)


def _mounts(kind: str, table: Path, below: str) -> list[Mount]:
    try:
        text = table.read_bytes()
    except OSError as error:
        raise KernelError(f"read {table}: {error.strerror}", error.errno or 0) from None
    widest: dict[str, Mount] = {}
    for line in text.splitlines():
        fields, _, rest = line.partition(b" - ")
        words = fields.split(b" ")
        if len(words) < 5 or rest.partition(b" ")[0] != kind.encode():
            continue
        device, root, path = words[2].decode(), _plain(words[3]), Path(_plain(words[4]))
        if device not in widest or _depth(root) < _depth(widest[device].root):
            widest[device] = Mount(device, root, path, below)
    return list(widest.values())


def _plain(field: bytes) -> str:
    """Decode octal escapes, of spaces and the like."""
    whole = _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), field)
    return whole.decode("utf-8", "surrogateescape")


def _depth(root: str) -> int:
    """Return the depth of a directory; `/..` is above the root (cgroup_namespaces(7))."""
    return sum(-1 if part == ".." else 1 for part in root.split("/") if part)
