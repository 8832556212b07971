"""Qdiscs that lose packets or do not, and netkit pairs with a program, between two nodes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubectl_ebpfnet.node.bpf import load, syscall
from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.host import netns
from tests.kernels.inside import world

_NETKIT_DROP = 2  # include/uapi/linux/bpf.h, enum tcx_action_base: TCX_DROP
_RTM_NEWLINK, _CREATE = 16, 0x605  # NLM_F_REQUEST, ACK, EXCL, CREATE


@contextmanager
def setting() -> Iterator[None]:
    """Two nodes, whose pods' packets nothing wraps."""
    with world.nodes():
        yield


@contextmanager
def _qdisc(*words: str) -> Iterator[None]:
    """A root qdisc of node1's eth0."""
    world.run("node1", "tc", "qdisc", "add", "dev", "eth0", "root", *words)
    try:
        yield
    finally:
        world.run("node1", "tc", "qdisc", "del", "dev", "eth0", "root")


def check_fq_healthy() -> Any:
    """What Cilium's bandwidth manager sets."""
    with _qdisc("fq"):
        return world.seen(4, 6, further=("qdiscs",))


def check_netem_that_delays() -> Any:
    """It loses a part that is not felt here, and delays."""
    with _qdisc("netem", "delay", "1ms"):
        return world.seen(4, 6, further=("qdiscs",))


def check_netem_that_drops() -> Any:
    """All of node1's packets are lost."""
    with _qdisc("netem", "loss", "100%"):
        return world.seen(4, 6, broken=True, further=("qdiscs",))


def _attribute(type: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), type) + value + bytes(-len(value) % 4)


def _netkit(name: str) -> bool:
    """Make a netkit pair on node1, whose other end the kernel calls nk0: iproute2 may not know
    them. False where the kernel does not."""
    kind = _attribute(1, b"netkit\0")  # IFLA_INFO_KIND
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)  # struct ifinfomsg
    body += _attribute(3, name.encode() + b"\0") + _attribute(18, kind)  # IFLA_IFNAME, LINKINFO
    head = struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _CREATE, 1, 0)
    with (
        netns.inside("/run/netns/node1"),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink,
    ):
        netlink.send(head + body)
        (code,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    if code and code != -95:  # EOPNOTSUPP
        raise OSError(-code, os.strerror(-code))
    return not code


@contextmanager
def _by_netkit() -> Iterator[bool]:
    """`client` by a netkit pair instead of its veth; whether the kernel has them."""
    if not _netkit("nk_client"):
        yield False
        return
    (ipv4, ipv6), routers = world.PODS["client"], ("10.244.1.1", "fd00:244:1::1")
    world.batch("node1", "link del lxc_client\nlink set nk0 netns client name eth0\n")
    world.batch(
        "node1",
        f"""link set nk_client name lxc_client
        link set lxc_client up
        addr add {routers[0]}/32 dev lxc_client
        addr add {routers[1]}/128 dev lxc_client nodad
        route add {ipv4}/32 dev lxc_client
        route add {ipv6}/128 dev lxc_client
        """,
    )
    world.batch(
        "client",
        f"""link set eth0 up
        addr add {ipv4}/32 dev eth0
        addr add {ipv6}/128 dev eth0 nodad
        route add {routers[0]}/32 dev eth0
        route add default via {routers[0]}
        route add {routers[1]}/128 dev eth0
        route add default via {routers[1]}
        """,
    )
    yield True


def check_netkit() -> Any:
    """Healthy, then with a program at the pod's end that drops: two answers of one pair."""
    with _by_netkit() as there:
        if not there:
            return {"lacks": "netkit"}
        healthy = world.seen(4, 6)
        drops = Assembly()
        drops.return_value(_NETKIT_DROP)
        with netns.inside("/run/netns/node1"):
            program = load.load_classifier(drops.program(), "guard")
            index = socket.if_nametoindex("lxc_client")
            link = load.link_tcx_first(program, index, syscall.NETKIT_PEER)
        try:
            dropping = world.seen(4, 6, broken=True, further=("attachments",))
        finally:
            os.close(link)
            os.close(program)
        return {**healthy, "dropping": dropping}
