"""Cilium's load-balancing maps: packed bytes to services, slots and backends.

Sources: Cilium bpf/lib/{common,lb}.h, pkg/loadbalancer/maps/types.go (pkg/maps/lbmap up to 1.17),
pkg/loadbalancer/loadbalancer.go for the words of the flags; cilium-facts 3.5. No I/O here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from kubectl_ebpfnet.model.cilium import Backend
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.node.cilium.layout_tuple import address, port

_SERVICE = struct.Struct("=IH2sBB")
_TYPES = (
    (0x01, "ExternalIPs"),
    (0x02, "NodePort"),
    (0x20, "LoadBalancer"),
    (0x08, "HostPort"),
    (0x100, "LocalRedirect"),
)
_L7_BALANCED = 0x400
_SOURCE_RANGE, _ROUTABLE, _LOOPBACK, _DENY_OR_QUARANTINED = 0x80, 0x40, 0x800, 0x4000
_WORDS = (
    (0x04, "Local"),
    (0x10, "sessionAffinity"),
    (_SOURCE_RANGE, "check source-range"),
    (0x200, "46x64"),
    (_L7_BALANCED, "l7-load-balancer"),
    (0x1000, "InternalLocal"),
    (0x2000, "two-scopes"),
    (0x8000, "dsr"),
)
_STATES = {1: "terminating", 2: "quarantined", 3: "maintenance"}


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The key of a row: `slot` 0 is the frontend itself, other slots are its backends.

    `protocol` is None for 0 in the map: always up to Cilium 1.16.
    """

    address: Address
    port: int
    protocol: int | None
    internal: bool
    slot: int

    @property
    def frontend(self) -> tuple[Address, int, int | None, bool]:
        """The part of the key that all rows of one frontend share."""
        return self.address, self.port, self.protocol, self.internal


@dataclass(frozen=True, slots=True)
class ServiceValue:
    """The value of a row: `backend_id` is valid in slots other than 0, `flags` in slot 0."""

    backend_id: int
    rev_nat: int
    flags: int

    @property
    def proxy_port(self) -> int:
        """The L7 proxy's port, which stands in slot 0 in place of a backend's id; 0 for none."""
        return self.backend_id & 0xFFFF if self.flags & _L7_BALANCED else 0


def service_key(key: bytes) -> ServiceKey:
    """Decode lb4_key (12 bytes) or lb6_key (24)."""
    end = 4 if len(key) == 12 else 16
    slot, protocol, scope = struct.unpack_from("=HBB", key, end + 2)
    return ServiceKey(
        address(key[:end]), port(key[end : end + 2]), protocol or None, scope == 1, slot
    )


def service_value(value: bytes) -> ServiceValue:
    """Decode lb4_service or lb6_service (12 bytes both)."""
    backend, _, rev_nat, low, high = _SERVICE.unpack_from(value)
    return ServiceValue(backend, port(rev_nat), low | high << 8)


def flag_words(flags: int) -> tuple[str, frozenset[str]]:
    """Return the service's type and Cilium's other words for its flags."""
    kind = next((name for bit, name in _TYPES if flags & bit), "ClusterIP")
    words = {name for bit, name in _WORDS if flags & bit}
    if not flags & _ROUTABLE:
        words.add("non-routable")
    if flags & _LOOPBACK:
        words.add("loopback" if kind == "HostPort" else "delegate-if-local")
    if flags & _DENY_OR_QUARANTINED:
        words.add("deny" if flags & _SOURCE_RANGE else "quarantined")
    return kind, frozenset(words)


def _backend(value: bytes, end: int, *, stateful: bool) -> Backend:
    return Backend(
        address=address(value[:end]),
        port=port(value[end : end + 2]),
        protocol=value[end + 2] or None,
        state=_STATES.get(value[end + 3], "active") if stateful else "",
    )


def backend_id(key: bytes) -> int:
    """Decode a backend's id: u16 (Cilium 1.9) or u32."""
    return int(struct.unpack("=H" if len(key) == 2 else "=I", key)[0])


BackendLayout = Callable[[bytes], Backend]

SERVICES4 = {(12, 12): service_key}
SERVICES6 = {(24, 12): service_key}
BACKENDS4: dict[tuple[int, int], BackendLayout] = {
    (2, 8): lambda value: _backend(value, 4, stateful=False),
    (4, 8): lambda value: _backend(value, 4, stateful=False),
    (4, 12): lambda value: _backend(value, 4, stateful=True),
}
BACKENDS6: dict[tuple[int, int], BackendLayout] = {
    (2, 20): lambda value: _backend(value, 16, stateful=False),
    (4, 20): lambda value: _backend(value, 16, stateful=False),
    (4, 24): lambda value: _backend(value, 16, stateful=True),
}
