"""`kubectl ebpfnet path` beside full tables, against the same beside nearly empty ones.

Run: `flock /tmp/ebpfnet-kernel.lock .venv/bin/python bench/growth.py [pod|agent|flows]`, with the
lab up and this checkout's image in it (`python -m tests.lab image`). For a while the node of pod
client has 500,000 entries of that pod in Cilium's conntrack and NAT, 60,000 of them of the tuple
that is asked for, a load-balancer of 10,000 frontends, an ipcache of 50,000 prefixes, and 5,000
policy entries of the pod:

- by node pod in real pinned maps of Cilium's layout, which take the place of the lab's (programs
  keep using their own). `path`, which deploys the node pod, takes at most 1.5 times as long, and so
  does one with a node pod that is there already, on a machine that does nothing else;
- by agent, whose `cilium-dbg` prints as many and burns the CPU of the real one (switches.py). At
  most 1.5 times as long, plus what `cilium-dbg bpf ct list global -d | wc -c` and
  `bpf nat list | wc -c` take there.

The client takes at most 60 MB more in either case. `flows`, which prints the newest thousand, and
all of them with --all, is linear: of four times as many flows it takes at most five times as long
(in this process, from a capture; text, wide, JSON).
"""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import chain, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from kubectl_ebpfnet.explain.flows import listing
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, agent_place, bundle_of
from kubectl_ebpfnet.node.bpf import maps, syscall
from kubectl_ebpfnet.render.lists.flows import listing as flow_list
from kubectl_ebpfnet.render.lists.listing import render
from kubectl_ebpfnet.render.text.view import View
from tests.lab.cluster.agent import switches
from tests.lab.cluster.config import ADMIN_CONFIG, NODES
from tests.lab.cluster.datapath import bpf, policy
from tests.lab.cluster.datapath.syscall_bpf import HASH, LPM_TRIE, LRU_HASH, NO_PREALLOC

RUNS = 3
ENTRIES, OF_TUPLE, FRONTENDS, PREFIXES, POLICIES = 500_000, 60_000, 10_000, 50_000, 5_000
OF_PORTS = 20_000
TIMES, MEGABYTES, LINEAR = 1.5, 60.0, 5.0
MAP_UPDATE_BATCH = 26
NODE = NODES[0]
BIN = Path(sys.executable).parent
ENV = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "KUBECONFIG": str(ADMIN_CONFIG),
}
ENV.pop("PYTHONDONTWRITEBYTECODE", None)
PEER, PORT = IPv4Address("1.1.1.1"), 80
BY_POD = ("path", "pod/client", f"{PEER}:{PORT}", "--node-access", "pod")
KEPT = (*BY_POD, "--keep")
BY_AGENT = ("path", "pod/client", f"{PEER}:{PORT}", "--node-access", "agent")
FLOWS = ("flows", "pod/client", "--node-access", "pod", "--keep")
Entries = Iterable[tuple[bytes, bytes]]
ASIDE = "bench_"
"""Before the name of a map of the lab whose place another has taken."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command takes: the median of some runs."""

    seconds: float
    megabytes: float


def once(argv: Sequence[str]) -> Cost:
    """Run a command to its end; 3 and 4 are answers, too."""
    begun = time.perf_counter()
    with subprocess.Popen(argv, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None
        said = run.stderr.read()
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode not in (0, 3, 4):
        raise RuntimeError(f"{' '.join(argv)}: {said.decode()}")
    return Cost(time.perf_counter() - begun, usage.ru_maxrss / 1024)


def medians(commands: Iterable[Sequence[str]]) -> dict[Sequence[str], Cost]:
    """Take commands in turns, so that a busy machine slows all of them; the first run warms up."""
    taken: dict[Sequence[str], list[Cost]] = {argv: [] for argv in commands}
    for run in range(RUNS + 1):
        for argv, costs in taken.items():
            cost = once(argv)
            if run:
                costs.append(cost)
    return {
        argv: Cost(
            statistics.median(c.seconds for c in costs),
            statistics.median(c.megabytes for c in costs),
        )
        for argv, costs in taken.items()
    }


def ebpfnet(words: Sequence[str]) -> tuple[str, ...]:
    """The command as its user types it."""
    return (str(BIN / "kubectl"), "ebpfnet", *words)


# --- the tables -----------------------------------------------------------------------------------


def tuples() -> Iterator[tuple[int, IPv4Address, int]]:
    """Source port, peer and its port of each entry: of the tuple that is asked for first."""
    for number in range(ENTRIES):
        peer = IPv4Address(int(PEER) + number // OF_TUPLE)
        yield 1024 + number % OF_TUPLE, peer, PORT


def conntrack(pod: IPv4Address, now: int) -> Entries:
    """OUT entries, whose addresses stand the wrong way round."""
    for number, (source, peer, port) in enumerate(tuples()):
        seen = now - number % 5000
        yield (
            pod.packed + peer.packed + struct.pack(">HHBB", port, source, 6, 0),
            struct.pack("=QQQQIH2sHBBIII", 0, 0, 9, 900, now + 8000, 0x10, b"", 0, 0x1A, 0x1A,
                        4711, seen, seen),
        )  # fmt: skip


def nat(pod: IPv4Address, now: int) -> Entries:
    """Both halves of half as many translations. A destination has no more than one address of a
    node has ports for (32768 to 65535), and not nearly as many: then the whole map is read."""
    node = IPv4Address(NODE.address)
    for number in range(ENTRIES // 2):
        source, peer, port = 1024 + number % OF_PORTS, PEER + number // OF_PORTS, PORT
        new = 32768 + number % OF_PORTS
        head = struct.pack("=QQ16x", now - number % 5000, 0)
        yield (
            peer.packed + pod.packed + struct.pack(">HHBB", port, source, 6, 0),
            head + node.packed + struct.pack(">H2x", new),
        )
        yield (
            node.packed + peer.packed + struct.pack(">HHBB", new, port, 6, 1),
            head + pod.packed + struct.pack(">H2x", source),
        )


def services() -> Entries:
    """Frontends with three backends each."""
    for number in range(FRONTENDS):
        key = IPv4Address(0x0A640000 + number).packed + struct.pack(">H", 80)
        rev_nat = struct.pack(">H", number + 1000)
        for slot in range(4):
            value = struct.pack("=IH", number * 3 + slot + 1000 if slot else 0, 0 if slot else 3)
            yield (
                key + struct.pack("=HBBH", slot, 6, 0, 0),
                value + rev_nat + bytes((0 if slot else 0x40, 0, 0, 0)),
            )


def backends() -> Entries:
    """What they name."""
    for number in range(3 * FRONTENDS):
        yield (
            struct.pack("=I", number + 1001),
            IPv4Address(0x0AC80000 + number).packed + struct.pack(">HBB", 8080, 6, 0) + bytes(4),
        )


def prefixes() -> Entries:
    """Pods of other nodes."""
    for number in range(PREFIXES):
        yield (
            bpf.ipcache_key(f"{IPv4Address(0x0AC80000 + number)}/32"),
            bpf.ipcache_value(20_000 + number % 3000),
        )


def policies() -> Entries:
    """As many identities that may be reached at one port."""
    for number in range(POLICIES):
        yield bpf.policy_key(30_000 + number, True, 6, PORT), bpf.ALLOW


def put(fd: int, entries: Entries) -> None:
    """Write entries, many a call."""
    left = iter(entries)
    while some := list(islice(left, 16384)):
        keys = syscall.buffer(b"".join(key for key, _ in some))
        values = syscall.buffer(b"".join(value for _, value in some))
        attr = struct.pack("=QQQQIIQQ", 0, 0, syscall.pointer(keys), syscall.pointer(values),
                           len(some), fd, 0, 0)  # fmt: skip
        syscall.syscall(MAP_UPDATE_BATCH, ctypes.create_string_buffer(attr, 128), "fill a map")


@contextmanager
def replaced(
    path: Path, kind: int, sizes: tuple[int, int], most: int, more: Entries
) -> Iterator[None]:
    """Pin a map with the entries of the one that is there, and more, in its place."""
    own: list[tuple[bytes, bytes]] = []
    aside = path.with_name(f"{ASIDE}{path.name}")
    there = path.exists()
    if there:
        with maps.Map.pinned(path) as table:
            own = list(table.items())
    attr = struct.pack("=IIIII", kind, *sizes, most, NO_PREALLOC if kind == LPM_TRIE else 0)
    with syscall.closing(syscall.syscall(syscall.MAP_CREATE, attr, "make a map")) as fd:
        put(fd, chain(own, more))
        name = syscall.buffer(os.fsencode(path) + b"\0")
        if there:
            path.rename(aside)
        try:
            pin = struct.pack("=QII", syscall.pointer(name), fd, 0)
            syscall.syscall(syscall.OBJ_PIN, pin, "pin a map")
            yield
        finally:
            path.unlink(missing_ok=True)
            if there:
                aside.rename(path)


@contextmanager
def full_maps(pod: IPv4Address, endpoint: int) -> Iterator[None]:
    """Let the node's pinned maps be full."""
    folder = policy.bpffs(NODE.name) / "tc/globals"
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    room = ENTRIES + ENTRIES // 20
    with ExitStack() as stack:
        for name, kind, sizes, most, more in (
            ("cilium_ct4_global", LRU_HASH, (14, 56), room, conntrack(pod, now)),
            ("cilium_snat_v4_external", LRU_HASH, (14, 40), room, nat(pod, now)),
            ("cilium_lb4_services_v2", HASH, (12, 12), 65536, services()),
            ("cilium_lb4_backends_v3", HASH, (4, 12), 65536, backends()),
            ("cilium_ipcache_v2", LPM_TRIE, bpf.IPCACHE, 512_000, prefixes()),
            (bpf.policy_map(endpoint).name, LPM_TRIE, bpf.POLICY, 16384, policies()),
        ):
            stack.enter_context(replaced(folder / name, kind, sizes, most, more))
        yield


@contextmanager
def long_lists(pod: IPv4Address, endpoint: int) -> Iterator[None]:
    """Let the node's agent print as many entries."""
    folder = policy.bpffs(NODE.name) / "tc/globals"
    ct = (
        f"TCP OUT {pod}:{source} -> {peer}:{port} expires=99999999 (remaining: 8000 sec(s)) "
        f"Packets=9 Bytes=900 RxFlagsSeen=0x1a LastRxReport={number % 5000} TxFlagsSeen=0x1a "
        f"LastTxReport={number % 5000} Flags=0x0010 [ SeenNonSyn ] RevNAT=0 SourceSecurityID=4711 "
        "BackendID=0 NatPort=0 "
        for number, (source, peer, port) in enumerate(tuples())
    )
    translated = (
        line
        for number, (source, peer, port) in islice(enumerate(tuples()), ENTRIES // 2)
        for line in (
            f"TCP OUT {pod}:{source} -> {peer}:{port} XLATE_SRC {NODE.address}:{source} "
            f"Created={number % 5000}sec ago NeedsCT=0 ",
            f"TCP IN {peer}:{port} -> {NODE.address}:{source} XLATE_DST {pod}:{source} "
            f"Created={number % 5000}sec ago NeedsCT=0 ",
        )
    )
    front = column("bpf lb list", "BACKEND ADDRESS")
    balanced = (
        f"{f'{IPv4Address(0x0A640000 + number)}:80/TCP ({slot})':<{front}}"
        + (
            f"{IPv4Address(0x0AC80000 + number * 3 + slot)}:8080/TCP ({number + 1000}) ({slot})"
            if slot
            else f"0.0.0.0:0 ({number + 1000}) (0) [ClusterIP, non-routable]"
        )
        for number in range(FRONTENDS)
        for slot in range(4)
    )
    identity = column("bpf ipcache list", "IDENTITY")
    cached = (
        f"{f'{IPv4Address(0x0AC80000 + number)}/32':<{identity}}identity={20_000 + number % 3000} "
        "encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>"
        for number in range(PREFIXES)
    )
    own = folder / bpf.policy_map(endpoint).name
    with ExitStack() as stack:
        stack.enter_context(switches.more(NODE, "bpf ct list global -d", ct))
        stack.enter_context(switches.more(NODE, "bpf nat list", translated))
        stack.enter_context(switches.more(NODE, "bpf lb list", balanced))
        stack.enter_context(switches.more(NODE, "bpf ipcache list", cached))
        stack.enter_context(replaced(own, LPM_TRIE, bpf.POLICY, 16384, policies()))
        yield


def in_agent(script: str) -> tuple[str, ...]:
    """The command that runs a shell script in the agent of the node."""
    agent = subprocess.check_output(
        (str(BIN / "kubectl"), "get", "pods", "-n", "kube-system", "-l", "k8s-app=cilium",
         "--field-selector", f"spec.nodeName={NODE.name}", "-o", "name"),
        env=ENV, text=True,
    ).strip()  # fmt: skip
    return (str(BIN / "kubectl"), "exec", "-n", "kube-system", agent, "--", "sh", "-c", script)


def column(words: str, header: str) -> int:
    """Where a column of a list of the agent begins."""
    said = subprocess.check_output(in_agent(f"cilium-dbg {words}"), env=ENV, text=True)
    return said.index(header)


# --- what is compared -----------------------------------------------------------------------------


def by_node_pod(pod: IPv4Address, endpoint: int) -> bool:
    """Compare `path` by node pod beside full maps."""
    command, kept, listed = ebpfnet(BY_POD), ebpfnet(KEPT), ebpfnet(FLOWS)
    idle = medians([command])[command]  # before one is kept
    idle_kept = medians([kept])[kept]
    with full_maps(pod, endpoint):
        full_kept = medians([kept, listed])
        cleanup()
        full = medians([command])[command]
    print(f"{'flows by node pod, full':<30} {full_kept[listed].seconds:6.2f} s "
          f"{full_kept[listed].megabytes:6.0f} MB")  # fmt: skip
    most = TIMES * idle_kept.seconds
    there = within("path by a node pod that is there", idle_kept, full_kept[kept], most)
    return within("path by node pod", idle, full, TIMES * idle.seconds) and there


def by_agent(pod: IPv4Address, endpoint: int) -> bool:
    """Compare `path` by agent beside long lists."""
    command = ebpfnet(BY_AGENT)
    idle = medians([command])[command]
    words = ("bpf ct list global -d", "bpf nat list")
    lists = [in_agent(f"cilium-dbg {each} | wc -c") for each in words]
    bare = in_agent("true")
    with long_lists(pod, endpoint):
        costs = medians([command, bare, *lists])
    print_ = sum(costs[argv].seconds - costs[bare].seconds for argv in lists)
    print(f"{'both lists in the agent':<30} {print_:6.2f} s")
    return within("path by agent", idle, costs[command], TIMES * idle.seconds + print_)


def within(name: str, idle: Cost, full: Cost, most: float) -> bool:
    """Print both, and tell whether the second is within its limits."""
    more = full.megabytes - idle.megabytes
    print(f"{name + ', idle':<30} {idle.seconds:6.2f} s {idle.megabytes:6.0f} MB")
    print(
        f"{name + ', full':<30} {full.seconds:6.2f} s {full.megabytes:6.0f} MB   "
        f"{full.seconds / idle.seconds:.2f} times (at most {most:.2f} s), "
        f"{more:+.0f} MB (at most {MEGABYTES:.0f})"
    )
    return full.seconds <= most and more <= MEGABYTES


def flows() -> bool:
    """Compare explaining and printing of many flows with that of a quarter of them."""
    took = []
    for number in (10_000, 40_000):
        bundle = captured(number)
        begun = time.process_time()
        found = listing.of_node(NODE.name, bundle)
        for form in ("table", "wide", "json"):
            render(flow_list(found), bundle, form, View(width=120))
        took.append(time.process_time() - begun)
        assert len(found.flows) == number
    ratio = took[1] / took[0]
    print(f"flows of 10,000 and 40,000    {took[0]:6.2f} s {took[1]:6.2f} s   {ratio:.1f} times "
          f"(at most {LINEAR:.0f})")  # fmt: skip
    return ratio <= LINEAR


def captured(number: int) -> Bundle:
    """What an agent printed of so many flows."""
    ends = [(1024 + n % 60_000, IPv4Address(int(PEER) + n // 60_000)) for n in range(number)]
    ct = "".join(
        f"TCP OUT 10.0.1.7:{port} -> {peer}:80 expires=99999 (remaining: 60 sec(s)) "
        f"RxFlagsSeen=0x1a LastRxReport={n % 5000} TxFlagsSeen=0x1a LastTxReport={n % 5000} "
        "Flags=0x0010 [ SeenNonSyn ] RevNAT=0 SourceSecurityID=4711 BackendID=0 NatPort=0 \n"
        for n, (port, peer) in enumerate(ends)
    )
    translated = "".join(
        f"TCP OUT 10.0.1.7:{port} -> {peer}:80 XLATE_SRC {NODE.address}:{port} Created=9sec ago "
        "NeedsCT=0 \n"
        for port, peer in ends
    )
    tables = (("bpf ct list global -d", ct), ("bpf nat list", translated))
    return bundle_of(
        Record(
            0, agent_place(NODE.name), ("cilium-dbg", *words.split()), 0, InMemory(text.encode())
        )
        for words, text in tables
    )


def cleanup() -> None:
    """Take node pods away that were kept."""
    words = [str(BIN / "kubectl-ebpfnet"), "cleanup", "--yes"]
    subprocess.run(words, env=ENV, capture_output=True, check=False)


def undo() -> None:
    """Put back what a run that was killed has left in the lab."""
    folder = policy.bpffs(NODE.name) / "tc/globals"
    for aside in folder.glob(f"{ASIDE}*"):
        own = aside.with_name(aside.name.removeprefix(ASIDE))
        own.unlink(missing_ok=True)
        aside.rename(own)


def main() -> int:
    """Measure and print; 1 when a limit is exceeded."""
    asked = sys.argv[1:] or ["pod", "agent", "flows"]
    good = [beside_full_tables(asked)]
    # Last: a child's peak begins with what its parent held, and this holds a gigabyte.
    good += [flows()] if "flows" in asked else []
    return 0 if all(good) else 1


def beside_full_tables(asked: Sequence[str]) -> bool:
    """Measure the ways that are asked for in the lab."""
    if not ADMIN_CONFIG.exists():
        print("skipped: no lab (make lab-up)")
        return True
    # What is changed in the lab is put back when `timeout` ends this, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    undo()
    mine = policy.endpoint("default", "client")
    pod, endpoint = IPv4Address(str(mine["address"])), int(str(mine["id"]))
    ways = {"pod": by_node_pod, "agent": by_agent}
    try:
        with switches.cost():
            good = [ways[word](pod, endpoint) for word in asked if word in ways]
    finally:
        cleanup()
    return all(good)


if __name__ == "__main__":
    sys.exit(main())
