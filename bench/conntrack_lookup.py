"""One flow among 100,000 nf_conntrack entries, against `conntrack -L` with the same filter.

    sudo .venv/bin/python bench/conntrack_lookup.py

Makes a network namespace with the entries in it and takes it away again. Prints medians: of whole
processes, and of what the node side does with the request itself, from the request to the lines of
the answer (a node pod is asked over and over by one process). Fails when that part is slower than
the conntrack process. Without a source port the kernel is asked for four dumps (the address may be
any end of either direction, conntrack(8) looks at one); with it, by key.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL, FlowFilter, NodeRequest, node_argv
from kubectl_ebpfnet.node.server.answer import whole_answer

ENTRIES, RUNS, AT_MOST = 100_000, 5, 1.0
NAMESPACE = f"ebpfnet-bench-{os.getpid()}"
MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
SOURCE, DESTINATION, PORT = "10.129.100.100", "10.9.0.1", 443
FILTERS = {
    "same filter": FlowFilter(ip_address(SOURCE), None, ip_address(DESTINATION), PORT, 6),
    "with its source port": FlowFilter(ip_address(SOURCE), 1124, ip_address(DESTINATION), PORT, 6),
}
CONNTRACK = ("conntrack", "-L", "-s", SOURCE, "-d", DESTINATION, "-p", "tcp", "--dport", str(PORT))
INSIDE = ("ip", "netns", "exec", NAMESPACE)


def request(wanted: FlowFilter) -> NodeRequest:
    """What a client would ask."""
    return NodeRequest(1, node_argv("conntrack"), flows=(wanted,))


def table() -> str:
    """Lines for `conntrack -R`: sources 10.128.0.0 and on, to one server."""
    return "".join(
        f"-I -p tcp -s 10.{128 + n // 50000}.{n // 250 % 200}.{n % 250} -d {DESTINATION}"
        f" --sport {1024 + n % 1000} --dport {PORT} --state ESTABLISHED --timeout 3600"
        " -u SEEN_REPLY,ASSURED\n"
        for n in range(ENTRIES)
    )


@contextmanager
def filled() -> Iterator[None]:
    """The namespace; the kernel's limit is raised only where it is too low, and set back."""
    before = int(MOST.read_text())
    try:
        if before < ENTRIES * 2:
            MOST.write_text(str(ENTRIES * 2))
        subprocess.run(("ip", "netns", "add", NAMESPACE), check=True)
        restore = (*INSIDE, "conntrack", "-R", "-")
        subprocess.run(restore, input=table(), text=True, capture_output=True, check=True)
        yield
    finally:
        subprocess.run(("ip", "netns", "del", NAMESPACE), check=False)
        if before < ENTRIES * 2:
            MOST.write_text(str(before))


def median(what: Callable[[], object]) -> float:
    """Median wall time in milliseconds."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        what()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def found(argv: tuple[str, ...], stdin: str = "") -> str:
    """What a process in the namespace prints; one line of it must be the flow."""
    done = subprocess.run((*INSIDE, *argv), input=stdin, capture_output=True, text=True, check=True)
    assert done.stdout.count(SOURCE) == 2, done.stdout
    return done.stdout


def whole(wanted: FlowFilter) -> None:
    """A node side of its own for one question."""
    asked = {**codec.plain(request(wanted)), "protocol": PROTOCOL}
    argv = (sys.executable, "-m", "kubectl_ebpfnet.node")
    found(argv, f'{json.dumps(asked)}\n{{"end": true}}\n')


def in_process() -> None:
    """Runs in the namespace: milliseconds that each filter takes, as JSON."""
    answers = {name: whole_answer(request(wanted)).stdout for name, wanted in FILTERS.items()}
    assert all(said.count(b"\n") == 1 for said in answers.values()), answers
    times = {
        name: median(lambda w=wanted: whole_answer(request(w))) for name, wanted in FILTERS.items()
    }
    print(json.dumps(times))


def main() -> int:
    """Measure and print."""
    if os.geteuid() or not shutil.which("conntrack"):
        print("skipped: needs root and conntrack(8)")
        return 0
    with filled():
        count = int(subprocess.check_output((*INSIDE, "conntrack", "-C")))
        assert count == ENTRIES, count
        baseline = median(lambda: found(CONNTRACK))
        whole_times = {name: median(lambda w=w: whole(w)) for name, w in FILTERS.items()}
        argv = (*INSIDE, sys.executable, __file__, "--inside")
        inner = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    print(f"{' '.join(CONNTRACK)}   {baseline:8.2f} ms")
    for name in FILTERS:
        print(f"node side, {name + ':':22} process {whole_times[name]:8.2f} ms", end="")
        print(f"   in process {inner[name]:8.2f} ms", end="")
        print(f"   ratios {whole_times[name] / baseline:.2f}, {inner[name] / baseline:.4f}")
    ratio = inner["same filter"] / baseline
    print(f"ratio in process, same filter: {ratio:.2f} (at most {AT_MOST})")
    return 0 if ratio <= AT_MOST else 1


if __name__ == "__main__":
    sys.exit(in_process() if "--inside" in sys.argv else main())
