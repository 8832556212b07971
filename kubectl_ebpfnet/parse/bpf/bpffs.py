"""`ls -R /sys/fs/bpf`: the pins that keep Cilium's links and maps alive.

    /sys/fs/bpf/tc/globals/<map>
    /sys/fs/bpf/cilium/devices/<device, `-` for `.`>/links/<program>
    /sys/fs/bpf/cilium/endpoints/<endpoint id>/links/<program>
    /sys/fs/bpf/cilium/socketlb/links/cgroup/<program>

The root is /run/cilium/bpffs where /sys/fs/bpf is no bpffs.

Sources: Cilium pkg/bpf/bpffs_linux.go, pkg/datapath/loader/paths.go, pkg/socketlb/cgroup.go;
coreutils' and BusyBox' ls.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.bpf import BpfPin
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.parse._text import lines, quoted

_SOURCE = "ls -R /sys/fs/bpf"
_OWNERS = {"devices": "device", "endpoints": "endpoint"}


def pins(data: bytes) -> tuple[BpfPin, ...]:
    """Return the pinned links and maps in `ls -R` of a bpffs, in its order.

    Other pins are left out: their path does not tell their kind.
    """
    listed = list(_entries(data))
    directories = {directory for directory, _, _ in listed}
    found = []
    for directory, name, number in listed:
        path = f"{directory.rstrip('/')}/{name}"
        if not name or path in directories:
            continue
        owner, owner_name, program = cilium_pin(path)
        if program:
            found.append(BpfPin(path, "link", owner, owner_name, program, Span(number)))
        elif directory.endswith("/tc/globals"):
            found.append(BpfPin(path, "map", "", "", name, Span(number)))
    return tuple(found)


def _entries(data: bytes) -> Iterator[tuple[str, str, int]]:
    """Yield (directory, entry, line number); the entry is "" for the directory's own line."""
    directory = ""
    after_blank = True
    for number, text in lines(data, _SOURCE):
        if after_blank and text.startswith("/") and text.endswith(":"):
            directory = text[:-1]
            yield directory, "", number
        elif text and not directory:
            raise ParseError(_SOURCE, number, f"not a directory: {quoted(text)}")
        elif text:
            yield directory, text, number
        after_blank = not text


def cilium_pin(path: str) -> tuple[str, str, str]:
    """Return owner and program in the path of a link that Cilium pinned.

    Returns:
        (`device`, device name, program), (`endpoint`, endpoint id, program) or (`cgroup`,
        `cgroup`, program); ("", "", "") for any other path.
    """
    parts = path.split("/")
    if len(parts) > 5 and parts[-5] == "cilium" and parts[-1]:
        _, owner, name, folder, program = parts[-5:]
        if owner in _OWNERS and folder == "links":
            return _OWNERS[owner], name, program
        if (owner, name) == ("socketlb", "links"):
            return "cgroup", folder, program
    return "", "", ""
