"""A node between a pod and a host beyond, each a network namespace: what the node's rules do with a
datagram of the pod is seen by whether it arrives. Needs root and Linux."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.model.net import UDP, Flow
from kubectl_ebpfnet.node.host import netns
from tests.network_namespaces import Namespace, namespaces

POD, FAR, NODE, ROUTER = "10.44.0.7", "198.51.100.1", "198.51.100.11", "10.44.0.1"
POD6, FAR6, NODE6, ROUTER6 = "fd44::7", "2001:db8::1", "2001:db8::11", "fd44::1"
ENDS = {4: (POD, FAR), 6: (POD6, FAR6)}


@dataclass(frozen=True)
class Wire:
    """A pod, its node and a host beyond: a way to send, and a way to see what arrives."""

    pod: Namespace
    node: Namespace
    beyond: dict[int, socket.socket]

    def arrives(self, source_port: int, patience: float = 2, version: int = 4) -> bool:
        """Send a datagram from the pod; tell whether it comes to the host beyond.

        Args:
            source_port: of the datagram, one that no other had.
            patience: seconds; a little where it should not come, since it comes at once or never.
            version: of IP.
        """
        source, there = ENDS[version]
        with netns.inside(self.pod.path):
            sender = _socket(version)
        with sender:
            sender.bind((source, source_port))
            sender.sendto(b"x", (there, 53))
        beyond = self.beyond[version]
        beyond.settimeout(patience)
        try:
            while beyond.recvfrom(16)[1][1] != source_port:
                pass
        except TimeoutError:
            return False
        return True


def _socket(version: int) -> socket.socket:
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)


@contextmanager
def wire_of(name: str) -> Iterator[Wire]:
    """Make the three namespaces, and take them away again."""
    with ExitStack() as stack:
        pod, node, far = stack.enter_context(namespaces(f"{name}pod", f"{name}node", f"{name}far"))
        node.set_up(
            f"""
link add lxc1 type veth peer name eth0 netns {pod.name}
link add eth0 type veth peer name eth0 netns {far.name}
link set lxc1 up
link set eth0 up
addr add {ROUTER}/24 dev lxc1
addr add {NODE}/24 dev eth0
addr add {ROUTER6}/64 dev lxc1 nodad
addr add {NODE6}/64 dev eth0 nodad
""",
            "ip",
        )
        pod.set_up(f"addr add {POD}/24 dev eth0\nlink set eth0 up", "ip")
        pod.set_up(f"route add default via {ROUTER}\naddr add {POD6}/64 dev eth0 nodad", "ip")
        pod.set_up(f"-6 route add default via {ROUTER6}", "ip")
        far.set_up(f"addr add {FAR}/24 dev eth0\nlink set eth0 up", "ip")
        far.set_up(f"addr add {FAR6}/64 dev eth0 nodad", "ip")
        node.set_up("-w net.ipv4.ip_forward=1\n-w net.ipv4.conf.all.rp_filter=0", "sysctl")
        node.set_up("-w net.ipv4.conf.lxc1.rp_filter=0", "sysctl")
        node.set_up("-w net.ipv6.conf.all.forwarding=1", "sysctl")
        for each in (pod, node, far):
            each.settle()
        if missing := [*pod.missing, *node.missing, *far.missing]:
            pytest.skip(f"this kernel lacks {missing}")
        with netns.inside(far.path):
            beyond = {version: stack.enter_context(_socket(version)) for version in ENDS}
        for version, (_, address) in ENDS.items():
            beyond[version].bind((address, 53))
        there = Wire(pod, node, beyond)
        for version in ENDS:
            assert there.arrives(999, version=version), "without rules it arrives"
        yield there


def first_packet(source_port: int, version: int = 4) -> Context:
    """The datagram as it comes into the node's stack."""
    source, there = ENDS[version]
    flow = Flow(UDP, ip_address(source), source_port, ip_address(there), 53)
    own = frozenset(map(ip_address, (NODE, ROUTER, NODE6, ROUTER6, "127.0.0.1")))
    return Context(flow, "lxc1", "", local=own, bridged=False, back_device="lxc1")
