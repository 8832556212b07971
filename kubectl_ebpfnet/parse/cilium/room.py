"""The sizes of Cilium's maps, as the agent has set them.

    "bpf-maps": {"dynamic-size-ratio": 0.0025, "maps": [{"name": "NAT", "size": 221723}, …]}

Source: Cilium daemon/cmd/status.go (getBPFMapStatus); in every version that was read. What was
called "Endpoint policy" beside "Global policy" (up to 1.15) is the endpoints' map, cilium_lxc.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.room import MapRoom, Table
from kubectl_ebpfnet.parse._text import json_value
from kubectl_ebpfnet.parse.cilium.agent import STATUS

_OLD_POLICY = "global policy"
_TABLES = {
    "tcp connection tracking": (Table.CT_TCP, None),
    "non-tcp connection tracking": (Table.CT_ANY, None),
    "nat": (Table.NAT, None),
    "endpoint policy": (Table.POLICY, None),
    _OLD_POLICY: (Table.POLICY, None),
    "ip cache": (Table.IPCACHE, None),
    "endpoints": (Table.ENDPOINTS, None),
    "ipv4 service": (Table.SERVICES, 4),
    "ipv6 service": (Table.SERVICES, 6),
    "ipv4 service backend": (Table.BACKENDS, 4),
    "ipv6 service backend": (Table.BACKENDS, 6),
    "ipv4 service reverse nat": (Table.REV_NAT, 4),
    "ipv6 service reverse nat": (Table.REV_NAT, 6),
}


def sizes(data: bytes) -> tuple[MapRoom, ...]:
    """Return what `status -o json` says of the maps; () for nothing. Raises ParseError."""
    return tuple(_rooms(js.items(json_value(data, STATUS), "bpf-maps", "maps")))


def _rooms(maps: list[object]) -> Iterator[MapRoom]:
    names = [js.text(item, "name").lower() for item in maps]
    if _OLD_POLICY in names:
        names = ["endpoints" if name == "endpoint policy" else name for name in names]
    for number, (name, item) in enumerate(zip(names, maps, strict=True)):
        size = js.number(item, "size")
        if name in _TABLES and size:
            table, version = _TABLES[name]
            yield MapRoom(table, size, version, span=Span(path=("bpf-maps", "maps", number)))
