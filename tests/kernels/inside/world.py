"""Two nodes with a pod each, in network namespaces of a virtual machine; real traffic and records.

    client 10.244.1.10 ── node1 172.30.0.11 ══ eth0 ══ 172.30.0.12 node2 ── web 10.244.2.20
    fd00:244:1::10              fd00:30::11                    fd00:30::12      fd00:244:2::20

`web` answers UDP on port 53. Routes are those of Cilium's native routing. What a tunnel or
cilium_wg0 is to carry is redirected at eth0's egress, as cil_to_netdev does it; no program of
Cilium is there.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.server import registry
from kubectl_ebpfnet.node.server.answer import whole_answer

NODES = {"node1": ("172.30.0.11", "fd00:30::11"), "node2": ("172.30.0.12", "fd00:30::12")}
PODS = {"client": ("10.244.1.10", "fd00:244:1::10"), "web": ("10.244.2.20", "fd00:244:2::20")}
NODE_OF = {"client": "node1", "web": "node2"}
CIDRS = {
    "node1": ("10.244.1.0/24", "fd00:244:1::/64"),
    "node2": ("10.244.2.0/24", "fd00:244:2::/64"),
}
ASKED = ("links", "addresses", "routes", "rules", "neighbours", "sysctls", "counters", "conntrack",
         "wireguard", "wireguard-peers", "xfrm", "xfrm-policies", "xfrm-errors")  # fmt: skip
ASKED_OF_PODS = ("links", "addresses", "routes", "rules", "neighbours")
PROGRAMS = (("iptables-save", "-c"), ("ip6tables-save", "-c"))
_PORT = 53
_PATIENCE_S, _BRIEFLY_S = 4.0, 0.6


def run(where: str, *argv: str) -> str:
    """What a command prints in a namespace. Raises RuntimeError."""
    with netns.inside(f"/run/netns/{where}"):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{where}: {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def batch(where: str, lines: str) -> None:
    """Run many commands of `ip` in a namespace."""
    done = subprocess.run(
        ("ip", "-netns", where, "-batch", "-"),
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{where}: {done.stderr.strip()}")


@contextmanager
def nodes() -> Iterator[None]:
    """The two nodes and their pods; gone with the block."""
    names = (*NODES, *PODS)
    stop = threading.Event()
    answering: threading.Thread | None = None
    try:
        for name in names:
            subprocess.run(("ip", "netns", "add", name), check=True)
        _wire()
        for pod in PODS:
            _pod(pod)
        answering = threading.Thread(target=_answer, args=(stop,))
        answering.start()
        yield
    finally:
        stop.set()
        if answering is not None:
            answering.join()
        for name in names:
            subprocess.run(("ip", "netns", "del", name), check=False)


def _wire() -> None:
    batch("node1", "link add eth0 type veth peer name eth0 netns node2\n")
    for name, (ipv4, ipv6) in NODES.items():
        other = next(node for node in NODES if node != name)
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            _sysctl(name, setting)
        batch(
            name,
            f"""link set lo up
            link set eth0 up
            addr add {ipv4}/24 dev eth0
            addr add {ipv6}/64 dev eth0 nodad
            route add {CIDRS[other][0]} via {NODES[other][0]} dev eth0
            route add {CIDRS[other][1]} via {NODES[other][1]} dev eth0
            """,
        )


def _pod(pod: str) -> None:
    node, (ipv4, ipv6) = NODE_OF[pod], PODS[pod]
    device = f"lxc_{pod}"
    router4, router6 = CIDRS[node][0].replace("0/24", "1"), CIDRS[node][1].replace("/64", "1")
    batch(
        node,
        f"""link add {device} type veth peer name eth0 netns {pod}
        link set {device} up
        addr add {router4}/32 dev {device}
        addr add {router6}/128 dev {device} nodad
        route add {ipv4}/32 dev {device}
        route add {ipv6}/128 dev {device}
        """,
    )
    batch(
        pod,
        f"""link set lo up
        link set eth0 up
        addr add {ipv4}/32 dev eth0
        addr add {ipv6}/128 dev eth0 nodad
        route add {router4}/32 dev eth0
        route add default via {router4}
        route add {router6}/128 dev eth0
        route add default via {router6}
        """,
    )


def _sysctl(where: str, setting: str) -> None:
    name, _, value = setting.partition("=")
    with (
        netns.inside(f"/run/netns/{where}"),
        open(f"/proc/sys/{name.replace('.', '/')}", "w") as file,
    ):
        file.write(value)


def read(where: str, name: str) -> str:
    """A file of /proc/net in a namespace."""
    with netns.inside(f"/run/netns/{where}"), open(f"/proc/thread-self/net/{name}") as file:
        return file.read()


def mac(where: str, device: str) -> str:
    """The link-layer address of a device."""
    with netns.inside(f"/run/netns/{where}"):
        links = registry.function("links")(NodeRequest(1, ()))
        return str(next(link.mac for link in links if link.name == device))


def redirect(node: str, device: str) -> None:
    """Lead what a node sends to the other's pods into a device, instead of to the wire."""
    other = next(name for name in NODES if name != node)
    run(node, "tc", "qdisc", "add", "dev", "eth0", "clsact")
    for kind, cidr in zip(("ip", "ipv6"), CIDRS[other], strict=True):
        run(
            node, "tc", "filter", "add", "dev", "eth0", "egress", "protocol", kind, "flower",
            "dst_ip", cidr, "action", "mirred", "egress", "redirect", "dev", device,
        )  # fmt: skip


@contextmanager
def rule(
    where: str, chain: str, *words: str, program: str = "iptables", table: str = "filter"
) -> Iterator[None]:
    """A rule of netfilter at the head of a chain, for the block."""
    run(where, program, "-t", table, "-I", chain, *words)
    try:
        yield
    finally:
        run(where, program, "-t", table, "-D", chain, *words)


@contextmanager
def dropped_on_the_wire(port: int) -> Iterator[None]:
    """node2's eth0 drops what is sent to a UDP port before anything of the node sees it."""
    run("node2", "tc", "qdisc", "replace", "dev", "eth0", "clsact")
    place = ("dev", "eth0", "ingress")
    words = ("protocol", "ip", "flower", "ip_proto", "udp", "dst_port", str(port), "action", "drop")
    run("node2", "tc", "filter", "add", *place, *words)
    try:
        yield
    finally:
        run("node2", "tc", "filter", "del", *place)


def _answer(stop: threading.Event) -> None:
    netns.enter("/run/netns/web")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::", _PORT))
        server.settimeout(0.2)
        while not stop.is_set():
            try:
                data, client = server.recvfrom(2000)
                server.sendto(data, client)
            except TimeoutError:
                continue
            except OSError as error:
                print(f"web: {error}", flush=True)


def answered(version: int = 4, patience: float = _PATIENCE_S) -> bool:
    """Whether `web` answers `client` within some seconds."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    target = PODS["web"][0 if version == 4 else 1]
    with netns.inside("/run/netns/client"), socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        try:
            client.sendto(b"hello", (target, _PORT))
            return client.recv(2000) == b"hello"
        except OSError:
            return False


def records(*further: str) -> dict[str, list[tuple[list[str], int, str, str]]]:
    """What the node side answers of each node and pod: argv, exit code, stdout and error.

    Args:
        *further: questions to the nodes besides.
    """
    told = {}
    for pod in PODS:
        with netns.inside(f"/run/netns/{pod}"):
            told[pod] = [_asked(node_argv(name)) for name in ASKED_OF_PODS]
    for node in NODES:
        with netns.inside(f"/run/netns/{node}"):
            told[node] = [_asked(node_argv(name)) for name in (*ASKED, *further)]
        for argv in PROGRAMS:
            told[node].append((list(argv), 0, run(node, *argv), ""))
    return told


def _asked(argv: tuple[str, ...]) -> tuple[list[str], int, str, str]:
    answer = whole_answer(NodeRequest(1, argv))
    return list(argv), answer.exit_code, answer.stdout.decode(), answer.error


def seen(
    *versions: int, broken: bool = False, further: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """What a check tells: whether traffic is answered, and then what the kernels say.

    Args:
        *versions: IP versions that are tried.
        broken: no answer is expected, so it is not waited for as long.
        further: questions to the nodes besides.
        **more: told as well.
    """
    patience = _BRIEFLY_S if broken else _PATIENCE_S
    told = {f"answered{version}": answered(version, patience) for version in versions}
    return {**told, "records": records(*further), **more}
