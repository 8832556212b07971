"""A segment with a node that probes, and nodes to be probed, which have a Service's addresses.

    bridge in a namespace of its own ─┬─ source  10.3.0.1   fd03::1
                                      ├─ node    10.3.0.2   fd03::2      192.0.2.80 and 2001:db8::80
                                      └─ …                               on each one's loopback

What a node does with the Service's traffic is said when it is made. Servers are threads of the
test's process; they tell the client's address, as agnhost's netexec does (`/clientip` over HTTP,
the word `clientip` over UDP).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.probe.attempts import probe

SERVICE = {4: "192.0.2.80", 6: "2001:db8::80"}
PORT = 80
_NETWORK = {4: "10.3.0.", 6: "fd03::"}
_LENGTH = {4: 24, 6: 64}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_LANS = itertools.count()


@dataclass
class Lan:
    """The namespaces' names, by role, and what runs in them."""

    names: dict[str, str] = field(default_factory=dict)
    number: int = field(default_factory=lambda: next(_LANS))
    sockets: list[socket.socket] = field(default_factory=list)

    def address(self, role: str, version: int) -> str:
        """A node's own address; one that nobody has, for a role that is not there."""
        number = [*self.names].index(role) if role in self.names else 99
        return f"{_NETWORK[version]}{number}"

    def run(self, role: str, *argv: str) -> str:
        """What a program says in a namespace. Raises CalledProcessError."""
        whole = ("ip", "netns", "exec", self.names[role], *argv)
        return subprocess.run(whole, check=True, capture_output=True, text=True).stdout

    def add(self, role: str, *lines: str) -> None:
        """A namespace on the segment, with these lines of ip(8) carried out in it."""
        number = len(self.names)
        self.names[role] = name = f"probe-{os.getpid()}-{self.number}-{number}"
        subprocess.run(("ip", "netns", "add", name), check=True)
        knobs = [f"net.ipv6.conf.{one}.accept_dad=0" for one in ("all", "default")]
        knobs += ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
        knobs += ["net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"]
        self.run(role, "sysctl", "-qw", *knobs)
        text = "link set lo up\n"
        if number == 0:
            text += "link add br0 type bridge\nlink set br0 up\n"
        else:
            made = f"link add eth0 netns {name} type veth peer name p{number}"
            batch = f"{made}\nlink set p{number} master br0 up\n"
            self._batch(next(iter(self.names)), batch)
            text += "link set eth0 up\n" + "".join(
                f"addr add {self.address(role, version)}/{_LENGTH[version]} dev eth0 {word}\n"
                for version, word in ((4, ""), (6, "nodad"))
            )
        self._batch(role, text + "".join(f"{line}\n" for line in lines))

    def _batch(self, role: str, text: str) -> None:
        argv = ("ip", "-n", self.names.get(role, role), "-batch", "-")
        subprocess.run(argv, input=text.encode(), check=True)

    def has_service(self, role: str) -> None:
        """A node takes the Service's traffic in itself; nothing listens there yet."""
        self.add(role, *(f"addr add {one} dev lo" for one in SERVICE.values()))

    def refuses_by_route(self, role: str, kind: str) -> None:
        """A node whose route for the Service is `unreachable`, `prohibit` or `blackhole`."""
        self.add(role, *(f"route add {kind} {one}" for one in SERVICE.values()))

    def serves(self, role: str, version: int, *, udp: bool, deaf: int = 0) -> list[bytes]:
        """A server on a node; gives the datagrams that it is sent.

        Args:
            deaf: how many of them it does not answer.
        """
        with netns.inside(f"/run/netns/{self.names[role]}"):
            kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
            one = socket.socket(_FAMILY[version], kind)
        self.sockets.append(one)
        one.bind((SERVICE[version], PORT))
        heard: list[bytes] = []
        if udp:
            threading.Thread(target=_datagrams, args=(one, heard, deaf), daemon=True).start()
        else:
            one.listen()
            threading.Thread(target=_connections, args=(one,), daemon=True).start()
        return heard

    def knows_by_heart(self, role: str, version: int) -> None:
        """A node and the source know each other's MAC, and the node answers neither ARP nor NDP."""
        self.run(role, "ip", "link", "set", "eth0", "arp", "off")
        for here, there in ((role, "source"), ("source", role)):
            mac = self.run(there, "cat", "/sys/class/net/eth0/address").strip()
            known = (self.address(there, version), "lladdr", mac, "dev", "eth0")
            self.run(here, "ip", "neigh", "replace", *known, "nud", "permanent")

    def probe(
        self, version: int, *roles: str, udp: bool = False, wait: str = "0.5", http: str = ""
    ) -> list[ConnectAttempt]:
        """Ask the source's node side to probe through nodes."""
        words = [SERVICE[version], str(PORT), "wait", wait]
        if roles:
            words += ["via", ",".join(self.address(role, version) for role in roles)]
        words += ["udp", "yes"] if udp else ["http", http] if http else []
        with netns.inside(f"/run/netns/{self.names['source']}"):
            return list(probe(NodeRequest(1, node_argv("probe", *words))))


def _datagrams(one: socket.socket, heard: list[bytes], deaf: int) -> None:
    with contextlib.suppress(OSError):  # the test is over
        while True:
            word, client = one.recvfrom(2048)
            heard.append(word)
            if len(heard) > deaf and word.strip().lower() == b"clientip":
                one.sendto(_told(client), client)


def _connections(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the test is over
        while True:
            threading.Thread(target=_answer, args=one.accept(), daemon=True).start()


def _answer(peer: socket.socket, client: tuple[object, ...]) -> None:
    peer.settimeout(5)
    with peer, contextlib.suppress(OSError):  # a client that asks for nothing, or is gone
        if peer.recv(2048):
            said = _told(client)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\n\r\n"
            peer.sendall(head.encode() + said)


def _told(client: tuple[object, ...]) -> bytes:
    host = f"[{client[0]}]" if ":" in str(client[0]) else client[0]
    return f"{host}:{client[1]}".encode()


@contextlib.contextmanager
def lan() -> Iterator[Lan]:
    """The segment with its source alone; taken away again with all that runs in it."""
    made = Lan()
    try:
        made.add("bridge")
        # Whose route it is does not matter: each probe names its next hop.
        made.add("source", "route add default via 10.3.0.254", "route add default via fd03::fe")
        yield made
    finally:
        for one in made.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for name in made.names.values():
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)
