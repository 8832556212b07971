"""Qdiscs out of a real kernel, against what tc says of them; netem's message by its layout."""

from __future__ import annotations

import struct

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from kubectl_ebpfnet.model.kernel import Qdisc
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import qdiscs
from kubectl_ebpfnet.parse import iproute
from tests.node.bpf import bpf_programs as made
from tests.node.bpf.conftest import net, stack  # noqa: F401  fixtures
from tests.node.bpf.hook_netns import Net


@pytest.mark.kernel
@pytest.mark.skipif(bool(made.why_not()), reason=f"no kernel to test: {made.why_not()}")
def test_they_are_as_tc_shows_them(net: Net) -> None:  # noqa: F811
    for command in (
        "ip link set a1 up",
        "tc qdisc add dev a1 root handle 5: tbf rate 1mbit burst 2000 limit 3000",
        "tc qdisc add dev a1 clsact",
        "tc qdisc add dev b1 root blackhole",
        "ip link set b1 up",
        "ip link set b2 up",
    ):
        net.run(command)
    with netns.inside(net.path):
        mine = list(qdiscs.qdiscs(NodeRequest(1, node_argv("qdiscs"))))
    told = iproute.qdiscs(net.run("tc -s -j qdisc show").encode())
    steady = [(one.device, one.kind, one.root, one.rate, one.loss) for one in told]
    assert [(one.device, one.kind, one.root, one.rate, one.loss) for one in mine] == steady
    found = {(one.device, one.kind): one for one in mine}
    assert found["a1", "tbf"].rate == 125_000
    assert not found["a1", "clsact"].root
    hole = found["b1", "blackhole"]
    assert (hole.root, hole.packets) == (True, 0)


def test_netems_loss_is_a_part_of_all() -> None:
    """struct tc_netem_qopt (include/uapi/linux/pkt_sched.h); this machine has no netem."""
    options = struct.pack("=IIIIII", 0, 1000, 0x40000000, 0, 0, 0)
    body = struct.pack("=BBHiIII", 0, 0, 0, 2, 0x80010000, 0xFFFFFFFF, 1)
    body += _attribute(1, b"netem\0") + _attribute(2, options)
    message = tcmsg(struct.pack("=IHHII", 16 + len(body), 36, 0, 0, 0) + body)
    message.decode()
    assert qdiscs.qdisc(message, "eth0") == Qdisc("eth0", "netem", loss=pytest.approx(0.25))


def _attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding
