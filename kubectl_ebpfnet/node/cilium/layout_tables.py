"""Cilium's smaller maps: packed bytes to facts, each layout by its key and value size.

Sources: Cilium bpf/lib/{common,eps,policy,egress_gateway,metrics}.h and their mirrors in pkg/maps;
cilium-facts 3.6 to 3.9. No I/O here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import (
    EgressGatewayPolicy,
    IpcacheEntry,
    LocalEndpoint,
    PolicyEntry,
)
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.node.cilium.layout_tuple import address, family_address, port

_IPCACHE_STATIC, _POLICY_STATIC = 32, 40
_EXCLUDED = IPv4Address("0.0.0.1")
_IPCACHE_FLAGS = ((1, "skiptunnel"), (2, "hastunnel"), (4, "ipv6tunnel"), (8, "remotecluster"))


def _network(where: Address, bits: int) -> Network:
    if not 0 <= bits <= where.max_prefixlen:
        raise KernelError(f"a prefix of Cilium's with {bits} bits of {where}")
    return ip_network((where, bits), strict=False)


def _given(where: Address) -> Address | None:
    return None if where.is_unspecified else where


# ipcache


def _ipcache_prefix(key: bytes) -> Network:
    """24 bytes: prefix length over 32 static bits, cluster, family, address."""
    (bits,) = struct.unpack_from("=I", key)
    return _network(family_address(key[8:], key[7]), bits - _IPCACHE_STATIC)


def _ipcache_short(key: bytes, value: bytes, key_at: int) -> IpcacheEntry:
    """`cilium_ipcache` (≤ 1.17): the encryption key is at 8 up to 1.10, at 10 since."""
    (identity,) = struct.unpack_from("=I", value)
    return IpcacheEntry(
        prefix=_ipcache_prefix(key),
        identity=identity,
        encrypt_key=value[key_at],
        tunnel_endpoint=_given(address(value[4:8])),
        flags=frozenset({"skiptunnel"} if value[11] & 1 else ()),
    )


def _ipcache_long(key: bytes, value: bytes, _: int) -> IpcacheEntry:
    """`cilium_ipcache_v2` (≥ 1.18)."""
    (identity,) = struct.unpack_from("=I", value)
    flags = value[23]
    return IpcacheEntry(
        prefix=_ipcache_prefix(key),
        identity=identity,
        encrypt_key=value[22],
        tunnel_endpoint=_given(address(value[4:20] if flags & 4 else value[4:8])),
        flags=frozenset(name for bit, name in _IPCACHE_FLAGS if flags & bit),
    )


IPCACHE: dict[tuple[int, int], Callable[[bytes, bytes, int], IpcacheEntry]] = {
    (24, 12): _ipcache_short,
    (24, 24): _ipcache_long,
}
KEY_AT_OLD, KEY_AT = 8, 10
"""Offset of the encryption key in a value of 12 bytes, without and with node ids (≥ 1.14)."""


# endpoints


def _endpoint(key: bytes, value: bytes) -> LocalEndpoint:
    """endpoint_key 20 bytes, endpoint_info 48 bytes; `sec_id` is 0 where it is not there (1.9)."""
    where = family_address(key[:16], key[16])
    ifindex, _, number, flags = struct.unpack_from("=IHHI", value)
    if flags & 1:
        return LocalEndpoint(where, True)
    (identity,) = struct.unpack_from("=I", value, 32)
    return LocalEndpoint(
        address=where,
        host=False,
        endpoint_id=number,
        identity=identity or None,
        ifindex=ifindex,
        mac=value[16:22].hex(":"),
        node_mac=value[24:30].hex(":"),
    )


ENDPOINTS = {(20, 48): _endpoint}


# policy


@dataclass(frozen=True, slots=True)
class PolicyLayout:
    """How the entries of a policy map are told: by prefix or whole, with or without counters."""

    by_prefix: bool
    counters: bool = False
    precedence: bool = False


POLICY = {
    (8, 24): PolicyLayout(by_prefix=False, counters=True),
    (12, 24): PolicyLayout(by_prefix=True, counters=True),
    (12, 8): PolicyLayout(by_prefix=True),
    (12, 12): PolicyLayout(by_prefix=True, precedence=True),
}
POLICY_STATS = (12, 16)
"""Sizes of key and value of `cilium_policystats`."""


def policy_entry(endpoint: int, key: bytes, value: bytes, layout: PolicyLayout) -> PolicyEntry:
    """An entry of an endpoint's policy map. Counters that are elsewhere (≥ 1.18) are None."""
    if layout.by_prefix:
        bits, identity, egress, protocol = struct.unpack_from("=IIBB", key)
        number, given = port(key[10:12]), min(max(0, bits - _POLICY_STATIC - 8), 16)
        protocol = protocol if bits >= _POLICY_STATIC + 8 else 0
    else:
        identity, protocol, egress = struct.unpack("=I2xBB", key)
        number = port(key[4:6])
        given = 16 if number else 0
    packets, size = struct.unpack_from("=QQ", value, 8) if layout.counters else (None, None)
    return PolicyEntry(
        endpoint_id=endpoint,
        deny=bool(value[2] & 1),
        direction="egress" if egress & 1 else "ingress",
        identity=identity,
        protocol=protocol,
        ports=_ports(number, given),
        proxy_port=port(value[:2]),
        precedence=struct.unpack_from("=I", value, 4)[0] if layout.precedence else None,
        packets=packets,
        bytes=size,
    )


def _ports(number: int, bits: int) -> tuple[int, int]:
    """The ports that the first bits of one name."""
    if not bits:
        return (0, 65535)
    width = 1 << (16 - bits)
    low = number - number % width
    return (low, low + width - 1)


def policy_stats_key(endpoint: int, key: bytes) -> bytes:
    """The key in `cilium_policystats` of a 12 byte policy key: only its first word differs."""
    (bits,) = struct.unpack_from("=I", key)
    return struct.pack("=HxB", endpoint, max(0, bits - _POLICY_STATIC) & 0xFF) + key[4:]


# egress gateway, ip-masq


def _egress(key: bytes, value: bytes) -> EgressGatewayPolicy:
    """prefix length, source, destination; egress address, then the gateway's, always IPv4."""
    (bits,) = struct.unpack_from("=I", key)
    end = (len(key) - 4) // 2
    gateway = IPv4Address(value[end : end + 4])
    excluded = gateway == _EXCLUDED
    return EgressGatewayPolicy(
        source=address(key[4 : 4 + end]),
        destination=_network(address(key[4 + end :]), bits - 8 * end),
        egress_address=_given(address(value[:end])),
        gateway=None if excluded else _given(gateway),
        excluded=excluded,
    )


def _masq(key: bytes, _: bytes) -> Network:
    (bits,) = struct.unpack_from("=I", key)
    return _network(address(key[4:]), bits)


EGRESS4 = {(12, 8): _egress, (12, 28): _egress}
EGRESS6 = {(36, 40): _egress}
MASQ4 = {(8, 1): _masq}
MASQ6 = {(20, 1): _masq}


# metrics


@dataclass(frozen=True, slots=True)
class MetricKey:
    """What is counted: `line` and `file` are 0 where Cilium does not say (≤ 1.15)."""

    reason: int
    direction: str
    line: int
    file: int


_DIRECTIONS = {1: "ingress", 2: "egress", 3: "service"}


def _metric_key(key: bytes) -> MetricKey:
    reason, direction, line, file = struct.unpack_from("=BBHB", key)
    return MetricKey(reason, _DIRECTIONS.get(direction & 3, "unknown"), line, file)


METRICS = {(8, 16): _metric_key}


def counters(values: bytes) -> tuple[int, int]:
    """Packets and bytes of a per-CPU value, summed over the CPUs."""
    packets, size = 0, 0
    for one, other in struct.iter_unpack("=QQ", values):
        packets, size = packets + one, size + other
    return packets, size
