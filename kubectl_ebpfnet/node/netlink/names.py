"""iproute2's names of rtnetlink's numbers, and the kernel's names of devices.

Sources: iproute2's lib/rt_names.c and its files rt_tables and rt_scopes; Linux
include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

_NAMED: dict[str, dict[int, str]] = {
    "rt_tables": {0: "unspec", 253: "default", 254: "main", 255: "local"},
    "group": {0: "default"},
    "rt_scopes": {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"},
}
_FOLDERS = tuple(Path(folder) for folder in ("/usr/lib", "/usr/share", "/etc"))
_TYPES = (
    "none", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable",
    "prohibit", "throw", "nat", "xresolve",
)  # fmt: skip


def type_name(number: int) -> str:
    """Return iproute2's name of RTN_*, or the number."""
    return _TYPES[number] if number < len(_TYPES) else str(number)


def names(kind: str) -> dict[int, str]:
    """Return iproute2's names of numbers, with the names in this image's files.

    Args:
        kind: `rt_tables`, `rt_scopes` or `group` (of devices).
    """
    found = dict(_NAMED[kind])
    for folder in _FOLDERS:
        base = folder / "iproute2"
        for file in (base / kind, *sorted((base / f"{kind}.d").glob("*.conf"))):
            found.update(_file(file))
    return found


def _file(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) == 2:
            try:
                yield int(words[0], 0), words[1]
            except ValueError:
                continue


def device_names() -> dict[int, str]:
    """Return names of this namespace's devices by ifindex, in the kernel's order."""
    # Names are bytes to the kernel; other bytes than UTF-8 must not break the answer.
    return {i: os.fsencode(n).decode("utf-8", "replace") for i, n in socket.if_nameindex()}


def device(devices: dict[int, str], index: int) -> str:
    """Return the name of a device; `ifN`, as iproute2 does, for a device that is gone."""
    return devices.get(index) or f"if{index}"
