"""A client, a router and a server in network namespaces, with traffic that is traced on its way.

    client 10.1.0.2 ── c0 10.1.0.1 router 10.2.0.1 s0 ── 10.2.0.2 server
           fd01::2        fd01::1         fd02::1         fd02::2

Standard library and the node side alone: this runs in virtual machines too (tests/kernels). Root,
Linux, iproute2 and nft.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address

from kubectl_ebpfnet.model.events import PacketEvent
from kubectl_ebpfnet.model.net import UDP
from kubectl_ebpfnet.model.protocol.tracing import PacketFilter
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.trace.packets import PacketTrace

NODES = ("client", "router", "server")
CLIENT = {4: "10.1.0.2", 6: "fd01::2"}
SERVER = {4: "10.2.0.2", 6: "fd02::2"}
ECHO, OTHER, CLOSED = 5000, 6000, 7777
"""Ports of the server: both of the first answer, by TCP and UDP."""
_PATIENCE_S = 20.0


def _name(node: str) -> str:
    return f"ebpfnet-trace-{node}-{os.getpid()}"


def path(node: str) -> str:
    """Where a node's network namespace can be entered."""
    return f"/run/netns/{_name(node)}"


def run(node: str, words: str) -> str:
    """What a command prints on a node. Raises RuntimeError."""
    return _run(node, words.split())


def run_apart(node: str, words: str) -> None:
    """Run a command in a mount namespace of its own: tc mounts the file system of BPF where none
    is, and privately, which containers cannot share. Raises CalledProcessError."""
    subprocess.run(("ip", "netns", "exec", _name(node), *words.split()), check=True)


def _run(node: str, argv: Sequence[str]) -> str:
    with netns.inside(path(node)):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{node}: {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def nft(node: str, text: str) -> None:
    """Add rules of nftables; `flush ruleset` takes all away. Raises RuntimeError."""
    _run(node, ("nft", text))


def owner(inode: int) -> str:
    """The node that has a network namespace, by its inode; "" for none of these."""
    return next((node for node in NODES if os.stat(path(node)).st_ino == inode), "")


def open_socket(node: str, version: int = 4, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket of a node that gives up in good time."""
    with netns.inside(path(node)):
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
    made.settimeout(_PATIENCE_S)
    return made


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for others: a trace sees all namespaces, and theirs have these addresses."""
    with open(f"/run/ebpfnet-trace-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def lan() -> Iterator[None]:
    """The three nodes, and who answers at the server, once on this machine; gone with the block."""
    with _alone():
        yield from _lan()


def _lan() -> Iterator[None]:
    made: list[str] = []
    servers: list[socket.socket] = []
    try:
        for node in NODES:
            subprocess.run(("ip", "netns", "add", _name(node)), check=True)
            made.append(_name(node))
        _wire()
        for version in (4, 6):
            for port in (ECHO, OTHER):
                servers += _serve(version, port)
        yield
    finally:
        for each in servers:
            each.close()
        for name in made:
            subprocess.run(("ip", "netns", "del", name), check=False)


def _wire() -> None:
    for node, device in (("client", "c0"), ("server", "s0")):
        run("router", f"ip link add {device} type veth peer name eth0 netns {_name(node)}")
    for node, device, number, host in (
        ("client", "eth0", 1, 2), ("router", "c0", 1, 1), ("router", "s0", 2, 1),
        ("server", "eth0", 2, 2),
    ):  # fmt: skip
        run(node, "ip link set lo up")
        run(node, f"ip link set {device} up")
        run(node, f"ip addr add 10.{number}.0.{host}/24 dev {device}")
        run(node, f"ip addr add fd0{number}::{host}/64 dev {device} nodad")
        if node != "router":
            run(node, f"ip route add default via 10.{number}.0.1")
            run(node, f"ip -6 route add default via fd0{number}::1")
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        write_sysctl("router", setting, "1")
    wait_for(lambda: "tentative" not in run("router", "ip -6 addr"))


def write_sysctl(node: str, name: str, value: str) -> None:
    """Set a setting below /proc/sys/net of a node."""
    with netns.inside(path(node)), open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)


def wait_for(true: Callable[[], object]) -> None:
    """Wait until it is. Raises TimeoutError."""
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to be")
        time.sleep(0.01)


def _serve(version: int, port: int) -> list[socket.socket]:
    """Answer what comes by UDP and TCP with the same."""
    address = SERVER[version]
    datagrams = open_socket("server", version)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    datagrams.bind((address, port))
    listener = open_socket("server", version, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)
    for each, serve in ((datagrams, _answer), (listener, _accept)):
        each.settimeout(None)
        threading.Thread(target=serve, args=(each,), daemon=True).start()
    return [datagrams, listener]


def _answer(datagrams: socket.socket) -> None:
    try:
        while True:
            datagrams.sendto(*datagrams.recvfrom(65536))
    except OSError:
        return  # closed


def _accept(listener: socket.socket) -> None:
    try:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_echo, args=(client,), daemon=True).start()
    except OSError:
        return


def _echo(client: socket.socket) -> None:
    with client:
        while data := client.recv(65536):
            client.sendall(data)


def ask(version: int = 4, port: int = ECHO, payload: bytes = b"who is there?") -> bytes:
    """Send a datagram to the server and return its answer."""
    with open_socket("client", version) as client:
        client.connect((SERVER[version], port))
        client.send(payload)
        return client.recv(65536)


def to_server(version: int = 4, port: int | None = ECHO, protocol: int = UDP) -> PacketFilter:
    """The packets of the client for the server."""
    ends = ip_address(CLIENT[version]), ip_address(SERVER[version])
    return PacketFilter(*ends, None, port, protocol)


def traced(trace: PacketTrace, traffic: Callable[[], object]) -> list[PacketEvent]:
    """What is seen of traffic, in the order of time. Raises RuntimeError where events are lost."""
    seen: list[PacketEvent] = []
    before = trace.losses()
    running = threading.Thread(target=traffic, daemon=True)
    running.start()
    while running.is_alive():
        seen += trace.events(0.05)
    while more := list(trace.events(0.2)):
        seen += more
    if trace.losses() != before:
        raise RuntimeError(f"{trace.losses()} beside {len(seen)}")
    return sorted(seen, key=lambda event: event.time_ns)


@contextmanager
def others() -> Iterator[list[int]]:
    """Datagrams of another flow on the same way, as quickly as they go; yields how many went."""
    sent, stop = [0], threading.Event()

    def flood() -> None:
        with open_socket("client") as client:
            client.connect((SERVER[4], OTHER))
            while not stop.is_set():
                client.send(b"another one")
                sent[0] += 1

    running = threading.Thread(target=flood)
    running.start()
    try:
        yield sent
    finally:
        stop.set()
        running.join()
