"""A bpffs of our own with maps as Cilium pins them, filled with what a test says.

Needs root and Linux. Layouts are written here once more, from cilium-facts 3, so that a test does
not agree with the code's own idea of them.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.lab.cluster.datapath import syscall_bpf
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE, NO_PREALLOC

Entries = dict[bytes, bytes]


def why_not() -> str:
    """Why no bpffs can be made here; "" when one can."""
    if not sys.platform.startswith("linux"):
        return "not Linux"
    return "" if os.geteuid() == 0 else "not root"


@dataclass(frozen=True, slots=True)
class Pins:
    """A folder on bpffs, as Cilium's `tc/globals`."""

    folder: Path

    def make(
        self, name: str, key: int, value: int, entries: Entries, kind: int = HASH, most: int = 1024
    ) -> Path:
        """Pin a map with these entries; per-CPU values are given for all CPUs at once."""
        path = self.folder / name
        flags = NO_PREALLOC if kind == LPM_TRIE else 0
        syscall_bpf.create_map(path, kind, key, value, most, flags)
        size = max([value, *map(len, entries.values())])
        with syscall_bpf.Map(path, key, size) as table:
            for one, other in entries.items():
                assert len(one) == key
                table.put(one, other)
        return path

    def remove(self, name: str, key: bytes, value_size: int) -> None:
        """Delete an entry."""
        with syscall_bpf.Map(self.folder / name, len(key), value_size) as table:
            table.remove(key)

    def dumped(self, name: str) -> list[tuple[bytes, bytes]]:
        """What `bpftool map dump` says of a map, key and value as bytes."""
        argv = ("bpftool", "-j", "map", "dump", "pinned", str(self.folder / name))
        said = subprocess.run(argv, capture_output=True, check=True).stdout
        return [(_bytes(row["key"]), _bytes(row["value"])) for row in json.loads(said)]


def _bytes(digits: list[str]) -> bytes:
    return bytes(int(one, 16) for one in digits)


@contextmanager
def bpffs() -> Iterator[Path]:
    """A bpffs with an empty `tc/globals`, gone with all its maps at the end."""
    mount = Path(tempfile.mkdtemp(prefix="ebpfnet-node-"))
    subprocess.run(("mount", "-t", "bpf", "bpf", str(mount)), check=True)
    try:
        folder = mount / "tc/globals"
        folder.mkdir(parents=True)
        yield folder
    finally:
        subprocess.run(("umount", str(mount)), check=True)
        mount.rmdir()


def possible_cpus() -> int:
    """How many CPUs a per-CPU value has room for."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    return len({cpu for some in ends for cpu in range(some[0], some[-1] + 1)})


def packed(text: str) -> bytes:
    """4 or 16 bytes of an address."""
    return ip_address(text).packed


def end(text: str) -> tuple[bytes, bytes]:
    """`10.0.0.1:80`, `[fd00::1]:80` as address and port in network order."""
    host, _, port = text.rpartition(":")
    return packed(host.strip("[]")), int(port).to_bytes(2, "big")


def ct_key(
    protocol: int, way: str, source: str, destination: str, *, related: bool = False
) -> bytes:
    """The stored key of a flow from an initiator to a destination (cilium-facts 3.2)."""
    (source_ip, source_port), (destination_ip, destination_port) = end(source), end(destination)
    flags = {"OUT": 0, "IN": 1, "SVC": 4}[way] | (2 if related else 0)
    if way == "SVC":
        stored = destination_ip + source_ip + source_port + destination_port
    else:
        stored = source_ip + destination_ip + destination_port + source_port
    return stored + bytes((protocol, flags))


def ct_value(
    first: int = 0,
    second: int = 0,
    packets: int = 0,
    size: int = 0,
    expires: int = 0,
    flags: int = 0,
    rev_nat: int = 0,
    at_40: bytes = b"\0\0",
    seen: tuple[int, int] = (0, 0),
    identity: int = 0,
    reports: tuple[int, int] = (0, 0),
) -> bytes:
    """56 bytes; `seen` are the TCP flags sent and received, `reports` the last times of both."""
    return (
        struct.pack("=QQQQIH", first, second, packets, size, expires, flags)
        + rev_nat.to_bytes(2, "big")
        + at_40
        + struct.pack("=BBIII", *seen, identity, *reports)
    )


def nat_key(protocol: int, way: str, source: str, destination: str) -> bytes:
    """The stored key of a packet from source to destination."""
    (source_ip, source_port), (destination_ip, destination_port) = end(source), end(destination)
    flags = {"OUT": 0, "IN": 1}[way]
    stored = destination_ip + source_ip + destination_port + source_port
    return stored + bytes((protocol, flags))


def nat_value(to: str, created: int = 0, needs_ct: int = 0) -> bytes:
    """40 bytes for IPv4, 56 for IPv6."""
    ip, port = end(to)
    rest = b"\0\0" if len(ip) == 4 else b"\0" * 6
    return struct.pack("=QQQQ", created, needs_ct, 0, 0) + ip + port + rest


def service_key(front: str, slot: int, protocol: int = 0, scope: int = 0) -> bytes:
    """lb4_key or lb6_key."""
    ip, port = end(front)
    return ip + port + struct.pack("=HBBH", slot, protocol, scope, 0)


def service_value(backend: int, rev_nat: int, flags: int = 0, count: int = 0) -> bytes:
    """lb4_service or lb6_service; `flags` holds flags2 in its high byte."""
    head = struct.pack("=IH", backend, count) + rev_nat.to_bytes(2, "big")
    return head + bytes((flags & 0xFF, flags >> 8)) + bytes(2)


def lpm_address(prefix: str, static: int, before: bytes = b"") -> bytes:
    """prefix length with the static bits, what stands between, and the address."""
    network = ip_network(prefix)
    head = struct.pack("=I", static + network.prefixlen)
    return head + before + network.network_address.packed


def ipcache_key(prefix: str) -> bytes:
    """24 bytes."""
    network = ip_network(prefix)
    family = 1 if network.version == 4 else 2
    key = lpm_address(prefix, 32, struct.pack("=HBB", 0, 0, family))
    return key.ljust(24, b"\0")


def endpoint_key(text: str) -> bytes:
    """20 bytes, of endpoints and of tunnels."""
    ip = packed(text)
    return ip.ljust(16, b"\0") + struct.pack("=BBH", 1 if len(ip) == 4 else 2, 0, 0)
