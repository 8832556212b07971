"""Probing through 50 next hops against probing through one: the node side's part of `probe-lb`.

    sudo .venv/bin/python bench/probe_many.py

One source namespace and 50 nodes, each a namespace on one bridge that owns the Service's address on
its loopback and serves HTTP. A fresh node side is asked over its protocol, as by an exec, to probe
through one of them and through all; best of 3. Then the same with 50 nodes that stay silent. Exits
1 when all take 3 times as long as one, or more. Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kubectl_ebpfnet.model.protocol.questions import PROTOCOL, node_argv

NODES = 50
RATIO_BELOW = 3.0
SERVICE, SILENT = "192.0.2.80", "192.0.2.81"
PREFIX = f"eb{os.getpid() % 10000}"
_SERVER = (
    "import http.server as h;h.BaseHTTPRequestHandler.log_message=lambda *a:None;"
    "h.ThreadingHTTPServer(('0.0.0.0',80),h.SimpleHTTPRequestHandler).serve_forever()"
)


def ip(*words: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def wire() -> Iterator[str]:
    """A bridge in a namespace of its own, a source and the nodes on it. Gives the source's name."""
    made: list[str] = []
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for name in (f"{PREFIX}w", f"{PREFIX}s", *(f"{PREFIX}n{n}" for n in range(NODES))):
            ip("netns", "add", name)
            made.append(name)
        switch = made[0]
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for number, name in enumerate(made[1:]):
            ip(
                "-n",
                switch,
                "link",
                "add",
                f"p{number}",
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                name,
            )
            ip("-n", switch, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
            ip(
                "-n",
                name,
                "addr",
                "add",
                f"10.77.{number // 250}.{number % 250 + 1}/16",
                "dev",
                "eth0",
            )
            if number:
                ip("-n", name, "addr", "add", f"{SERVICE}/32", "dev", "lo")
                run = ["ip", "netns", "exec", name, sys.executable, "-c", _SERVER]
                servers.append(
                    subprocess.Popen(run, cwd="/var/empty" if os.path.isdir("/var/empty") else "/")
                )
        ip("-n", made[1], "route", "add", "default", "via", "10.77.0.2")
        yield made[1]
    finally:
        for server in servers:
            server.kill()
            server.wait()
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def probe(source: str, nodes: int, address: str, wait: str) -> list[str]:
    """Probe through the first nodes; the outcomes."""
    via = ",".join(f"10.77.{n // 250}.{n % 250 + 1}" for n in range(1, nodes + 1))
    argv = node_argv("probe", address, "80", "wait", wait, "via", via, "http", "/")
    lines = [json.dumps({"protocol": PROTOCOL, "id": 1, "argv": argv})]
    command = ["ip", "netns", "exec", source, sys.executable, "-m", "kubectl_ebpfnet.node"]
    text = "\n".join([*lines, '{"end": true}', ""])
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    facts = [json.loads(line) for line in done.stdout.splitlines() if '"outcome"' in line]
    return [fact["outcome"] for fact in facts]


def best(source: str, nodes: int, address: str, wait: str, expected: str, times: int = 3) -> float:
    """Seconds of the quickest of some runs."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        outcomes = probe(source, nodes, address, wait)
        seconds.append(time.perf_counter() - begun)
        if outcomes != [expected] * nodes:
            raise SystemExit(f"{nodes} nodes: not all {expected}: {outcomes}")
    return min(seconds)


def main() -> int:
    """Measure and print; 1 when a ratio is above its limit."""
    if os.geteuid():
        print("skipped: needs root")
        return 0
    well = True
    with wire() as source:
        deadline = time.monotonic() + 60
        while probe(source, NODES, SERVICE, "1") != ["connected"] * NODES:
            if time.monotonic() > deadline:
                raise SystemExit("the nodes' servers do not answer")
        for address, wait, expected in ((SERVICE, "5", "connected"), (SILENT, "2", "timeout")):
            one = best(source, 1, address, wait, expected)
            many = best(source, NODES, address, wait, expected)
            print(f"through 1 node {one:6.2f} s, through {NODES} {many:6.2f} s ({expected});"
                  f" ratio {many / one:.2f} (below {RATIO_BELOW})")  # fmt: skip
            well = well and many / one < RATIO_BELOW
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
