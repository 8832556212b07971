"""One flow out of a full conntrack map of Cilium's, against `bpftool map dump` and `grep`.

    sudo .venv/bin/python bench/ct_lookup.py

Fills an LRU hash of 524,288 entries with the layout of cilium_ct4_global on a bpffs of its own and
asks for the entries of one address and port: by bpftool (best of 3), by a session of a node pod, as
an exec has it, and by a node side that is started for it (best of 5, whole processes, with memory).
Then, in this process, for the same flow by its key. Exits 1 when a session is not at least 20 times
faster than bpftool, the node side takes 120 MB or more, or 5 ms or more by key. Needs root and
bpftool.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL, FlowFilter, NodeRequest, node_argv
from kubectl_ebpfnet.node.bpf import maps, syscall
from kubectl_ebpfnet.node.cilium import ct, pins
from kubectl_ebpfnet.node.server import connect

ENTRIES = 524_288
TIMES_AT_LEAST, MEGABYTES_BELOW, MILLISECONDS_BELOW = 20.0, 120.0, 5.0
MAP_UPDATE_BATCH = 26
CLIENT, CLIENT_PORT = IPv4Address("10.244.7.77"), 45678
SERVER, SERVER_PORT = IPv4Address("192.0.2.10"), 443


def key(client: IPv4Address, port: int, server: IPv4Address, to: int) -> bytes:
    """An OUT entry's: the addresses stand the wrong way round (cilium-facts 3.2)."""
    return client.packed + server.packed + struct.pack(">HHBB", to, port, 6, 0)


def value(expires: int, packets: int) -> bytes:
    """56 bytes, as Cilium 1.18 writes them."""
    return struct.pack("=QQQQIH2sHBBIII", 0, 0, packets, 90 * packets, expires, 0x10, b"", 0, 0x1A,
                       0x1A, 4711, 0, 0)  # fmt: skip


def table() -> Iterator[tuple[bytes, bytes]]:
    """Entries of many clients on one node; the wanted one is among them."""
    draw = random.Random(1)
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    for number in range(ENTRIES - 1):
        client = IPv4Address(int(IPv4Address("10.244.1.0")) + number % 1300)
        server = IPv4Address(0x0A600000 + draw.randrange(1 << 16))
        yield key(client, 1024 + number // 1300 * 7, server, 443), value(now + 8000, number % 90)
    yield key(CLIENT, CLIENT_PORT, SERVER, SERVER_PORT), value(now + 8000, 10)


def filled(path: Path) -> int:
    """Make, fill and pin the map. Returns how many entries are in it: an LRU hash may evict some
    before it is quite full.
    """
    attr = struct.pack("=IIIII", syscall.LRU_HASH, 14, 56, ENTRIES, 0)
    with syscall.closing(syscall.syscall(syscall.MAP_CREATE, attr, "make the map")) as fd:
        batch: list[tuple[bytes, bytes]] = []
        for entry in table():
            batch.append(entry)
            if len(batch) == 16384:
                put(fd, batch)
                batch = []
        put(fd, batch)
        name = syscall.buffer(os.fsencode(path) + b"\0")
        syscall.syscall(
            syscall.OBJ_PIN, struct.pack("=QII", syscall.pointer(name), fd, 0), "pin the map"
        )
    with maps.Map.pinned(path) as whole:
        return sum(count for count, _, _ in whole.batches())


def put(fd: int, batch: list[tuple[bytes, bytes]]) -> None:
    """Write entries, many a call."""
    keys = syscall.buffer(b"".join(one for one, _ in batch))
    values = syscall.buffer(b"".join(other for _, other in batch))
    attr = struct.pack("=QQQQIIQQ", 0, 0, syscall.pointer(keys), syscall.pointer(values),
    len(batch), fd, 0, 0)  # fmt: skip
    syscall.syscall(MAP_UPDATE_BATCH, ctypes.create_string_buffer(attr, 128), "fill the map")


@contextmanager
def bpffs() -> Iterator[Path]:
    """A bpffs in a mount namespace of this process, gone with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000):  # CLONE_NEWNS
        raise KernelError("a mount namespace cannot be made", ctypes.get_errno())
    folder = Path(tempfile.mkdtemp(prefix="ebpfnet-bench-"))
    try:
        subprocess.run(("mount", "--make-rprivate", "/"), check=True)
        subprocess.run(("mount", "-t", "bpf", "bpf", str(folder)), check=True)
        globals_ = folder / "tc/globals"
        globals_.mkdir(parents=True)
        yield globals_
    finally:
        subprocess.run(("umount", str(folder)), check=False)
        folder.rmdir()


def by_bpftool(path: Path) -> float:
    """Seconds of one dump whose lines are searched for the address."""
    wanted = " ".join(f"{byte:02x}" for byte in CLIENT.packed)
    begun = time.perf_counter()
    script = 'bpftool map dump pinned "$1" | grep -c "$2"'
    said = subprocess.run(("sh", "-c", script, "sh", str(path), wanted), capture_output=True,
                          check=True).stdout  # fmt: skip
    assert int(said) >= 1
    return time.perf_counter() - begun


@contextmanager
def node_pod() -> Iterator[dict[str, str]]:
    """A node pod's first process; gives the environment of sessions that come to it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image" / "node.sock"
        path.parent.mkdir()
        script = "import sys, pathlib\n"
        script += "from kubectl_ebpfnet.node.server.zygote import serve_sessions\n"
        script += "serve_sessions(60, pathlib.Path(sys.argv[1]))"
        with subprocess.Popen((sys.executable, "-c", script, str(path))) as process:
            while not path.exists():
                time.sleep(0.01)
            yield {**os.environ, "EBPFNET_NODE_FOLDER": folder}
            process.terminate()


def by_node_side(flow: FlowFilter, env: dict[str, str] | None = None) -> float:
    """Seconds of one session that is asked one thing, from its start to its end.

    Args:
        env: of a node pod's first process, which serves it; None: a node side of its own.
    """
    request = {
        "protocol": PROTOCOL, "id": 1, "argv": list(node_argv("ct")), "netns": None,
        "flows": [codec.plain(flow)],
    }  # fmt: skip
    lines = json.dumps(request) + '\n{"end": true}\n'
    begun = time.perf_counter()
    argv = ("-I", "-S", str(connect.__file__), "0") if env else ("-m", "kubectl_ebpfnet.node")
    done = subprocess.run((sys.executable, *argv), input=lines.encode(), env=env,
                          capture_output=True, check=True)  # fmt: skip
    spent = time.perf_counter() - begun
    _, header, *facts = done.stdout.splitlines()
    assert json.loads(header)["exit_code"] == 0, header
    assert [json.loads(fact)["flow"]["source"] for fact in facts] == [str(CLIENT)], facts
    return spent


def by_key(flow: FlowFilter) -> float:
    """Seconds in this process, pins and all."""
    request = NodeRequest(1, node_argv("ct"), flows=(flow,))
    begun = time.perf_counter()
    found = list(ct.entries(request))
    spent = time.perf_counter() - begun
    assert [entry.flow.source for entry in found] == [CLIENT], found
    return spent


def main() -> int:
    """Measure and print. Returns the exit code."""
    if os.geteuid() != 0 or not shutil.which("bpftool"):
        print("skipped: needs root and bpftool")
        return 0
    some = FlowFilter(CLIENT, CLIENT_PORT)
    whole = FlowFilter(CLIENT, CLIENT_PORT, SERVER, SERVER_PORT, 6)
    with bpffs() as folder:
        path = folder / "cilium_ct4_global"
        held = filled(path)
        pins.root = lambda: folder  # a real Cilium's maps are not what is measured
        alone = min(by_node_side(some) for _ in range(5))
        megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        with node_pod() as env:
            ours = min(by_node_side(some, env) for _ in range(5))
        theirs = min(by_bpftool(path) for _ in range(3))
        exact = min(by_key(whole) for _ in range(20)) * 1000
    times = theirs / ours
    print(f"entries in the map                    {held:>9}")
    print(f"bpftool map dump pinned | grep        {theirs * 1000:9.1f} ms")
    print(f"node pod, a session, one flow         {ours * 1000:9.1f} ms")
    print(f"node side that starts for it          {alone * 1000:9.1f} ms  {megabytes:.1f} MB")
    print(f"by key, in this process               {exact:9.2f} ms")
    print(
        f"ratio: {times:.1f} (at least {TIMES_AT_LEAST:.0f}); {theirs / alone:.1f} with its start"
    )
    good = times >= TIMES_AT_LEAST and megabytes < MEGABYTES_BELOW and exact < MILLISECONDS_BELOW
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
