"""Cilium's WireGuard device and its peers, by generic netlink, without any secret.

A node's other WireGuard devices are nobody's business here. The kernel sends the private key and
preshared keys along with the rest: they are attributes that are skipped by their number, and stay
in the buffer of one read. Attributes are read in place, since peers of a large cluster have 100,000
allowed addresses. A device's peers come in several messages; a peer whose allowed addresses do not
fit into one goes on in the next.

Source: Linux include/uapi/linux/wireguard.h, drivers/net/wireguard/netlink.c (wg_get_device_dump).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import field
from ipaddress import ip_address, ip_network

from pyroute2.netlink.rtnl import RTM_GETLINK

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.encryption import WireGuardDevice, WireGuardPeer
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink import generic
from kubectl_ebpfnet.node.netlink.rtnetlink import ATTEMPTS, get, text
from kubectl_ebpfnet.node.netlink.transport import AGAIN, changed

_NAME = "cilium_wg0"
_WHAT = f"read {_NAME}"
_GET_DEVICE = 0  # WG_CMD_GET_DEVICE
# enum wgdevice_attribute; 3 is the private key
_IFNAME, _PUBLIC_KEY, _LISTEN_PORT, _FWMARK, _PEERS = 2, 4, 6, 7, 8
# enum wgpeer_attribute; 2 is the preshared key
_PEER_KEY, _ENDPOINT, _HANDSHAKE, _RX, _TX, _ALLOWED = 1, 4, 6, 7, 8, 9
# enum wgallowedip_attribute
_ADDRESS, _PREFIX = 2, 3
_TIMESPEC = struct.Struct("=qq")
_NO_KEY = bytes(32)


@dataclass
class _Peer:
    """A peer in the making: its attributes, and the allowed addresses of all its messages."""

    parts: dict[int, bytes]
    allowed: list[Network] = field(default_factory=list)


def devices(request: NodeRequest) -> Iterator[WireGuardDevice]:  # noqa: ARG001
    """Yield Cilium's WireGuard device of this network namespace; none where there is none.

    Raises:
        KernelError: EPERM without CAP_NET_ADMIN.
    """
    found = _read()
    if found is None:
        return
    own, peers = found
    port, mark = own.get(_LISTEN_PORT), own.get(_FWMARK)
    yield WireGuardDevice(
        name=_NAME,
        public_key=_key(own.get(_PUBLIC_KEY, b"")),
        port=None if port is None else _number(port),
        mark=None if mark is None else _number(mark),
        peers=len(peers),
    )


def peers(request: NodeRequest) -> Iterator[WireGuardPeer]:  # noqa: ARG001
    """Yield the peers of Cilium's WireGuard device. Raises as `devices`."""
    found = _read()
    for peer in found[1].values() if found is not None else ():
        yield _peer(peer)


def _read() -> tuple[dict[int, bytes], dict[bytes, _Peer]] | None:
    """Return the device's attributes, and its peers by their keys; None without the device."""
    if not _is_there():
        return None
    problem = changed(_WHAT)
    for _ in range(ATTEMPTS):
        try:
            return _read_once()
        except KernelError as error:
            if error.errno not in AGAIN:
                raise
            problem = error
    raise problem


def _is_there() -> bool:
    """Tell whether the device is there: to ask for the family of WireGuard loads its module."""
    try:
        link = get(RTM_GETLINK, _WHAT, [("IFLA_IFNAME", _NAME)])
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        return False
    info = link.get_attr("IFLA_LINKINFO")
    return info is not None and text(info.get_attr("IFLA_INFO_KIND")) == "wireguard"


def _read_once() -> tuple[dict[int, bytes], dict[bytes, _Peer]]:
    own: dict[int, bytes] = {}
    found: dict[bytes, _Peer] = {}
    number = generic.family("wireguard")
    question = generic.message(_GET_DEVICE, generic.attribute(_IFNAME, _NAME.encode() + b"\0"))
    for answer in generic.dump(number, question, _WHAT):
        for type, value in generic.attributes(answer):
            if type in (_PUBLIC_KEY, _LISTEN_PORT, _FWMARK):
                own[type] = value
            elif type == _PEERS:
                for _, nested in generic.attributes(value):
                    _take_peer(found, nested)
    return own, found


def _take_peer(found: dict[bytes, _Peer], nested: bytes) -> None:
    wanted = (_PEER_KEY, _ENDPOINT, _HANDSHAKE, _RX, _TX, _ALLOWED)
    parts = {type: value for type, value in generic.attributes(nested) if type in wanted}
    allowed = parts.pop(_ALLOWED, b"")
    peer = found.setdefault(parts[_PEER_KEY], _Peer(parts))
    for _, each in generic.attributes(allowed):
        entry = dict(generic.attributes(each))
        peer.allowed.append(ip_network((entry[_ADDRESS], entry[_PREFIX][0])))


def _peer(peer: _Peer) -> WireGuardPeer:
    endpoint, port = _endpoint(peer.parts.get(_ENDPOINT, b""))
    seconds, _ = _TIMESPEC.unpack(peer.parts.get(_HANDSHAKE, bytes(_TIMESPEC.size)))
    return WireGuardPeer(
        device=_NAME,
        public_key=_key(peer.parts[_PEER_KEY]),
        endpoint=endpoint,
        port=port,
        allowed=tuple(peer.allowed),
        handshake_age=max(0, int(time.time() - seconds)) if seconds else None,
        received=_number(peer.parts.get(_RX, b"")),
        sent=_number(peer.parts.get(_TX, b"")),
    )


def _endpoint(sockaddr: bytes) -> tuple[Address | None, int | None]:
    """Return address and port of a struct sockaddr_in or sockaddr_in6."""
    if len(sockaddr) < 8:
        return None, None
    family, port = _number(sockaddr[:2]), int.from_bytes(sockaddr[2:4], "big")
    if family == socket.AF_INET:
        return ip_address(sockaddr[4:8]), port
    return ip_address(sockaddr[8:24]), port


def _key(raw: bytes) -> str:
    return "" if raw in (b"", _NO_KEY) else b64encode(raw).decode()


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)
