"""What tracing takes beside its cost a hook (bench/trace.py): the rate of a flood with and without
it, events that are read, the time to load and attach, the memory of a session.

    .venv/bin/python bench/trace_load.py      (root, clang, libbpf, bpftool, nft)

A flood of small datagrams goes through two pairs of veth, is forwarded and masqueraded; its sender
does all of that work, so its rate tells what each packet costs. Ratios are of interleaved pairs:
the second best of PAIRS is judged, the median is printed beside it, since neighbours on this
machine take what they like. The load is held against `bpftool prog loadall` of the same object.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.tracing import TraceRequest
from kubectl_ebpfnet.node.bpf.libbpf import BUILT
from kubectl_ebpfnet.node.trace.packets import DROPS_ONLY, PacketTrace, Selection

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.node.trace import lan

PAIRS, SECONDS = 10, 0.5
LEAST = {"all hooks": 0.80, "drops only": 0.97}
EVENTS, EVENT_SECONDS = 100_000, 10
MOST_LOAD, MOST_MB = 1.5, 40
_MASQUERADE = """table inet nat {
    chain out { type nat hook postrouting priority 100; oifname "s0" masquerade; };
}"""


def rate() -> float:
    """Return datagrams a second of a flood of another flow than is followed."""
    with lan.open_socket("client") as client:
        client.connect((lan.SERVER[4], lan.CLOSED + 1))
        client.setblocking(False)
        count, until = 0, time.perf_counter() + SECONDS
        begun = time.perf_counter()
        while time.perf_counter() < until:
            for _ in range(100):
                try:
                    client.send(b"small")
                except OSError:  # what an answer of the server's kernel (port unreachable) tells
                    continue
                count += 1
        return count / (time.perf_counter() - begun)


def ratios(selection: Selection) -> list[float]:
    """Return the rates with a trace of another flow against those without, the best first."""
    found = []
    for _ in range(PAIRS):
        without = rate()
        with PacketTrace(selection):
            found.append(rate() / without)
    return sorted(found, reverse=True)


@contextmanager
def flood(datagrams: int) -> Iterator[None]:
    """A process that sends so many datagrams a second of the flow that is followed."""
    code = (
        "import socket, sys, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"s.connect(({lan.SERVER[4]!r}, {lan.CLOSED + 1}))\n"
        "begun, sent = time.monotonic(), 0\n"
        "while True:\n"
        f"    due = int((time.monotonic() - begun) * {datagrams})\n"
        "    while sent < due:\n"
        "        sent += 1\n"
        "        try: s.send(b'small')\n"
        "        except OSError: pass\n"
        "    time.sleep(0.001)\n"
    )
    argv = ("ip", "netns", "exec", Path(lan.path("client")).name, sys.executable, "-c", code)
    with subprocess.Popen(argv) as process:
        try:
            yield
        finally:
            process.kill()


def events() -> tuple[float, int]:
    """Return matched events a second that are read and counted, and how many were lost."""
    followed = Selection(
        (lan.to_server(port=lan.CLOSED + 1),), events_per_second=10**7, ring_bytes=1 << 24
    )
    with PacketTrace(followed) as trace, flood(EVENTS // 8):
        trace.records(1.0)
        count, begun = 0, time.perf_counter()
        while (spent := time.perf_counter() - begun) < EVENT_SECONDS:
            count += len(trace.records(0.1))
        lost = trace.losses()
        return count / spent, lost.over_budget + lost.ring_full


def loads() -> tuple[float, float]:
    """Return the best of five seconds that our load and attach take, and that bpftool's load."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        load = f"bpftool prog loadall {BUILT}/trace.bpf.o {folder}/x"
        script = f"mount -t bpf none {folder} && time -p {load}"
        argv = ("unshare", "-m", "bash", "-c", script)
        for _ in range(5):
            begun = time.perf_counter()
            with PacketTrace(Selection(netns=1)):
                ours.append(time.perf_counter() - begun)
            told = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
            theirs.append(float(told.partition("real ")[2].split()[0]))
    return min(ours), min(theirs)


def memory() -> tuple[float, float]:
    """Return MB of a session's own memory, at rest and under a flood of what it follows."""
    request = TraceRequest((lan.to_server(port=lan.CLOSED + 1),), seconds=60)
    argv = (sys.executable, "-m", "kubectl_ebpfnet.node", "trace",
            codec.line_of(request).decode().strip())  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as session:
        assert session.stdout is not None
        assert session.stdin is not None
        session.stdout.readline()
        rest = private(session.pid)
        os.set_blocking(session.stdout.fileno(), False)
        most = rest
        with flood(EVENTS // 8):
            for _ in range(30):
                time.sleep(0.1)
                session.stdout.read()
                most = max(most, private(session.pid))
        session.stdin.close()
        session.kill()
    return rest, most


def private(pid: int) -> float:
    """Return MB that belong to a process alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def main() -> int:
    """Measure and print; 1 when something is beyond its limit."""
    good = True

    def say(what: str, text: str, fits: bool) -> None:
        nonlocal good
        good = good and fits
        print(f"{what:34} {text}{'' if fits else '   BEYOND'}", flush=True)

    with lan.lan():
        lan.nft("router", _MASQUERADE)
        lan.ask()
        for name, programs in (("all hooks", None), ("drops only", DROPS_ONLY)):
            chosen = Selection((lan.to_server(),))
            if programs:
                chosen = Selection((lan.to_server(),), programs=programs)
            found = ratios(chosen)
            text = f"{found[1]:.2f} of its rate (median {median(found):.2f}; at least "
            say(f"a flood, {name}", f"{text}{LEAST[name]:.2f})", found[1] >= LEAST[name])
        each, lost = events()
        text = f"{each:,.0f} a second, {lost} lost (at least {EVENTS:,}, none)"
        say("events that are read", text, each >= EVENTS and not lost)
        rest, most = memory()
        text = f"{rest:.1f} MB, {most:.1f} under a flood (at most {MOST_MB})"
        say("a session's own memory", text, most <= MOST_MB)
    ours, theirs = loads()
    say("load and attach", f"{ours:.2f} s, bpftool's load {theirs:.2f}: {ours / theirs:.2f} "
        f"(at most {MOST_LOAD})", ours / theirs <= MOST_LOAD)  # fmt: skip
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
