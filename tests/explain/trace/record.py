"""Record what a node's session tells of real traffic, for the tests of this folder:

    python -m tests.explain.trace.record

The node is the router of tests/node/trace/lan.py. A process named `client` and one named `server`
are in the others' network namespaces, as pods' would be. Root, iproute2, nft, clang.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter, SendRequest, TraceRequest
from kubectl_ebpfnet.node.host import netns
from tests.node.trace import lan, programs

DATA = Path(__file__).with_name("data")
_UNDER = "ip addr add 10.4.0.{host}/24 dev {device}"
_VXLAN = "ip link add t0 type vxlan id 42 remote 10.4.0.{other} dstport 8472"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is set up, as (node, command) before and after, and what is sent; on which node a packet
    socket reads copies; how many bytes of each packet are told."""

    before: tuple[tuple[str, str], ...] = ()
    after: tuple[tuple[str, str], ...] = ()
    nft: str = ""
    protocol: int = UDP
    port: int | None = lan.ECHO
    count: int = 2
    size: int = 20
    linger: float = 0.3
    tap: str = ""
    data: int = 0


def _nat() -> str:
    chain = "type nat hook postrouting priority 100"
    return f'table inet n {{ chain c {{ {chain}; oifname "s0" masquerade random\n }}\n }}'


def _filter(rule: str, hook: str = "forward") -> str:
    chain = f"type filter hook {hook} priority 0"
    return f"table inet f {{ chain c {{ {chain}; {rule}\n }}\n }}"


def _route(kind: str) -> Scenario:
    return Scenario(
        (("router", f"ip route add {kind} 10.2.0.2/32"),),
        (("router", f"ip route del {kind} 10.2.0.2/32"),),
    )


def _tc(hook: str, device: str) -> Scenario:
    return Scenario(
        (
            ("router", f"tc qdisc add dev {device} clsact"),
            ("router", f"tc filter add dev {device} {hook} bpf da obj OBJECT sec tc/shot"),
        ),
        (("router", f"tc qdisc del dev {device} clsact"),),
    )


SCENARIOS: dict[str, Scenario] = {
    "plain_icmp": Scenario(protocol=ICMP, port=None),
    "plain_tcp": Scenario(protocol=TCP),
    "plain_udp": Scenario(),
    "masquerade_udp": Scenario(nft=_nat()),
    "masquerade_tcp": Scenario(nft=_nat(), protocol=TCP),
    "vxlan": Scenario(
        (
            ("router", _UNDER.format(host=1, device="s0")),
            ("server", _UNDER.format(host=2, device="eth0")),
            ("router", _VXLAN.format(other=2)),
            ("server", _VXLAN.format(other=1)),
            ("router", "ip addr add 10.5.0.1/24 dev t0"),
            ("server", "ip addr add 10.5.0.2/24 dev t0"),
            ("router", "ip link set t0 up"),
            ("server", "ip link set t0 up"),
            ("router", "ip route add 10.2.0.2/32 via 10.5.0.2 dev t0"),
            ("server", "ip route add 10.1.0.2/32 via 10.5.0.1 dev t0"),
        ),
        (
            ("router", "ip link del t0"),
            ("server", "ip link del t0"),
            ("router", "ip addr del 10.4.0.1/24 dev s0"),
            ("server", "ip addr del 10.4.0.2/24 dev eth0"),
        ),
        protocol=ICMP,
        port=None,
    ),
    "netfilter": Scenario(nft=_filter("udp dport 5000 drop")),
    "netfilter_tap": Scenario(nft=_filter("udp dport 5000 drop"), tap="router"),
    "netfilter_tap_sender": Scenario(nft=_filter("udp dport 5000 drop"), tap="client"),
    "plain_tap": Scenario(tap="router"),
    "reject_tcp": Scenario(nft=_filter("tcp dport 5000 reject with tcp reset"), protocol=TCP),
    "reject_udp": Scenario(nft=_filter("udp dport 5000 reject with icmp admin-prohibited")),
    "netfilter_answer": Scenario(nft=_filter("udp sport 5000 drop")),
    "netfilter_answer_icmp": Scenario(
        nft=_filter("icmp type echo-reply drop"), protocol=ICMP, port=None
    ),
    "netfilter_half": Scenario(
        nft=_filter("udp dport 5000 numgen inc mod 2 0 drop"), count=4
    ),
    "tcp_fin_lost": Scenario(
        nft=_filter("tcp dport 5000 tcp flags & (syn | fin | rst) == fin drop"),
        protocol=TCP,
        count=1,
        linger=1.0,
    ),
    "tcp_syn_lost_once": Scenario(
        nft=_filter("tcp dport 5000 tcp flags syn numgen inc mod 2 0 drop"), protocol=TCP, count=1
    ),
    "tc_ingress": _tc("ingress", "c0"),
    "tc_egress": _tc("egress", "s0"),
    "xdp": Scenario(
        (("server", "ip link set dev eth0 xdpgeneric obj OBJECT sec xdp"),),
        (("server", "ip link set dev eth0 xdpgeneric off"),),
    ),
    "closed_udp": Scenario(port=lan.CLOSED),
    "closed_tcp": Scenario(port=lan.CLOSED, protocol=TCP),
    "blackhole": _route("blackhole"),
    "unreachable": _route("unreachable"),
    "neighbour": Scenario(
        (("server", "ip addr del 10.2.0.2/24 dev eth0"), ("router", "ip neigh flush dev s0")),
        (
            ("server", "ip addr add 10.2.0.2/24 dev eth0"),
            ("server", "ip route add default via 10.2.0.1"),
            ("router", "ip neigh flush dev s0"),
        ),
        linger=4.0,
    ),
    "wrong_mac": Scenario(
        (("router", "ip neigh replace 10.2.0.2 lladdr 02:00:00:00:00:99 dev s0"),),
        (("router", "ip neigh del 10.2.0.2 dev s0"),),
    ),
    "rp_filter": Scenario(
        (
            ("router", "sysctl -qw net.ipv4.conf.c0.rp_filter=1"),
            ("router", "ip route add 10.1.0.2/32 dev s0"),
        ),
        (
            ("router", "ip route del 10.1.0.2/32 dev s0"),
            ("router", "sysctl -qw net.ipv4.conf.c0.rp_filter=0"),
        ),
    ),
    "mtu": Scenario(
        (("router", "ip link set s0 mtu 1300"),),
        (("router", "ip link set s0 mtu 1500"),),
        size=1400,
        count=1,
    ),
}  # fmt: skip
SCENARIOS |= {
    f"{name}_bytes": replace(SCENARIOS[name], count=1, data=128)
    for name in ("masquerade_tcp", "netfilter", "plain_icmp", "reject_udp", "vxlan")
}


@contextmanager
def _named(node: str) -> Iterator[int]:
    """The id of a process with a node's name, in its network namespace."""
    command = f"echo {node} >/proc/$$/comm; echo; read line"
    argv = ("nsenter", f"--net={lan.path(node)}", "sh", "-c", command)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@contextmanager
def _tap(node: str) -> Iterator[None]:
    """A packet socket that reads all, as tcpdump's without a ring."""
    with netns.inside(lan.path(node)):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    stop = threading.Event()

    def read() -> None:
        tap.settimeout(0.05)
        while not stop.is_set():
            with suppress(TimeoutError):
                tap.recv(65536)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()
        tap.close()


def _run(commands: tuple[tuple[str, str], ...], compiled: str) -> None:
    for node, command in commands:
        lan.run_apart(node, command.replace("OBJECT", compiled))


def _session(scenario: Scenario, sender: int) -> list[bytes]:
    ends = ip_address(lan.CLIENT[4]), ip_address(lan.SERVER[4])
    request = TraceRequest(
        (PacketFilter(*ends, None, scenario.port, scenario.protocol),),
        send=SendRequest(
            scenario.protocol, ends[1], scenario.port, scenario.count, 0.05, scenario.size
        ),
        sender_pid=sender,
        data=scenario.data,
    )
    words = codec.line_of(request).decode().strip()
    python = (sys.executable, "-m", "kubectl_ebpfnet.node", "trace", words)
    argv = ("nsenter", f"--net={lan.path('router')}", *python)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.stdin.write(b"go\n")
        process.stdin.flush()
        left = scenario.count
        while left:
            lines.append(process.stdout.readline())
            left -= "sent" in json.loads(lines[-1])
        time.sleep(scenario.linger)
        process.stdin.close()
        return lines + process.stdout.readlines()


def main(names: list[str]) -> None:
    """Record all scenarios, or those that are named."""
    with ExitStack() as stack:
        stack.enter_context(lan.lan())
        compiled = programs.compiled(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        sender, _ = (stack.enter_context(_named(node)) for node in ("client", "server"))
        for name in names or SCENARIOS:
            scenario = SCENARIOS[name]
            lan.ask()  # neighbours are known from here on
            _run(scenario.before, compiled)
            if scenario.nft:
                lan.nft("router", scenario.nft)
            try:
                with _tap(scenario.tap) if scenario.tap else nullcontext():
                    lines = _session(scenario, sender)
            finally:
                lan.nft("router", "flush ruleset")
                _run(scenario.after, compiled)
            (DATA / f"{name}.jsonl").write_bytes(b"".join(lines))
            print(name, len(lines), "lines")


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[3])
    main(sys.argv[1:])
