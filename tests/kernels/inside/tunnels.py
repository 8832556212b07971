"""Geneve between two nodes, as Cilium sets it up: cilium_geneve takes its ends from each packet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kernels.inside import world

DEVICE, PORT = "cilium_geneve", 6081


@contextmanager
def setting() -> Iterator[None]:
    """Two nodes whose pods' packets for each other go into Geneve, whose end a filter sets."""
    with world.nodes():
        for node in world.NODES:
            other = next(name for name in world.NODES if name != node)
            world.batch(
                node,
                f"""link add {DEVICE} type geneve external dstport {PORT}
                link set {DEVICE} up
                """,
            )
            own, end = world.NODES[node][0], world.NODES[other][0]
            world.run(node, "tc", "qdisc", "add", "dev", "eth0", "clsact")
            for kind, cidr in zip(("ip", "ipv6"), world.CIDRS[other], strict=True):
                world.run(
                    node, "tc", "filter", "add", "dev", "eth0", "egress", "protocol", kind,
                    "flower", "dst_ip", cidr, "action", "tunnel_key", "set", "src_ip", own,
                    "dst_ip", end, "id", "10001", "dst_port", str(PORT), "action", "skbedit",
                    "ptype", "host", "action", "mirred", "egress", "redirect", "dev", DEVICE,
                )  # fmt: skip
            # Frames in Geneve have the MAC of the other node's eth0.
            mac = world.mac(node, "eth0")
            world.batch(node, f"link set {DEVICE} address {mac}\n")
        yield


def check_geneve_healthy() -> Any:
    """Traffic of both IP versions comes through."""
    return world.seen(4, 6)


def check_geneve_input_blocked() -> Any:
    """node2 drops UDP port 6081."""
    with world.rule("node2", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP"):
        return world.seen(4, broken=True)


def check_geneve_output_blocked() -> Any:
    """node1 drops in raw OUTPUT what it sends to UDP port 6081 of node2."""
    words = ("-p", "udp", "-d", world.NODES["node2"][0], "--dport", str(PORT), "-j", "DROP")
    with world.rule("node1", "OUTPUT", *words, table="raw"):
        return world.seen(4, broken=True)
