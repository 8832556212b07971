"""Read the words of the command line into frozen values, without I/O.

Types and their short names are kubectl's (`kubectl api-resources`). Names: Kubernetes docs,
"Object Names and IDs" (RFC 1123). Addresses with ports: RFC 3986 3.2.2 (`[IPv6]:port`). Durations
are Go's time.ParseDuration, as kubectl's flags take them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, UDP, Address
from kubectl_ebpfnet.model.path import PathRequest
from kubectl_ebpfnet.model.protocol.questions import FlowFilter

_TYPES = {
    "pod": ("pod", "po", "pods"),
    "service": ("service", "svc", "services"),
    "node": ("node", "no", "nodes"),
    "Deployment": ("deployment", "deploy", "deployments"),
    "StatefulSet": ("statefulset", "sts", "statefulsets"),
    "DaemonSet": ("daemonset", "ds", "daemonsets"),
    "ReplicaSet": ("replicaset", "rs", "replicasets"),
    "Job": ("job", "jobs"),
}
_KIND_OF = {word: kind for kind, words in _TYPES.items() for word in words}
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")
PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}

_SOURCE_EXAMPLE = "a source is pod/NAME or deploy/NAME, e.g. pod/client"
_DESTINATION_EXAMPLE = (
    "a destination is an address, pod/NAME, svc/NAME, node/NAME or a DNS name, with a port: "
    "e.g. 1.1.1.1:80, [2606:4700::1111]:80, svc/web:http, example.com:443"
)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PORT_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a packet.

    Attributes:
        kind: `pod`, or the kind of a workload, which stands for one of its pods.
        name: name of the object.
        text: `kind/name` as typed.
    """

    kind: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of a packet.

    Attributes:
        kind: `pod`, `service`, `node`, `address` or `name`.
        name: name of the object, or DNS name; "" for addresses.
        text: the word as typed, without the port.
        address: the address, None for other kinds.
        port: port number, None without a number.
        port_name: name of a Service's port, "" without a name.
    """

    kind: str
    name: str
    text: str
    address: Address | None = None
    port: int | None = None
    port_name: str = ""


@dataclass(frozen=True, slots=True)
class CaptureTarget:
    """An object that a command reads.

    Attributes:
        kind: `pod`, `node`, `service` or a workload's kind.
        name: name of the object.
        text: `kind/name` as typed.
    """

    kind: str
    name: str
    text: str


def source(word: str) -> Source:
    """Read `pod/x`, `po/x`, `deploy/x`, … or a bare name, which is a pod's.

    Raises:
        UsageError: names the expected form, with an example.
    """
    kind, type_word, name = _typed(word, _SOURCE_EXAMPLE)
    if not type_word and "." in name and _NAME.fullmatch(name):
        pod, _, rest = name.partition(".")
        raise UsageError(
            f"{word!r}: a namespace does not belong to the name",
            hint=f"use -n: pod/{pod} -n {rest}; a pod with dots in its name is pod/{name}",
        )
    if kind not in ("pod", *WORKLOADS):
        raise UsageError(f"{word!r}: a {kind} cannot be a source", hint=_SOURCE_EXAMPLE)
    return Source(kind, _name(word, name), f"{'pod' if kind == 'pod' else type_word}/{name}")


def destination(word: str) -> Destination:
    """Read an address, `pod/x`, `svc/x`, `node/x` or a DNS name, each with or without a port.

    Raises:
        UsageError: names the expected form, with an example.
    """
    if not word.strip():
        raise UsageError("the destination is empty", hint=_DESTINATION_EXAMPLE)
    if "://" in word:
        raise UsageError(f"{word!r} is a URL", hint="use host and port: example.com:443")
    if "/" in word:
        return _object(word)
    if word.startswith("["):
        return _bracketed(word)
    address = _address(word)
    if address is not None:
        return Destination("address", "", str(address), address)
    host, colon, port_word = word.rpartition(":")
    if not colon:
        return Destination("name", _dns_name(word, word), word)
    port = _port(word, port_word)
    address = _address(host)
    if isinstance(address, IPv6Address):
        raise UsageError(f"{word!r}: an IPv6 address with a port needs brackets: [{host}]:{port}")
    if address is not None:
        return Destination("address", "", str(address), address, port)
    return Destination("name", _dns_name(word, host), host, None, port)


def protocol(word: str, to: Destination) -> int:
    """Return the IANA number of `tcp`, `udp` or `icmp`; ICMP to an IPv6 address is ICMPv6.

    Raises:
        UsageError: an unknown protocol, or ICMP with a port.
    """
    number = _protocol_number(word)
    if number != ICMP:
        return number
    if to.port is not None or to.port_name:
        raise UsageError("ICMP has no ports", hint=f"leave the port out: {to.text}")
    return ICMPV6 if isinstance(to.address, IPv6Address) else ICMP


def request(
    sender: Source, to: Destination, number: int, namespace: str, to_namespace: str
) -> PathRequest:
    """Build the request of `path`.

    Args:
        sender: source of the packet.
        to: destination of the packet.
        number: IANA number of the protocol.
        namespace: namespace of the source.
        to_namespace: namespace of the destination, "" for that of the source.
    """
    named = to.kind in ("pod", "service")
    return PathRequest(
        source=sender.text,
        source_kind=sender.kind,
        source_namespace=namespace,
        source_name=sender.name,
        destination=to.text,
        destination_kind=to.kind,
        destination_namespace=(to_namespace or namespace) if named else "",
        destination_name=to.name,
        destination_address=to.address,
        port=to.port,
        port_name=to.port_name,
        protocol=number,
    )


def target(word: str) -> CaptureTarget:
    """Read `pod/x`, `node/x`, `svc/x`, a workload, or a pod's bare name.

    Raises:
        UsageError: names the expected form, with an example.
    """
    kind, type_word, name = _typed(word, "a target is pod/NAME, deploy/NAME or node/NAME")
    return CaptureTarget(kind, _name(word, name), f"{'pod' if kind == 'pod' else type_word}/{name}")


def pod_or_node(word: str, command: str) -> CaptureTarget:
    """Read the target of a command that takes a pod, a workload or a node.

    Raises:
        UsageError: names the expected form, with an example.
    """
    read = target(word)
    if read.kind == "service":
        raise UsageError(
            f"{word!r}: {command} takes a pod or node, e.g. pod/NAME or node/NAME",
            hint="for a Service use `kubectl ebpfnet path`",
        )
    return read


def peers(to: str, protocol_word: str) -> tuple[FlowFilter, ...]:
    """Return the filters of `flows` for --to and --protocol; without both, a filter that fits all.

    Raises:
        UsageError: --to is not an address, or --protocol not a protocol.
    """
    number = _protocol_number(protocol_word) if protocol_word else None
    end = destination(to) if to else None
    if end is not None and end.address is None:
        raise UsageError(
            f"--to {to!r}: not an address",
            hint="e.g. --to 1.1.1.1, --to 10.96.0.1:443, --to [fd00::1]:80",
        )
    address, port = (end.address, end.port) if end is not None else (None, None)
    numbers = (ICMP, ICMPV6) if number == ICMP else (number,)
    return tuple(FlowFilter(peer=address, peer_port=port, protocol=each) for each in numbers)


def _protocol_number(word: str) -> int:
    number = PROTOCOLS.get(word.lower())
    if number is None:
        raise UsageError(f"--protocol {word!r}: unknown protocol", hint="one of: tcp, udp, icmp")
    return number


def duration(word: str, flag: str) -> float | None:
    """Return the seconds of `10s`, `1m30s`, `500ms` or a plain number; None for 0, no limit.

    Raises:
        UsageError: `word` is not a duration; the error names `flag`.
    """
    seconds = 0.0
    if word.isascii() and word.isdecimal() and len(word) <= 9:
        seconds = float(word)
    elif word and _DURATION.sub("", word) == "":
        seconds = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION.findall(word))
    else:
        raise UsageError(
            f"{flag} {word!r} is not a duration", hint=f"e.g. {flag} 10s, {flag} 1m30s; 0: no limit"
        )
    return seconds or None


def _typed(word: str, example: str) -> tuple[str, str, str]:
    """Return the kind, the type as typed ("" for a bare name), and the rest of the word."""
    if not word.strip():
        raise UsageError("a name is empty", hint=example)
    type_word, slash, rest = word.partition("/")
    if not slash:
        return "pod", "", word
    kind = _KIND_OF.get(type_word.lower())
    if kind is None:
        near = f"e.g. pod/{rest}" if _NAME.fullmatch(rest) else example
        raise UsageError(f"{word!r}: unknown type {type_word!r}", hint=near)
    return kind, type_word.lower(), rest


def _name(word: str, name: str) -> str:
    if not name:
        raise UsageError(f"{word!r}: the name is missing", hint=f"e.g. {word}NAME")
    if len(name) <= 253 and _NAME.fullmatch(name):
        return name
    if _NAME.fullmatch(name.lower()):
        hint = f"names are lower case: {name.lower()}"
    elif "/" in name:
        hint = "give the namespace with -n, the destination's with --to-namespace"
    elif ":" in name:
        hint = "only a destination has a port"
    else:
        hint = "a name has a-z, 0-9, '-' and '.', and starts and ends with a letter or digit"
    raise UsageError(f"{word!r}: {name!r} is not a valid name", hint=hint)


def _object(word: str) -> Destination:
    head, _, tail = word.partition("/")
    if _address(head) is not None and tail.isdecimal():
        raise UsageError(f"{word!r} is a network", hint=f"name one of its addresses: {head}")
    kind, type_word, rest = _typed(word, _DESTINATION_EXAMPLE)
    if kind in WORKLOADS:
        raise UsageError(
            f"{word!r}: a {kind} cannot be a destination: it has many addresses",
            hint="name one of its pods, or its Service: svc/NAME",
        )
    head, colon, port_word = rest.partition(":")
    name = _name(word, head)
    text = f"{type_word}/{name}"
    if not colon:
        return Destination(kind, name, text)
    if kind == "service" and _PORT_NAME.fullmatch(port_word):
        return Destination(kind, name, text, port_name=port_word)
    return Destination(kind, name, text, port=_port(word, port_word, named=kind == "service"))


def _bracketed(word: str) -> Destination:
    inner, bracket, rest = word[1:].partition("]")
    address = _address(inner)
    if not bracket or not isinstance(address, IPv6Address) or (rest and rest[0] != ":"):
        raise UsageError(f"{word!r} is not [IPv6]:PORT", hint="e.g. [2606:4700::1111]:80")
    port = _port(word, rest[1:]) if rest else None
    return Destination("address", "", str(address), address, port)


def _address(word: str) -> Address | None:
    try:
        address = ip_address(word)
    except ValueError:
        return None
    if not isinstance(address, IPv6Address):
        return address
    if address.scope_id:
        raise UsageError(f"{word!r}: a zone is valid on one node only", hint="leave out %ZONE")
    # A socket sends IPv4 to an IPv4-mapped address (RFC 4291 2.5.5.2).
    return address.ipv4_mapped or address


def _port(word: str, port_word: str, *, named: bool = False) -> int:
    if port_word.isascii() and port_word.isdecimal() and len(port_word) <= 5:
        number = int(port_word)
        if 1 <= number <= 65535:
            return number
    what = "a number from 1 to 65535" + (" or the name of a Service's port" if named else "")
    raise UsageError(f"{word!r}: {port_word!r} is not a port", hint=f"a port is {what}")


def _dns_name(word: str, name: str) -> str:
    bare = name.removesuffix(".")
    labels = bare.split(".")
    if re.fullmatch(r"[0-9.]+", name):
        raise UsageError(f"{word!r} is not an IPv4 address", hint=_DESTINATION_EXAMPLE)
    if ":" in name:
        raise UsageError(f"{word!r} is not an IPv6 address", hint="e.g. [2606:4700::1111]:80")
    if not name.isascii():
        raise UsageError(
            f"{word!r} is not a DNS name", hint="use its ASCII form, which starts with xn--"
        )
    if len(bare) > 253 or not all(map(_DNS_LABEL.fullmatch, labels)):
        raise UsageError(f"{word!r} is not a destination", hint=_DESTINATION_EXAMPLE)
    return name
