"""`kubectl ebpfnet path` on a live cluster, in multiples of `kubectl exec -- true` of the same run.

Run: `.venv/bin/python bench/path_live.py` (make bench), with the lab up. It prints medians and
ratios of whole commands, and fails where one is above its limit:

- to an address, to a Service whose backend is on another node, and by a node pod that is there;
- beside 60,000 conntrack and NAT entries, as a multiple of the same without them. They are UDP
  entries of the pod itself to another address: a resolver has that many every day.

The lab's agent is a replay that costs nothing. So here each of its commands burns the CPU that the
real one takes (tests/lab/cluster/agent/switches.py, which has the figures): 45 ms for each start of
`cilium-dbg`, 28 ms for `hubble`, and half a second for 60,000 entries. `bpftool` is real.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.installed import installed
from tests.lab.cluster.agent import switches
from tests.lab.cluster.config import ADMIN_CONFIG, NODES

RUNS = 9
ENTRIES = 60_000
BIN = Path(sys.executable).parent
ENV = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "KUBECONFIG": str(ADMIN_CONFIG),
}
"""Modules are compiled once, not by every command."""
ADDRESS = ("path", "pod/client", "1.1.1.1:80", "--node-access", "agent")
SERVICE = ("path", "pod/client2", "svc/web:80", "--node-access", "agent")
BY_POD = ("path", "pod/client", "1.1.1.1:80", "--node-access", "pod", "--keep")
FLOWS = ("flows", "pod/client", "--node-access", "agent")
AT_MOST = {ADDRESS: 6.0, SERVICE: 9.0, BY_POD: 6.0}
"""Multiples of `kubectl exec -- true`."""
GROWTH_AT_MOST = {ADDRESS: 3.0, FLOWS: 4.0}
"""Multiples of the same command without the entries."""


def seconds(argv: Sequence[str]) -> float:
    """Wall time of a command; 3 and 4 are answers, too."""
    begun = time.perf_counter()
    done = subprocess.run(argv, env=ENV, capture_output=True, check=False)
    if done.returncode not in (0, 3, 4):
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.decode()}")
    return time.perf_counter() - begun


def ebpfnet(words: Sequence[str]) -> list[str]:
    """The command as its user types it."""
    return [str(BIN / "kubectl"), "ebpfnet", *words]


def medians(commands: dict[str, Sequence[str]]) -> dict[str, float]:
    """Take commands in turns, so that a busy machine slows all of them."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(RUNS + 1):
        for name, argv in commands.items():
            took = seconds(argv)
            if run:  # the first warms up, and deploys the node pod
                taken[name].append(took)
    return {name: statistics.median(times) for name, times in taken.items()}


def whole() -> bool:
    """Compare whole commands with one exec; whether they are within their limits."""
    floor = "kubectl exec -- true"
    commands = {floor: [str(BIN / "kubectl"), "exec", "client", "--", "true"]}
    commands |= {" ".join(words): ebpfnet(words) for words in AT_MOST}
    found = medians(commands)
    print(f"{floor:<62} {found[floor] * 1000:6.0f} ms")
    ratios = {words: found[" ".join(words)] / found[floor] for words in AT_MOST}
    for words, most in AT_MOST.items():
        took = found[" ".join(words)] * 1000
        print(f"{' '.join(words):<62} {took:6.0f} ms, {ratios[words]:.1f} (at most {most})")
    return all(ratios[words] <= most for words, most in AT_MOST.items())


@contextmanager
def many_entries() -> Iterator[None]:
    """Let the agent of pod client's node print many entries of that pod."""
    client = subprocess.run(
        [str(BIN / "kubectl"), "get", "pod", "client", "-o", "jsonpath={.status.podIP}"],
        env=ENV, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    ends = [f"{client}:{1024 + n} -> 10.99.{n >> 8}.{n & 255}:53" for n in range(ENTRIES)]
    ct = (
        f"UDP OUT {end} expires=9999 (remaining: 60 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x00 "
        f"LastRxReport={number % 5000} TxFlagsSeen=0x00 LastTxReport={number % 5000} Flags=0x0010 "
        "[ SeenNonSyn ] RevNAT=0 SourceSecurityID=15790 BackendID=0 "
        for number, end in enumerate(ends)
    )
    nat = (f"UDP OUT {end} XLATE_SRC 172.30.0.11:{end[-5:]} Created=9sec ago" for end in ends)
    with ExitStack() as stack:
        stack.enter_context(switches.more(NODES[0], "bpf ct list global -d", ct))
        stack.enter_context(switches.more(NODES[0], "bpf nat list", nat))
        yield


def growth() -> bool:
    """Compare commands with the same beside many entries; whether they are within limits."""
    commands = {" ".join(words): ebpfnet(words) for words in GROWTH_AT_MOST}
    before = medians(commands)
    with many_entries():
        after = medians(commands)
    within = []
    for words, most in GROWTH_AT_MOST.items():
        name = " ".join(words)
        ratio = after[name] / before[name]
        within.append(ratio <= most)
        print(
            f"{name:<62} {before[name] * 1000:6.0f} ms, beside {ENTRIES:,} entries "
            f"{after[name] * 1000:.0f} ms, {ratio:.1f} (at most {most})"
        )
    return all(within)


def main() -> int:
    """Measure and print; 1 when a ratio is above its limit."""
    if not ADMIN_CONFIG.exists():
        print("skipped: no lab (make lab-up)")
        return 0
    try:
        with switches.cost(), installed() as programs:
            ENV["PATH"] = f"{programs}:{ENV['PATH']}"
            within = [whole(), growth()]
    finally:
        subprocess.run(
            [str(BIN / "kubectl-ebpfnet"), "cleanup", "--yes"],
            env=ENV,
            capture_output=True,
            check=False,
        )
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
