"""Three network namespaces: a host that netkat runs on, a router, and a peer behind it.

    host eth0 10.1.0.2 ── 10.1.0.1 router 10.2.0.1 ── 10.2.0.2 eth0 peer        (fd01::, fd02:: too)

Peers are sockets of the test's own process, made inside the peer's namespace, and netcat-openbsd.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.host import netns

DEADLINE_S = 20.0
ROOT = Path(__file__).parents[3]
_SET_UP = {
    "host": """
link set lo up
link set eth0 up
addr add 10.1.0.2/24 dev eth0
addr add fd01::2/64 dev eth0 nodad
route add default via 10.1.0.1
route add default via fd01::1
""",
    "router": """
link set lo up
link set h0 up
link set p0 up
addr add 10.1.0.1/24 dev h0
addr add fd01::1/64 dev h0 nodad
addr add 10.2.0.1/24 dev p0
addr add fd02::1/64 dev p0 nodad
""",
    "peer": """
link set lo up
link set eth0 up
addr add 10.2.0.2/24 dev eth0
addr add fd02::2/64 dev eth0 nodad
route add default via 10.2.0.1
route add default via fd02::1
""",
}
HOST = {4: "10.1.0.2", 6: "fd01::2"}
ROUTER = {4: "10.1.0.1", 6: "fd01::1"}
PEER = {4: "10.2.0.2", 6: "fd02::2"}


def why_not() -> str:
    """Why this cannot be run here; "" when it can."""
    if not sys.platform.startswith("linux"):
        return "not Linux"
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in ("ip", "tc", "nc", "iptables", "bpftool") if not shutil.which(tool)]
    return f"no {', '.join(missing)}" if missing else ""


@dataclass
class Wire:
    """The namespaces' names, and what runs in them."""

    host: str
    router: str
    peer: str
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def ip(self, where: str, *words: str) -> None:
        """iproute2 in a namespace: "host", "router" or "peer". Raises CalledProcessError."""
        subprocess.run(("ip", "-n", getattr(self, where), *words), check=True)

    def run(self, where: str, *argv: str) -> str:
        """What a program says in a namespace. Raises CalledProcessError."""
        whole = ("ip", "netns", "exec", getattr(self, where), *argv)
        done = subprocess.run(whole, check=True, capture_output=True, timeout=DEADLINE_S)
        return done.stdout.decode()

    def start(self, where: str, *argv: str, **more: Any) -> subprocess.Popen[bytes]:
        """A program in a namespace, ended with the test; its pipes are open."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        # nsenter becomes the program, so that a signal to it is one to the program.
        whole = ("nsenter", f"--net=/run/netns/{getattr(self, where)}", *argv)
        child = subprocess.Popen(whole, cwd=ROOT, **{**pipes, **more})
        self.children.append(child)
        return child

    def netkat(self, *words: str, attach: str = "tcx", **more: Any) -> subprocess.Popen[bytes]:
        """netkat on the host."""
        env = {**os.environ, "EBPFNET_NO_TCX": "" if attach == "tcx" else "1"}
        argv = (sys.executable, "-m", "kubectl_ebpfnet.node.netkat", *words)
        return self.start("host", *argv, env=env, **more)

    def socket(self, where: str, version: int = 4, udp: bool = False) -> socket.socket:
        """A socket of a namespace, with a deadline, closed with the test."""
        with netns.inside(f"/run/netns/{getattr(self, where)}"):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            made = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        made.settimeout(DEADLINE_S)
        self.sockets.append(made)
        return made

    def listening(
        self, version: int = 4, port: int = 80, udp: bool = False, where: str = "peer"
    ) -> socket.socket:
        """A listening (TCP) or bound (UDP) socket on the peer's address."""
        made = self.socket(where, version, udp)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(({"peer": PEER, "router": ROUTER, "host": HOST}[where][version], port))
        if not udp:
            made.listen()
        return made


@contextmanager
def wire() -> Iterator[Wire]:
    """Make the namespaces, and take them away again with all that runs in them."""
    names = {role: f"netkat-{os.getpid()}-{role}" for role in _SET_UP}
    made = Wire(**names)
    try:
        for name in names.values():
            subprocess.run(("ip", "netns", "add", name), check=True)
            for family in ("all", "default"):  # addresses that are there at once
                knob = f"net.ipv6.conf.{family}.accept_dad=0"
                subprocess.run(("ip", "netns", "exec", name, "sysctl", "-qw", knob), check=True)
        for role, other in (("host", "h0"), ("peer", "p0")):
            made.ip(role, *f"link add eth0 type veth peer name {other} netns {made.router}".split())
        for role, lines in _SET_UP.items():
            batch = ("ip", "-n", names[role], "-batch", "-")
            subprocess.run(batch, input=lines.encode(), check=True)
        for knob in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            made.run("router", "sysctl", "-qw", knob)
        yield made
    finally:
        for child in made.children:
            child.kill()
            child.wait(DEADLINE_S)
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        errors = [talk.end() for talk in _talks]
        _talks.clear()
        for one in made.sockets:
            one.close()
        for name in names.values():
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
        for error in filter(None, errors):
            raise error


@contextmanager
def tunnel(
    of: Wire, near: str, network: str, handling: Callable[[bytes], list[bytes]] | None = None
) -> Iterator[None]:
    """A link of bare IP between a namespace and the peer, with this process as its wire.

    Its ends are the TUN devices w0 with addresses .1 (near) and .2 (peer) of `network`, a prefix
    like "10.4.0". `handling` gives what leaves the wire for a packet that enters it: nothing, it,
    or what was held back before.
    """
    ends = []
    for where, last in ((near, 1), ("peer", 2)):
        with netns.inside(f"/run/netns/{getattr(of, where)}"):
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22s", b"w0", 0x1001, b""))  # TUNSETIFF
        ends.append(end)
        of.ip(where, "addr", "add", f"{network}.{last}/30", "dev", "w0")
        of.ip(where, "link", "set", "w0", "up")
    stopping, stop = os.pipe()

    def carry() -> None:
        other = {ends[0]: ends[1], ends[1]: ends[0]}
        while True:
            ready, _, _ = select.select([stopping, *ends], [], [])
            if stopping in ready:
                return
            for end in ready:
                packet = os.read(end, 65536)
                for one in handling(packet) if handling else [packet]:
                    with suppress(OSError):
                        os.write(other[end], one)

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(stop)
        thread.join(DEADLINE_S)
        for fd in (stopping, *ends):
            os.close(fd)


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
    """Wait until it holds. Raises TimeoutError with `what`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.01)


def ended(child: subprocess.Popen[bytes], stdin: bytes | None = b"") -> tuple[int, bytes, str]:
    """(exit code, stdout, stderr) of a child at its end; stdin None leaves it open."""
    if stdin is None:
        child.wait(DEADLINE_S)
        assert child.stdout is not None
        assert child.stderr is not None
        return child.returncode, child.stdout.read(), child.stderr.read().decode()
    out, err = child.communicate(stdin, timeout=60)
    return child.returncode, out, err.decode()


def accepted(of: Wire, listener: socket.socket) -> socket.socket:
    """The next client, with a deadline, closed with the test."""
    one, _ = listener.accept()
    one.settimeout(DEADLINE_S)
    of.sockets.append(one)
    return one


def received(one: socket.socket) -> bytes:
    """All until the end of the stream."""
    parts = []
    while part := one.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


class Talk(threading.Thread):
    """A peer in a thread: it accepts one client and talks to it. It ends with its wire."""

    def __init__(self, listener: socket.socket, talk: Callable[[socket.socket], None]) -> None:
        super().__init__(daemon=True)
        self.talk = talk
        self.sockets = [listener]
        self.error: Exception | None = None
        self.ending = False

    def run(self) -> None:
        try:
            one, _ = self.sockets[0].accept()
        except OSError:
            return  # No client came: the test sees that at the client.
        with one:
            one.settimeout(DEADLINE_S)
            self.sockets.append(one)
            try:
                self.talk(one)
            except Exception as error:
                self.error = None if self.ending else error

    def end(self) -> Exception | None:
        """End what it waits for, and wait for it; what went wrong in it before."""
        self.ending = True
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.join(DEADLINE_S)
        return self.error


_talks: list[Talk] = []
"""Of the wire that is there: a process has one at a time."""


def answering(listener: socket.socket, talk: Callable[[socket.socket], None]) -> Talk:
    """Accept one client and talk to it in a thread. What goes wrong there fails the same test."""
    thread = Talk(listener, talk)
    _talks.append(thread)
    thread.start()
    return thread


def state(of: Wire) -> dict[str, Any]:
    """All of the host that netkat could leave a mark on, in the words of other tools."""
    host: dict[str, Any] = {}
    for what in ("link", "addr", "rule", "route show table all", "-6 route show table all"):
        rows = json.loads(of.run("host", "ip", "-j", *what.split()) or "[]")
        for row in rows:
            for volatile in ("stats64", "expires"):
                row.pop(volatile, None)
        host[what] = rows
    for what in ("qdisc", "filter show dev eth0 ingress", "filter show dev eth0 egress"):
        host[what] = of.run("host", "tc", *what.split())
    with netns.inside(f"/run/netns/{of.host}"):
        for kind in (syscall.TCX_INGRESS, syscall.TCX_EGRESS):
            host[f"tcx {kind}"] = syscall.query(socket.if_nametoindex("eth0"), kind)
    host["iptables"] = of.run("host", "iptables", "-S")
    return host


def unchanged(of: Wire, before: dict[str, Any]) -> None:
    """Wait until the host is as it was; the kernel takes a namespace away in its own time."""
    now = state(of)
    end = time.monotonic() + DEADLINE_S
    while now != before and time.monotonic() < end:
        time.sleep(0.02)
        now = state(of)
    changed = [f"{now[key]}, not {before[key]}" for key in now if now[key] != before[key]]
    assert not changed, "; ".join(changed)


def attached(of: Wire) -> set[int]:
    """Ids of the programs at the ingress of the host's eth0 and of its netkats' devices."""
    found = set()
    for link in json.loads(of.run("host", "ip", "-j", "link")):
        if link["ifname"] == "eth0" or link["ifname"].startswith("netkat"):
            said = of.run("host", "tc", "filter", "show", "dev", link["ifname"], "ingress")
            found |= {int(number) for number in re.findall(r" id (\d+)", said)}
            with netns.inside(f"/run/netns/{of.host}"):
                found |= {
                    number for number, _ in syscall.query(link["ifindex"], syscall.TCX_INGRESS)
                }
    return found


def programs() -> set[int]:
    """Ids of netkat's programs in the whole machine, as bpftool lists them."""
    said = subprocess.run(("bpftool", "-j", "prog", "list"), check=True, capture_output=True)
    rows = json.loads(said.stdout)
    return {row["id"] for row in rows if row.get("name", "").startswith("netkat_")}
