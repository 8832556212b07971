"""All facts of a node, asked in one request, against a shell loop over its devices.

    sudo .venv/bin/python bench/node_facts.py

Makes a network namespace with 250 pods (a veth whose other end is in a second namespace, an
address, a route, a neighbour, and a clsact filter in each direction, as Cilium attaches before
Linux 6.6), and the same with 125. Prints how long the node side takes for links, addresses,
routes, rules, neighbours and attachments, in process as in a running node pod (best of 7), and
what this takes once for each device:

    ip -j link show dev X; tc filter show dev X ingress; tc filter show dev X egress

Exit code 1 when 250 pods take longer than 0.3 times the loop, or more than 2.6 times as long as
125.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.server.answer import whole_answer

PODS = (125, 250)
RUNS = 7
RATIO_AT_MOST, GROWTH_AT_MOST = 0.3, 2.6
QUESTIONS = ("links", "addresses", "routes", "rules", "neighbours", "attachments")
LOOP = """for path in /sys/class/net/lxc*; do
    dev=${path##*/}
    ip -j link show dev "$dev"
    tc filter show dev "$dev" ingress
    tc filter show dev "$dev" egress
done >/dev/null"""
_SCHED_CLS = 3


def main() -> int:
    """Measure and print. Returns the exit code."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        print("skipped: needs root and Linux")
        return 0
    taken = {}
    for pods in PODS:
        with node(pods) as name:
            taken[pods] = ours(name)
            loop = theirs(name)
        whole = sum(taken[pods].values())
        print(f"{pods} pods")
        for question, seconds in taken[pods].items():
            print(f"  {question:12} {seconds * 1000:8.1f} ms")
        print(f"  one request  {whole:8.3f} s")
        print(f"  shell loop   {loop:8.3f} s")
    few, many = (sum(taken[pods].values()) for pods in PODS)
    print(f"{PODS[1]} pods to the shell loop: {many / loop:.2f} (at most {RATIO_AT_MOST})")
    print(f"growth from {PODS[0]} to {PODS[1]}: {many / few:.2f} (at most {GROWTH_AT_MOST})")
    return int(many / loop > RATIO_AT_MOST or many / few > GROWTH_AT_MOST)


def ours(name: str) -> dict[str, float]:
    """Seconds for each question of the round that was the fastest."""
    rounds = []
    with netns.inside(f"/run/netns/{name}"):
        for _ in range(RUNS + 1):  # the first one imports
            rounds.append({question: seconds(question) for question in QUESTIONS})
    return min(rounds[1:], key=lambda one: sum(one.values()))


def seconds(question: str) -> float:
    """How long one question takes, its lines included."""
    begun = time.perf_counter()
    answer = whole_answer(NodeRequest(1, node_argv(question)))
    took = time.perf_counter() - begun
    if answer.exit_code or not answer.stdout:
        raise SystemExit(f"{question}: {answer.error or 'no facts'}")
    return took


def theirs(name: str) -> float:
    """Seconds of the shell loop."""
    begun = time.perf_counter()
    subprocess.run(("ip", "netns", "exec", name, "sh", "-c", LOOP), check=True)
    return time.perf_counter() - begun


@contextlib.contextmanager
def node(pods: int) -> Iterator[str]:
    """A namespace that looks like a node's, and is gone at the end."""
    name, far = (f"ebpfnet-bench-{os.getpid()}{end}" for end in ("", "-pods"))
    with contextlib.ExitStack() as stack:
        for one in (name, far):
            run("ip", "netns", "add", one)
            stack.callback(subprocess.run, ("ip", "netns", "del", one), check=False)
        links = (f"link add lxc{n} type veth peer name eth{n} netns {far}" for n in range(pods))
        run("ip", "-n", name, "-b", "-", lines=links)
        run("ip", "-n", far, "-b", "-", lines=(f"link set eth{n} up" for n in range(pods)))
        run("ip", "-n", name, "-b", "-", lines=(line for n in range(pods) for line in pod(n)))
        pin = program(stack)
        filters = (line for n in range(pods) for line in attached(n, pin))
        run("tc", "-n", name, "-b", "-", lines=filters)
        wait_for_routes(name, pods)
        yield name


def pod(number: int) -> tuple[str, ...]:
    """What a node has for a pod."""
    address = f"10.244.{number >> 8}.{number & 255}"
    return (
        f"link set lxc{number} up",
        f"addr add 10.245.{number >> 8}.{number & 255}/32 dev lxc{number}",
        f"route add {address} dev lxc{number} scope link",
        f"neigh add {address} lladdr 02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        f" dev lxc{number}",
    )


def attached(number: int, pin: Path) -> tuple[str, ...]:
    """The filters of a pod's device."""
    on = f"filter add dev lxc{number}"
    return (
        f"qdisc add dev lxc{number} clsact",
        f"{on} ingress prio 1 handle 1 bpf da pinned {pin}",
        f"{on} egress prio 1 handle 1 bpf da pinned {pin}",
    )


def program(stack: contextlib.ExitStack) -> Path:
    """A program `return TC_ACT_OK`, pinned on a bpffs of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ebpfnet-bench-"))
    stack.callback(folder.rmdir)
    run("mount", "-t", "bpf", "bpf", str(folder))
    stack.callback(subprocess.run, ("umount", str(folder)), check=True)
    code = syscall.buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence, path = syscall.buffer(b"GPL\0"), syscall.buffer(f"{folder}/pod\0".encode())
    attr = struct.pack("=IIQQ", _SCHED_CLS, 2, syscall.pointer(code), syscall.pointer(licence))
    with syscall.closing(syscall.syscall(syscall.PROG_LOAD, attr, "load a program")) as fd:
        syscall.syscall(
            syscall.OBJ_PIN, struct.pack("=QII", syscall.pointer(path), fd, 0), "pin it"
        )
    return folder / "pod"


def wait_for_routes(name: str, pods: int) -> None:
    """Until every device has its link-local address, as on a node that is not starting."""
    deadline = time.monotonic() + 30
    while True:
        said = subprocess.run(
            ("ip", "-n", name, "-6", "addr", "show", "scope", "link"),
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        if said.count(b"inet6") >= pods and b"tentative" not in said:
            return
        if time.monotonic() > deadline:
            raise SystemExit("IPv6 addresses stayed tentative")
        time.sleep(0.1)


def run(*argv: str, lines: Iterator[str] | None = None) -> None:
    """Run a command with lines on its stdin."""
    text = None if lines is None else "\n".join(lines)
    subprocess.run(argv, input=text, text=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
