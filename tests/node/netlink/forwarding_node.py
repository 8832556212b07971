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


@dataclass(frozen=True)
class Wire:
    """A pod, its node and a host beyond: a way to send, and a way to see what arrives."""

    pod: Namespace
    node: Namespace
    beyond: socket.socket

    def arrives(self, source_port: int, patience: float = 2) -> bool:
        """Send a datagram from the pod; tell whether it comes to the host beyond.

        Args:
            source_port: of the datagram, one that no other had.
            patience: seconds; a little where it should not come, since it comes at once or never.
        """
        with netns.inside(self.pod.path):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.bind((POD, source_port))
            sender.sendto(b"x", (FAR, 53))
        self.beyond.settimeout(patience)
        try:
            while self.beyond.recvfrom(16)[1][1] != source_port:
                pass
        except TimeoutError:
            return False
        return True


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
""",
            "ip",
        )
        pod.set_up(f"addr add {POD}/24 dev eth0\nlink set eth0 up", "ip")
        pod.set_up(f"route add default via {ROUTER}", "ip")
        far.set_up(f"addr add {FAR}/24 dev eth0\nlink set eth0 up", "ip")
        node.set_up("-w net.ipv4.ip_forward=1\n-w net.ipv4.conf.all.rp_filter=0", "sysctl")
        node.set_up("-w net.ipv4.conf.lxc1.rp_filter=0", "sysctl")
        if missing := [*pod.missing, *node.missing, *far.missing]:
            pytest.skip(f"this kernel lacks {missing}")
        with netns.inside(far.path):
            beyond = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        beyond.bind((FAR, 53))
        there = Wire(pod, node, beyond)
        assert there.arrives(999), "without rules it arrives"
        yield there


def first_packet(source_port: int) -> Context:
    """The datagram as it comes into the node's stack."""
    flow = Flow(UDP, ip_address(POD), source_port, ip_address(FAR), 53)
    own = frozenset(map(ip_address, (NODE, ROUTER, "127.0.0.1")))
    return Context(flow, "lxc1", "", local=own, bridged=False, back_device="lxc1")
