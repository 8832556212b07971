"""WireGuard between two nodes, healthy and broken, as Cilium sets it up: cilium_wg0, port 51871."""

from __future__ import annotations

import os
import socket
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

from pyroute2.netlink import NETLINK_GENERIC, NLM_F_ACK

from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import generic
from kubectl_ebpfnet.node.netlink.generic import attribute
from kubectl_ebpfnet.node.netlink.transport import answers
from kubectl_ebpfnet.node.netlink.wireguard import devices
from tests.kernels.inside import world

DEVICE, PORT, MARK = "cilium_wg0", 51871, 0xE00
_SET_DEVICE, _REPLACE_PEERS, _NESTED = 1, 1, 0x8000
_PRIVATE = {name: os.urandom(32) for name in world.NODES}
_PUBLIC = {"nobody": os.urandom(32)}


@contextmanager
def setting() -> Iterator[None]:
    """Two nodes with WireGuard devices, each of which has the other's key."""
    with world.nodes():
        for node in world.NODES:
            world.batch(node, f"link add {DEVICE} type wireguard\nlink set {DEVICE} up\n")
            _set(
                node, attribute(3, _PRIVATE[node]), attribute(6, struct.pack("=H", PORT)),
                attribute(7, struct.pack("=I", MARK)),
            )  # fmt: skip
            _PUBLIC[node] = _public_key(node)
            world.redirect(node, DEVICE)
        yield


def _set(node: str, *attributes: bytes) -> None:
    """Set attributes of a node's device (enum wgdevice_attribute)."""
    with netns.inside(f"/run/netns/{node}"):
        number = generic.family("wireguard")
        named = attribute(2, DEVICE.encode() + b"\0")
        body = generic.message(_SET_DEVICE, named, *attributes)
        list(answers(NETLINK_GENERIC, number, NLM_F_ACK, body, f"set {DEVICE} of {node}"))


def _public_key(node: str) -> bytes:
    with netns.inside(f"/run/netns/{node}"):
        (device,) = devices(NodeRequest(1, ()))
    return b64decode(device.public_key)


def _peer(key: bytes, address: str, port: int, allowed: tuple[str, ...]) -> bytes:
    """A peer (enum wgpeer_attribute)."""
    end = ip_address(address)
    if end.version == 4:
        sockaddr = (
            struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + end.packed + bytes(8)
        )
    else:
        sockaddr = struct.pack("=H", socket.AF_INET6) + struct.pack("!H", port)
        sockaddr += bytes(4) + end.packed + bytes(4)
    nested = b""
    for each in map(ip_network, allowed):
        family = socket.AF_INET if each.version == 4 else socket.AF_INET6
        entry = attribute(1, struct.pack("=H", family)) + attribute(2, each.network_address.packed)
        nested += attribute(_NESTED, entry + attribute(3, bytes([each.prefixlen])))
    whole = attribute(1, key) + attribute(4, sockaddr) + attribute(9 | _NESTED, nested)
    return attribute(8 | _NESTED, attribute(_NESTED, whole))


def _set_peers(
    *, key: str = "node2", allowed: bool = True, port: int = PORT, known: bool = True, by: int = 4
) -> None:
    """Give both nodes their peers anew, without any handshake.

    Args:
        key: whose public key node1 has for node2.
        allowed: node1's peer has node2's pods among its allowed addresses.
        port: that node1 sends to.
        known: node2 has a peer for node1.
        by: the IP version that carries it.
    """
    for node, other in (("node1", "node2"), ("node2", "node1")):
        ranges = tuple(str(ip_network(address)) for address in world.NODES[other])
        first = node == "node1"
        if allowed or not first:
            ranges += world.CIDRS[other]
        end = world.NODES[other][0 if by == 4 else 1]
        peer = _peer(_PUBLIC[key if first else other], end, port if first else PORT, ranges)
        flags = attribute(5, struct.pack("=I", _REPLACE_PEERS))
        _set(node, flags, *([peer] if first or known else []))


def check_wireguard_idle() -> Any:
    """Nothing was ever sent: no handshake, which is no fault."""
    _set_peers()
    told = world.records()
    return {"records": told, "answered4": world.answered()}


def check_wireguard_healthy() -> Any:
    """Traffic of both IP versions comes through."""
    _set_peers()
    secrets = [b64encode(key).decode() for key in _PRIVATE.values()]
    return world.seen(4, 6, secrets=secrets)


def check_wireguard_healthy_over_ipv6() -> Any:
    """The nodes reach each other by IPv6, and IPv4 travels in it."""
    _set_peers(by=6)
    return world.seen(4, 6)


def check_wireguard_wrong_key() -> Any:
    """node1 has another key for node2."""
    _set_peers(key="nobody")
    return world.seen(4, broken=True)


def check_wireguard_not_allowed() -> Any:
    """node1's peer lacks node2's pods among its allowed addresses."""
    _set_peers(allowed=False)
    return world.seen(4, 6, broken=True)


def check_wireguard_wrong_port() -> Any:
    """node1 sends to a port that node2 does not receive on, and node2 has nothing to say."""
    _set_peers(port=51820)
    return world.seen(4, broken=True)


def check_wireguard_stranger() -> Any:
    """node2 has no peer for node1."""
    _set_peers(known=False)
    return world.seen(4, broken=True)


def check_wireguard_input_blocked() -> Any:
    """node2 drops UDP port 51871."""
    _set_peers()
    with world.rule("node2", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP"):
        return world.seen(4, broken=True)


def check_wireguard_output_blocked() -> Any:
    """node1 drops what WireGuard sends, by its mark, after a handshake has succeeded."""
    _set_peers()
    before = world.answered()
    with world.rule("node1", "OUTPUT", "-m", "mark", "--mark", f"{MARK:#x}/0xf00", "-j", "DROP"):
        return world.seen(4, broken=True, before=before)


def check_wireguard_input_blocked_by_ipv6() -> Any:
    """node2 drops UDP port 51871 by IPv6, by which the nodes reach each other."""
    _set_peers(by=6)
    port = ("-p", "udp", "--dport", str(PORT), "-j", "DROP")
    with world.rule("node2", "INPUT", *port, program="ip6tables"):
        return world.seen(4, broken=True)


def check_wireguard_unseen_firewall() -> Any:
    """Something between the nodes, of which they know nothing, drops UDP port 51871."""
    _set_peers()
    with world.dropped_on_the_wire(PORT):
        return world.seen(4, broken=True)
