"""Two network namespaces whose traffic netfilter tracks, with one entry of each kind.

Needs root, Linux, iproute2, iptables and conntrack. Used by test_conntrack.py and test_counters.py.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kubectl_ebpfnet.node.host import netns
from tests.network_namespaces import Namespace, namespaces, why_not

_LINKS = """
link add near type veth peer name far netns {far}
addr add 10.66.0.1/24 dev near
addr add 10.66.0.3/32 dev near
addr add fd66::1/64 dev near nodad
link set near up
link set lo up
"""
_FAR_LINKS = """
addr add 10.66.0.2/24 dev far
addr add fd66::2/64 dev far nodad
link set far up
link set lo up
"""
_RULES = """
iptables -A INPUT -m conntrack --ctstate NEW
ip6tables -A INPUT -m conntrack --ctstate NEW
iptables -t nat -A OUTPUT -d 10.66.0.9 -p tcp --dport 80 -j DNAT --to-destination 10.66.0.2:8080
iptables -t nat -A POSTROUTING -d 10.66.0.2 -p tcp --dport 8080 -j SNAT --to-source 10.66.0.3
iptables -t nat -A POSTROUTING -d 10.66.0.2 -p icmp -j SNAT --to-source 10.66.0.3
ip6tables -t nat -A OUTPUT -d fd66::9 -p udp --dport 53 -j DNAT --to-destination [fd66::2]:5555
iptables -t raw -A OUTPUT -p udp --dport 5353 -j CT --zone 6
iptables -t raw -A OUTPUT -p udp --dport 5354 -j CT --zone-orig 7
iptables -t mangle -A OUTPUT -p tcp -j CONNMARK --set-xmark 0x200/0xff00
"""
_STATES = "NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE LISTEN"
_SCTP_STATES = (
    "NONE CLOSED COOKIE_WAIT COOKIE_ECHOED ESTABLISHED SHUTDOWN_SENT SHUTDOWN_RECD"
    " SHUTDOWN_ACK_SENT"
)
# What no traffic here makes: `conntrack -I` with these words.
_MADE_BY_HAND = """
-p gre -s 10.1.0.1 -d 10.1.0.2 --srckey 5 --dstkey 6
-p udplite -s 10.1.0.1 -d 10.1.0.2 --sport 5 --dport 6
-p tcp -s 10.1.0.1 -d 10.1.0.2 --sport 5 --dport 6 --state CLOSE --zone 8 -m 0xffffffff
-p tcp -s 10.1.0.1 -d 10.1.0.2 --sport 5 --dport 6 --state CLOSE --orig-zone 9
-p tcp -s 10.1.0.1 -d 10.1.0.2 --sport 5 --dport 6 --state CLOSE --zone 10
-p tcp -s 10.1.0.1 -d 10.1.0.2 --sport 5 --dport 7 --state CLOSE --reply-zone 11
-p tcp -s 10.1.0.1 -d 10.1.0.2 --sport 5 --dport 8 --state ESTABLISHED -u SEEN_REPLY,ASSURED
-p tcp -s 10.1.0.1 -d 10.1.0.3 --sport 5 --dport 8 --state CLOSE --dst-nat 10.1.0.2:9 --zone 12
-p udp -s fd00::1 -d fd00::2 --sport 5 --dport 6 -m 7
-p tcp -s fd00::1 -d fd00::2 --sport 5 --dport 6 --state SYN_RECV
"""


WHY_NOT = why_not("iptables", "conntrack")


@contextmanager
def world() -> Iterator[tuple[Namespace, Namespace]]:
    """Make everything, and take it away again: the near namespace, whose traffic is tracked, and
    the far one. Flows stay open meanwhile."""
    with namespaces("ct", "ct-far") as (near, far), ExitStack() as kept:
        for one, lines in ((near, _LINKS), (far, _FAR_LINKS)):
            for line in lines.strip().format(far=far.name).splitlines():
                one.run("ip", *line.split())
        near.run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_acct=1")
        near.set_up(_RULES)
        _speak(near, far, kept)
        _by_hand(near)
        yield near, far


def _speak(near: Namespace, far: Namespace, kept: ExitStack) -> None:
    """One flow of each protocol from near to far; a socket stays in the namespace it is made in."""
    servers = []
    with netns.inside(far.path):
        for family, host in ((socket.AF_INET, "10.66.0.2"), (socket.AF_INET6, "fd66::2")):
            listener = socket.socket(family)
            listener.bind((host, 8080))
            listener.listen()
            answers = socket.socket(family, socket.SOCK_DGRAM)
            answers.bind((host, 5555))
            servers.append(kept.enter_context(answers))
            kept.enter_context(listener)
    with netns.inside(near.path):
        for host, port in (("10.66.0.9", 80), ("10.66.0.2", 8080), ("fd66::2", 8080)):
            kept.enter_context(socket.create_connection((host, port), 10))
        for host, port, server in (
            ("10.66.0.2", 5555, servers[0]),
            ("fd66::9", 53, servers[1]),
        ):
            asks = kept.enter_context(socket.socket(server.family, socket.SOCK_DGRAM))
            asks.settimeout(10)
            asks.connect((host, port))
            asks.send(b"x" * 100)
            server.settimeout(10)
            _, peer = server.recvfrom(200)
            server.sendto(b"y" * 50, peer)
            assert asks.recv(99) == b"y" * 50
        for host, port in (("10.66.0.2", 5353), ("10.66.0.2", 5354), ("10.66.0.2", 5999)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
                asks.sendto(b"x", (host, port))
        _echo(socket.AF_INET, "10.66.0.2", 1, 8)
        _echo(socket.AF_INET6, "fd66::2", 58, 128)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 99) as raw:
            raw.sendto(b"abcd", ("10.66.0.2", 0))


def _echo(family: int, host: str, protocol: int, type: int) -> None:
    """An ICMP echo with identifier 777 and its answer."""
    message = struct.pack(">BBHHH", type, 0, 0, 777, 1)
    total = sum(struct.unpack(">4H", message))
    if protocol == 1:  # the kernel fills in ICMPv6's
        message = struct.pack(">BBHHH", type, 0, ~total & 0xFFFF, 777, 1)
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(message, (host, 0))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            raw.settimeout(10)
            data = raw.recv(200)
            if protocol == 1:
                data = data[20:]
            if data[0] in (0, 129):
                return
    raise TimeoutError(f"{host} does not answer an echo")


def _by_hand(near: Namespace) -> None:
    lines = _MADE_BY_HAND.strip().splitlines()
    ends = "-s 10.2.0.1 -d 10.2.0.2 --sport 5"
    for port, state in enumerate(_STATES.split(), 100):
        lines.append(f"-p tcp {ends} --dport {port} --state {state}")
    for port, state in enumerate(_SCTP_STATES.split(), 100):
        tags = "--orig-vtag 1 --reply-vtag 2"
        lines.append(f"-p sctp {ends} --dport {port} --state {state} {tags}")
    near.set_up("\n".join(lines), "conntrack", "-I", "--timeout", "3600")


def fill(namespace: str, count: int) -> None:
    """Put many entries into the table, in one `conntrack -R`: 10.128.0.0/9 to 10.9.0.1:443."""
    lines = (
        f"-I -p tcp -s 10.{128 + n // 62500}.{n // 250 % 250}.{n % 250} -d 10.9.0.1"
        f" --sport {1024 + n % 1000} --dport 443 --state ESTABLISHED --timeout 3600"
        " -u SEEN_REPLY,ASSURED\n"
        for n in range(count)
    )
    argv = ("ip", "netns", "exec", namespace, "conntrack", "-R", "-")
    subprocess.run(
        argv, input="".join(lines), text=True, capture_output=True, check=True, timeout=60
    )
