"""`doctor`, `capture` and `path` of 20, 200 and 2,000 nodes: threads, memory and time.

    .venv/bin/python bench/many_nodes.py

The cluster is a FAKE API server in another process (tests/collect/many_nodes.py), which answers
each exec at once; an agent prints some 200 KB for a capture. Each run is a process of its own: its
threads at most, its peak memory above that of the same process before it asked, the seconds until
all was gathered, and the seconds of processor to explain it: doctor's report, or a path in the
capture. Of a live `path`, which asks one of the nodes and reads the list of them, gathering is
counted in seconds of processor too; there, nodes list the 50 images that a kubelet reports.
Exits 1 when there are more threads than a pool has and a few, when memory exceeds MEMORY_AT_MOST,
or when 2,000 nodes cost more than RATIO_AT_MOST times 200.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from ipaddress import ip_address
from pathlib import Path

ROOT = Path(__file__).parent.parent
COUNTS = (20, 200, 2000)
LINES = 200
THREADS_AT_MOST = 20  # 16 of the pool, the main thread, a few of imports and of this bench
RATIO_AT_MOST = 15.0
MEMORY_AT_MOST = 300.0  # MiB; the lists of objects are held whole


def memory() -> float:
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(command: str, url: str) -> dict[str, float]:
    """Run one command in this process, against a server."""
    from kubectl_ebpfnet.capture.open import open_bundle
    from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
    from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
    from kubectl_ebpfnet.collect.capture import capture
    from kubectl_ebpfnet.collect.doctor import checkup
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.collect.path import look
    from kubectl_ebpfnet.explain.doctor.report import examine
    from kubectl_ebpfnet.explain.path.walk import explain
    from kubectl_ebpfnet.model.net import TCP
    from kubectl_ebpfnet.model.path import PathRequest

    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, threading.active_count() - 1)

    threading.Thread(target=watch).start()
    request = PathRequest(
        "pod/client", "default", "client", "10.0.1.1", "address", TCP, port=80,
        destination_address=ip_address("10.0.1.1"),
    )  # fmt: skip
    before = memory()
    clock = time.process_time if command == "path" else time.perf_counter
    begun = clock()
    with (
        Session.open(ConnectionOptions(server=url)) as session,
        tempfile.TemporaryDirectory() as folder,
    ):
        if command == "capture":
            file = Path(folder) / "x.zip"
            capture(session, [], file, access=NodeAccess(Mode.AUTO))
            gathered, peak = clock(), memory()
            bundle, explaining = open_bundle(file), time.process_time()
            explain(request, bundle)
        elif command == "path":
            with Gatherer(session) as gatherer:
                request, bundle = look(gatherer, request)
            gathered, peak, explaining = clock(), memory(), time.process_time()
            explain(request, bundle)
        else:
            bundle = checkup(session, NodeAccess(Mode.AUTO))
            gathered, peak, explaining = clock(), memory(), time.process_time()
            nodes = examine(bundle).nodes
            assert all(node.agent_exec for node in nodes), "every agent answers"
        explained = time.process_time() - explaining
    over.set()
    return {
        "threads": most,
        "memory": peak - before,
        "gather": gathered - begun,
        "explain": explained,
    }


def run(command: str, count: int) -> dict[str, float]:
    """Measure a command on so many nodes, each in a process of its own."""
    images = 50 if command == "path" else 0
    said = [str(number) for number in (count, LINES, images)]
    serve = [sys.executable, "-m", "tests.collect.many_nodes", *said]
    with subprocess.Popen(
        serve, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        done = subprocess.run(
            [sys.executable, __file__, command, url], capture_output=True, text=True, check=True
        )
        assert server.stdin is not None
        server.stdin.close()
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    """Measure and print; 1 when something grows too fast."""
    within = True
    print("command  nodes  threads  memory MiB  gather s  explain s")
    for command in ("doctor", "capture", "path"):
        found = {count: run(command, count) for count in COUNTS}
        for count, row in found.items():
            print(
                f"{command:8} {count:5} {row['threads']:8.0f} {row['memory']:11.1f}"
                f" {row['gather']:9.2f} {row['explain']:10.2f}"
            )
            within &= row["threads"] <= THREADS_AT_MOST and row["memory"] <= MEMORY_AT_MOST
        few, many = found[200], found[2000]
        ratios = [many[part] / few[part] for part in ("gather", "explain") if few[part] > 0.01]
        print(f"  2,000 nodes over 200: {', '.join(f'{r:.1f}' for r in ratios)} times")
        within &= all(ratio <= RATIO_AT_MOST for ratio in ratios)
    return 0 if within else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
    else:
        sys.exit(main())
