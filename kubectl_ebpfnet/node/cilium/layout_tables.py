"""Cilium's smaller maps: packed bytes to facts, each layout by its key and value size.

Sources: Cilium bpf/lib/{common,eps,policy,egress_gateway,metrics}.h and their mirrors in pkg/maps;
cilium-facts 3.6 to 3.9. No I/O here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Set
from ipaddress import IPv4Address, ip_network

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import (
    EgressGatewayPolicy,
    IpcacheEntry,
    LocalEndpoint,
    PolicyEntry,
    SourceRange,
)
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.node.cilium.layout_tuple import address, family_address, port

_IPCACHE_STATIC, _POLICY_STATIC, _RANGE_STATIC = 32, 40, 32
_EXCLUDED = IPv4Address("0.0.0.1")
_IPCACHE_FLAGS = ((1, "skiptunnel"), (2, "hastunnel"), (4, "ipv6tunnel"), (8, "remotecluster"))


def _network(base: Address, bits: int) -> Network:
    if not 0 <= bits <= base.max_prefixlen:
        raise KernelError(f"a prefix of Cilium's with {bits} bits of {base}")
    return ip_network((base, bits), strict=False)


def _specified(value: Address) -> Address | None:
    return None if value.is_unspecified else value


# ipcache


def _ipcache_prefix(key: bytes) -> Network:
    """Decode 24 bytes: prefix length over 32 static bits, cluster, family, address."""
    (bits,) = struct.unpack_from("=I", key)
    return _network(family_address(key[8:], key[7]), bits - _IPCACHE_STATIC)


IPCACHE_SINGLE = tuple(
    (frozenset((struct.pack("=I", _IPCACHE_STATIC + bits),)), frozenset((bytes((family,)),)))
    for family, bits in ((1, 32), (2, 128))
)
"""Prefix length and family of single addresses, as they stand at 0 and 7 of a key."""
_FAMILIES = {4: 1, 6: 2}


def ipcache_key(key: bytes) -> tuple[int, int, int]:
    """Return the family, the prefix length and the bits of a prefix."""
    (bits,) = struct.unpack_from("=I", key)
    width = 32 if key[7] == 1 else 128
    length = min(max(bits - _IPCACHE_STATIC, 0), width)
    return key[7], length, int.from_bytes(key[8 : 8 + width // 8], "big") >> (width - length)


def ipcache_host_key(address: Address) -> bytes:
    """Return the key that looks up the longest prefix which holds an address."""
    bits = _IPCACHE_STATIC + address.max_prefixlen
    return struct.pack("=IHBB", bits, 0, 0, _FAMILIES[address.version]) + address.packed.ljust(
        16, b"\0"
    )


def ipcache_keys(addresses: Iterable[Address]) -> Set[tuple[int, int, int]]:
    """Return what `ipcache_key` returns for each prefix that holds one of some addresses."""
    return {
        (_FAMILIES[address.version], length, int(address) >> (address.max_prefixlen - length))
        for address in addresses
        for length in range(address.max_prefixlen + 1)
    }


def _ipcache_short(key: bytes, value: bytes, encrypt_key_offset: int) -> IpcacheEntry:
    """Decode `cilium_ipcache` (≤ 1.17); the encryption key is at 8 up to 1.10, at 10 since."""
    (identity,) = struct.unpack_from("=I", value)
    return IpcacheEntry(
        prefix=_ipcache_prefix(key),
        identity=identity,
        encrypt_key=value[encrypt_key_offset],
        tunnel_endpoint=_specified(address(value[4:8])),
        flags=frozenset({"skiptunnel"} if value[11] & 1 else ()),
    )


def _ipcache_long(key: bytes, value: bytes, _: int) -> IpcacheEntry:
    """Decode `cilium_ipcache_v2` (≥ 1.18)."""
    (identity,) = struct.unpack_from("=I", value)
    flags = value[23]
    return IpcacheEntry(
        prefix=_ipcache_prefix(key),
        identity=identity,
        encrypt_key=value[22],
        tunnel_endpoint=_specified(address(value[4:20] if flags & 4 else value[4:8])),
        flags=frozenset(name for bit, name in _IPCACHE_FLAGS if flags & bit),
    )


IPCACHE: dict[tuple[int, int], Callable[[bytes, bytes, int], IpcacheEntry]] = {
    (24, 12): _ipcache_short,
    (24, 24): _ipcache_long,
}
KEY_OFFSET_OLD, KEY_OFFSET = 8, 10
"""Offset of the encryption key in a value of 12 bytes, without and with node ids (≥ 1.14)."""


# endpoints


def _endpoint(key: bytes, value: bytes) -> LocalEndpoint:
    """Decode endpoint_key (20 bytes) and endpoint_info (48); 1.9 has no `sec_id`, which is 0."""
    endpoint_address = family_address(key[:16], key[16])
    ifindex, _, number, flags = struct.unpack_from("=IHHI", value)
    if flags & 1:
        return LocalEndpoint(endpoint_address, True)
    (identity,) = struct.unpack_from("=I", value, 32)
    return LocalEndpoint(
        address=endpoint_address,
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
    """The form of a policy map: keys with a prefix length or not, values with counters or not."""

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
    """Decode an entry of an endpoint's policy map. Counters in another map (≥ 1.18) are None.

    Args:
        endpoint: id of the endpoint.
        key, value: as stored.
        layout: of the map.
    """
    if layout.by_prefix:
        bits, identity, egress, protocol = struct.unpack_from("=IIBB", key)
        number, port_bits = port(key[10:12]), min(max(0, bits - _POLICY_STATIC - 8), 16)
        protocol = protocol if bits >= _POLICY_STATIC + 8 else 0
    else:
        identity, protocol, egress = struct.unpack("=I2xBB", key)
        number = port(key[4:6])
        port_bits = 16 if number else 0
    packets, size = struct.unpack_from("=QQ", value, 8) if layout.counters else (None, None)
    return PolicyEntry(
        endpoint_id=endpoint,
        deny=bool(value[2] & 1),
        direction="egress" if egress & 1 else "ingress",
        identity=identity,
        protocol=protocol,
        ports=_ports(number, port_bits),
        proxy_port=port(value[:2]),
        precedence=struct.unpack_from("=I", value, 4)[0] if layout.precedence else None,
        packets=packets,
        bytes=size,
    )


def _ports(number: int, bits: int) -> tuple[int, int]:
    """Return the range of ports that share the first bits of a port."""
    if not bits:
        return (0, 65535)
    width = 1 << (16 - bits)
    low = number - number % width
    return (low, low + width - 1)


def policy_stats_key(endpoint: int, key: bytes) -> bytes:
    """Return the key in `cilium_policystats` of a 12 byte policy key: only its first word
    differs."""
    (bits,) = struct.unpack_from("=I", key)
    return struct.pack("=HxB", endpoint, max(0, bits - _POLICY_STATIC) & 0xFF) + key[4:]


# egress gateway, ip-masq, source ranges


def _egress(key: bytes, value: bytes) -> EgressGatewayPolicy:
    """Decode prefix length, source, destination; egress address, then the IPv4 gateway; in longer
    values 12 bytes behind it the number of the egress device."""
    (bits,) = struct.unpack_from("=I", key)
    end = (len(key) - 4) // 2
    at = end + 16
    gateway = IPv4Address(value[end : end + 4])
    excluded = gateway == _EXCLUDED
    return EgressGatewayPolicy(
        source=address(key[4 : 4 + end]),
        destination=_network(address(key[4 + end :]), bits - 8 * end),
        egress_address=_specified(address(value[:end])),
        gateway=None if excluded else _specified(gateway),
        excluded=excluded,
        device=struct.unpack_from("=I", value, at)[0] if len(value) >= at + 4 else 0,
    )


def _masq(key: bytes, _: bytes) -> Network:
    (bits,) = struct.unpack_from("=I", key)
    return _network(address(key[4:]), bits)


def _range(key: bytes, _: bytes) -> SourceRange:
    """Decode prefix length over 32 static bits, reverse NAT id, pad, address (bpf/lib/lb.h)."""
    (bits,) = struct.unpack_from("=I", key)
    return SourceRange(port(key[4:6]), _network(address(key[8:]), bits - _RANGE_STATIC))


EGRESS4 = {(12, 8): _egress, (12, 28): _egress}
EGRESS6 = {(36, 40): _egress}
MASQ4 = {(8, 1): _masq}
MASQ6 = {(20, 1): _masq}
RANGES4 = {(12, 1): _range}
RANGES6 = {(24, 1): _range}


# metrics


@dataclass(frozen=True, slots=True)
class MetricKey:
    """The key of a counter: `line` and `file` are 0 up to 1.15."""

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
    """Return packets and bytes of a per-CPU value, summed over the CPUs."""
    packets, size = 0, 0
    for cpu_packets, cpu_bytes in struct.iter_unpack("=QQ", values):
        packets, size = packets + cpu_packets, size + cpu_bytes
    return packets, size
