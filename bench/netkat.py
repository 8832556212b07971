"""netkat against netcat-openbsd, between the same ends of one veth pair, in the same run.

    sudo .venv/bin/python bench/netkat.py [MEGABYTES]

Needs root. Prints medians of 5 runs, each tool in turn:

    send, receive   MB/s between the first byte and the last, at the far end and at our stdout
    first byte      from the tool's start to the first byte of the peer's greeting on its stdout
    memory          the most that the tool had in RAM (VmHWM), after all that

For the first byte netkat is what `kubectl ebpfnet netkat` starts in a node pod, a fork of the pod's
first process (node/server/zygote.py); for the rest, and beside it, it is `python -m
kubectl_ebpfnet.node.netkat`, which starts Python each time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubectl_ebpfnet.model.protocol.frames import OPTION, PROGRAM, Kind, frame

ROOT = Path(__file__).parents[1]
RUNS = 5
NEAR, FAR, PORT = "10.77.0.1", "10.77.0.2", "7777"
THROUGHPUT_AT_LEAST, FIRST_BYTE_AT_MOST_MS, MEMORY_AT_MOST_MB = 0.9, 100.0, 60.0
NETKAT = (sys.executable, "-m", "kubectl_ebpfnet.node.netkat")
# The far end, a process of its own. It says when it listens, and how long the bytes took.
_SINK = """
import socket, sys, time
s = socket.create_server(("10.77.0.2", 7777)); print("ready", flush=True)
c, _ = s.accept(); m = bytearray(1 << 20); n = c.recv_into(m); t = time.perf_counter()
while k := c.recv_into(m): n += k
print(n / 1e6 / (time.perf_counter() - t))
"""
_SOURCE = """
import socket, sys
s = socket.create_server(("10.77.0.2", 7777)); print("ready", flush=True)
c, _ = s.accept(); m = bytes(1 << 20)
for _ in range(int(sys.argv[1])): c.sendall(m)
c.close()
"""
_GREETING = """
import socket
s = socket.create_server(("10.77.0.2", 7777)); print("ready", flush=True)
c, _ = s.accept(); c.sendall(b"x"); c.recv(1)
"""


@dataclass(frozen=True)
class Ends:
    """Two namespaces of this bench's own."""

    near: str
    far: str

    def start(self, where: str, *argv: str, **more: object) -> subprocess.Popen[bytes]:
        """A program in one of them."""
        whole = ("nsenter", f"--net=/run/netns/{where}", *argv)
        return subprocess.Popen(whole, cwd=ROOT, **more)  # type: ignore[call-overload]

    def server(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """The far end, when it listens."""
        argv = (sys.executable, "-c", program, *words)
        child = self.start(self.far, *argv, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child


@contextmanager
def ends() -> Iterator[Ends]:
    """Make them, and take them away."""
    made = Ends(f"netkat-bench-{os.getpid()}-a", f"netkat-bench-{os.getpid()}-b")
    try:
        for name in (made.near, made.far):
            subprocess.run(("ip", "netns", "add", name), check=True)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", made.far)
        subprocess.run(("ip", "-n", made.near, "link", "add", "eth0", *pair), check=True)
        for name, address in ((made.near, NEAR), (made.far, FAR)):
            for words in (
                ("link", "set", "eth0", "up"),
                ("addr", "add", f"{address}/24", "dev", "eth0"),
            ):
                subprocess.run(("ip", "-n", name, *words), check=True)
        yield made
    finally:
        for name in (made.near, made.far):
            subprocess.run(("ip", "netns", "del", name), check=False)


def send(between: Ends, tool: tuple[str, ...], megabytes: int) -> float:
    """MB/s that arrive at the far end."""
    server = between.server(_SINK)
    feed = subprocess.Popen(
        ("head", "-c", str(megabytes << 20), "/dev/zero"), stdout=subprocess.PIPE
    )
    client = between.start(between.near, *tool, FAR, PORT, stdin=feed.stdout)
    assert feed.stdout is not None
    feed.stdout.close()
    out, _ = server.communicate(timeout=120)
    client.wait(20)
    feed.wait(20)
    return float(out)


def receive(between: Ends, tool: tuple[str, ...], megabytes: int) -> float:
    """MB/s that come out of the tool's stdout."""
    server = between.server(_SOURCE, str(megabytes))
    client = between.start(
        between.near, *tool, FAR, PORT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    fd, memory = client.stdout.fileno(), bytearray(1 << 20)
    total = os.readv(fd, [memory])
    begun = time.perf_counter()
    while size := os.readv(fd, [memory]):
        total += size
    took = time.perf_counter() - begun
    client.wait(20)
    client.stdout.close()
    server.communicate(timeout=20)
    assert total == megabytes << 20, "not all came through"
    return total / 1e6 / took


def first_byte(between: Ends, tool: tuple[str, ...]) -> tuple[float, float]:
    """(ms to the first byte, MB of memory at its most)."""
    server = between.server(_GREETING)
    begun = time.perf_counter()
    client = between.start(
        between.near, *tool, FAR, PORT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert client.stdout is not None
    assert os.read(client.stdout.fileno(), 1) == b"x"
    took = (time.perf_counter() - begun) * 1000
    memory = high_water(client.pid)
    if OPTION in tool:  # else the end of the stream would be that of the client
        assert client.stdin is not None
        client.stdin.write(frame(Kind.END, PROGRAM))
        client.stdin.flush()
        client.wait(20)
    client.communicate(b"")
    server.communicate(timeout=20)
    return took, memory


def high_water(pid: int) -> float:
    """The most memory that a process has had, MB."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) / 1024 for row in rows if row.startswith("VmHWM"))


def memory_under_load(between: Ends, megabytes: int) -> float:
    """netkat's high-water mark while it receives, MB."""
    server = between.server(_SOURCE, str(megabytes))
    client = between.start(
        between.near, *NETKAT, FAR, PORT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    fd, memory, left, most = client.stdout.fileno(), bytearray(1 << 20), megabytes << 20, 0.0
    while left > 0:
        left -= os.readv(fd, [memory])
        if left < (megabytes << 19):
            most = most or high_water(client.pid)
    client.communicate(b"")
    server.communicate(timeout=20)
    return most


@contextmanager
def node_pod(between: Ends) -> Iterator[tuple[str, ...]]:
    """What an exec starts where a node pod's first process is there to serve it."""
    hold = "from kubectl_ebpfnet.node.server.zygote import serve_sessions; import pathlib, sys;"
    hold += "serve_sessions(60, pathlib.Path(sys.argv[1]))"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image" / "node.sock"
        path.parent.mkdir()
        holding = between.start(between.near, sys.executable, "-c", hold, str(path))
        try:
            while not path.exists():
                time.sleep(0.01)
            os.environ["EBPFNET_NODE_FOLDER"] = folder
            doorway = str(ROOT / "kubectl_ebpfnet/node/server/connect.py")
            yield (sys.executable, "-I", "-S", doorway, "0", "netkat", OPTION, "-N")
        finally:
            os.environ.pop("EBPFNET_NODE_FOLDER", None)
            holding.terminate()
            holding.wait(20)


def median_of(measure: Callable[[], float]) -> float:
    """Of five."""
    return statistics.median(measure() for _ in range(RUNS))


def started(*words: str) -> float:
    """ms that an interpreter with these words takes."""
    begun = time.perf_counter()
    subprocess.run((sys.executable, *words), cwd=ROOT, check=True)
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    """Measure and print."""
    if os.geteuid() != 0:
        print("skipped: not root")
        return
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    netkat, plain = (*NETKAT, "-N", "-w", "20"), ("nc", "-N")
    with ends() as between:
        for name, measure in (("send", send), ("receive", receive)):
            pairs = [
                (measure(between, netkat, megabytes), measure(between, plain, megabytes))
                for _ in range(RUNS)
            ]
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(
                f"{name:11} netkat {ours:6.0f} MB/s   nc {theirs:6.0f} MB/s   ratio"
                f" {ours / theirs:.2f} (at least {THROUGHPUT_AT_LEAST})"
            )
        theirs = median_of(lambda: first_byte(between, plain)[0])
        with node_pod(between) as argv:
            ours = median_of(lambda: first_byte(between, argv)[0])
        print(
            f"first byte  netkat {ours:6.1f} ms     nc {theirs:6.1f} ms     more by"
            f" {ours - theirs:.1f} ms (at most {FIRST_BYTE_AT_MOST_MS:g})"
        )
        assert ours - theirs <= FIRST_BYTE_AT_MOST_MS
        alone = median_of(lambda: first_byte(between, netkat)[0])
        start = median_of(lambda: started("-c", "pass"))
        imports = "import kubectl_ebpfnet.node.netkat.__main__"
        loaded = median_of(lambda: started("-c", imports))
        print(
            f"  python -m {alone:6.1f} ms, of it {start:.1f} ms the interpreter,"
            f" {loaded - start:.1f} ms imports"
        )
        most = memory_under_load(between, megabytes)
        print(f"memory      {most:.1f} MB (at most {MEMORY_AT_MOST_MB:g})")


if __name__ == "__main__":
    main()
