"""Cilium's smaller maps: ipcache, endpoints, ip-masq, metrics.

Source: Cilium pkg/maps/{ipcache,lxcmap,ipmasq,tunnel,metricsmap}; formats by version:
cilium-facts 2.4, 2.5, 2.7.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium import IpcacheEntry, LocalEndpoint
from kubectl_ebpfnet.model.cilium_events import MetricRow
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.net import Network
from kubectl_ebpfnet.parse._json import list_items
from kubectl_ebpfnet.parse._text import address, integer, lines, network
from kubectl_ebpfnet.parse.cilium.tabwriter import rows

IPCACHE = "cilium bpf ipcache list"
ENDPOINTS = "cilium bpf endpoint list"
MASQ = "cilium bpf ipmasq list"
METRICS = "cilium bpf metrics list"


def _pairs(data: bytes, source: str, header: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, key, value) of a two-column map."""
    for number, text in lines(data, source):
        words = text.split(None, 1)
        if words and not text.startswith(header):
            yield number, words[0], words[1].strip() if len(words) > 1 else ""


def ipcache(data: bytes) -> tuple[IpcacheEntry, ...]:
    """Parse `bpf ipcache list`. Raises ParseError."""
    return tuple(
        _ipcache(number, key, value) for number, key, value in _pairs(data, IPCACHE, "IP PREFIX")
    )


def _ipcache(number: int, key: str, value: str) -> IpcacheEntry:
    prefix = network(key.partition("@")[0], IPCACHE, number)
    words = value.replace(",", " ", 1).split() if ", flags=" in value else value.split()
    if words and "=" not in words[0]:  # ≤ 1.10: identity, key, tunnel endpoint
        if len(words) < 3:
            raise ParseError(IPCACHE, number, "an entry without identity, key and endpoint")
        fields = dict(zip(("identity", "encryptkey", "tunnelendpoint"), words, strict=False))
    else:
        fields = dict(word.partition("=")[::2] for word in words)
    tunnel_endpoint = fields.get("tunnelendpoint", "")
    has_endpoint = tunnel_endpoint not in ("", "<nil>")
    endpoint = address(tunnel_endpoint, IPCACHE, number) if has_endpoint else None
    flags = fields.get("flags", "<none>")
    return IpcacheEntry(
        prefix=prefix,
        identity=integer(fields.get("identity"), IPCACHE, number),
        encrypt_key=integer(fields.get("encryptkey", 0), IPCACHE, number),
        tunnel_endpoint=None if endpoint is None or endpoint.is_unspecified else endpoint,
        flags=frozenset() if flags == "<none>" else frozenset(flags.split(",")),
        span=Span(number),
    )


def endpoint_map(data: bytes) -> tuple[LocalEndpoint, ...]:
    """Parse `bpf endpoint list`. Raises ParseError."""
    return tuple(
        _endpoint(number, key, value)
        for number, key, value in _pairs(data, ENDPOINTS, "IP ADDRESS")
    )


def _endpoint(number: int, key: str, value: str) -> LocalEndpoint:
    endpoint_address = address(_without_port(key), ENDPOINTS, number)
    if value.startswith("(localhost)"):
        return LocalEndpoint(endpoint_address, True, span=Span(number))
    # `id=1174  sec_id=60735 flags=0x0000 ifindex=13  mac=…`: blanks may precede a value.
    fields: dict[str, str] = {}
    key_name = ""
    for word in value.split():
        name, equals, rest = word.partition("=")
        if equals:
            key_name, fields[name] = name, rest
        elif key_name and not fields[key_name]:
            fields[key_name] = word

    def optional(name: str) -> int | None:
        return integer(fields[name], ENDPOINTS, number) if fields.get(name) else None

    flags = optional("flags") or 0
    return LocalEndpoint(
        address=endpoint_address,
        host=bool(flags & 1),
        endpoint_id=optional("id"),
        identity=optional("sec_id"),
        ifindex=optional("ifindex"),
        mac=fields.get("mac", "").lower(),
        node_mac=fields.get("nodemac", "").lower(),
        span=Span(number),
    )


def has_no_command(data: bytes, name: bytes) -> bool:
    """Tell whether this is the help of `cilium bpf`, which an older one prints for a command that
    it does not know, and ends with exit code 0."""
    _, listed, commands = data.partition(b"\nAvailable Commands:\n")
    return bool(listed) and not any(line.split()[:1] == [name] for line in commands.splitlines())


def ip_masq(data: bytes) -> tuple[Network, ...]:
    """Parse `bpf ipmasq list`: prefixes that are not masqueraded. Raises ParseError."""
    return tuple(network(cells[0], MASQ, number) for number, cells in rows(data, MASQ, "IP PREFIX"))


def ip_masq_json(data: bytes) -> tuple[Network, ...]:
    """Parse `bpf ipmasq list -o json`, a list of prefixes. Raises ParseError."""
    return tuple(network(value, MASQ) for _, value in list_items(data, MASQ))


def _without_port(text: str) -> str:
    """Parse `10.244.1.0:0`, `10.244.1.0@2:0` of cluster 2, `[fd00::]:0` and `fd00:::0` as an
    address."""
    return text.rpartition(":")[0].strip("[]").partition("@")[0]


def metrics(data: bytes) -> tuple[MetricRow, ...]:
    """Parse `bpf metrics list`. Raises ParseError."""
    found = []
    for number, cells in rows(data, METRICS, "REASON"):
        if len(cells) < 4:
            raise ParseError(METRICS, number, "a row without reason, direction and counters")
        location = f"{cells[5]}:{cells[4]}" if len(cells) >= 6 else ""
        packets, size = (integer(cell, METRICS, number) for cell in cells[2:4])
        found.append(MetricRow(cells[0], cells[1].lower(), packets, size, location, Span(number)))
    return tuple(found)
