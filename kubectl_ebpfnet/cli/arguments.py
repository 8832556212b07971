"""Read the words of the command line into frozen values, without I/O.

Objects: object_words.py; destinations: destinations.py. Durations are Go's time.ParseDuration, as
kubectl's flags take them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv6Address

from kubectl_ebpfnet.cli.destinations import PROTOCOLS, Destination
from kubectl_ebpfnet.cli.destinations import destination as destination
from kubectl_ebpfnet.cli.object_words import checked_name, shown, split
from kubectl_ebpfnet.cli.senders import Source, via
from kubectl_ebpfnet.cli.senders import source as source
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, protocol_name
from kubectl_ebpfnet.model.protocol.questions import FlowFilter
from kubectl_ebpfnet.model.request import PathRequest

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ms|h|m|s)")
_LEAST_SIZE, _MOST_SIZE = 28, 65535
"""Of IP packets: an IPv4 header and one of UDP or ICMP; what the field of the length can hold."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class CaptureTarget:
    """An object that a command reads.

    Attributes:
        kind: `pod`, `node`, `service` or a workload's kind.
        name: name of the object.
        text: `kind/name` as typed.
        namespace: of `NAMESPACE/POD`, "" for other forms.
    """

    kind: str
    name: str
    text: str
    namespace: str = ""


def protocol(word: str, to: Destination) -> int:
    """Return the IANA number of a packet's protocol; ICMP to an IPv6 address is ICMPv6.

    Args:
        word: of --protocol, "" where it was not given.
        to: the destination, which may name a protocol too (`/udp`).

    Raises:
        UsageError: an unknown protocol, two of them, or ICMP with a port.
    """
    number = _protocol_number(word) if word else to.protocol or TCP
    if to.protocol not in (None, number):
        raise UsageError(
            f"--protocol {word} and /{protocol_name(to.protocol).lower()} of the destination",
            hint="leave one of them out",
        )
    if number != ICMP:
        return number
    if to.port is not None or to.port_name:
        raise UsageError("ICMP has no ports", hint=f"leave the port out: {to.text}")
    return ICMPV6 if isinstance(to.address, IPv6Address) else ICMP


def ip_version(
    *, ipv4: bool, ipv6: bool, to: Destination, sender: Source | None = None
) -> int | None:
    """Return the IP version that -4 or -6 asks for, None without them.

    Args:
        ipv4: -4 was given.
        ipv6: -6 was given.
        to: the destination.
        sender: the source.

    Raises:
        UsageError: both were given, or an end is an address of the other version.
    """
    if ipv4 and ipv6:
        raise UsageError("-4 and -6: a packet has one IP version", hint="leave one of them out")
    if not ipv4 and not ipv6:
        return None
    version = 4 if ipv4 else 6
    if to.address is not None and to.address.version != version:
        raise UsageError(f"-{version}: {to.text} is an IPv{to.address.version} address")
    client = sender.address if sender is not None else None
    if client is not None and client.version != version:
        raise UsageError(f"-{version}: {client} is an IPv{client.version} address")
    return version


def size(word: str) -> int | None:
    """Return the bytes of --size, None where it was not given.

    Raises:
        UsageError: it is no number of bytes that an IP packet can have.
    """
    if not word:
        return None
    number = int(word) if word.isascii() and word.isdecimal() and len(word) <= 9 else None
    if number is None or not _LEAST_SIZE <= number <= _MOST_SIZE:
        raise UsageError(
            f"--size {shown(word)}: an IP packet with its headers has {_LEAST_SIZE} to "
            f"{_MOST_SIZE} bytes",
            hint="e.g. --size 1500",
        )
    return number


def request(
    sender: Source,
    to: Destination,
    number: int,
    namespace: str,
    to_namespace: str,
    version: int | None = None,
    bytes_: int | None = None,
    via: str = "",
) -> PathRequest:
    """Build the request of `path`.

    Args:
        sender: source of the packet.
        to: destination of the packet.
        number: IANA number of the protocol.
        namespace: namespace of the source, where `sender` has none.
        to_namespace: namespace of the destination, "" for that of the source.
        version: of IP, None for the one that the ends have.
        bytes_: size of the packet, None for a small one.
        via: the node by which a client outside enters, "" for each that it may enter by.

    Raises:
        UsageError: two namespaces for the destination, or a DNS name that no pod looks up.
    """
    if to.kind == "name" and sender.kind in ("node", "address"):
        raise UsageError(
            f"{sender.text} → {to.text}: a name is looked up as a pod does it",
            hint=f"give the address that {to.name} has for {sender.text}",
        )
    if to.namespace and to_namespace not in ("", to.namespace):
        raise UsageError(
            f"--to-namespace {to_namespace} and {to.namespace}/{to.name}: two namespaces",
            hint="leave out --to-namespace",
        )
    namespace = sender.namespace or namespace
    in_namespace = sender.kind not in ("node", "address")
    named = to.kind in ("pod", "service")
    return PathRequest(
        source=sender.text,
        source_kind=sender.kind,
        source_namespace=namespace if in_namespace else "",
        source_name=sender.name,
        source_address=sender.address,
        via=via,
        destination=to.text,
        destination_kind=to.kind,
        destination_namespace=(to.namespace or to_namespace or namespace) if named else "",
        destination_name=to.name,
        destination_address=to.address,
        port=to.port,
        port_name=to.port_name,
        protocol=number,
        note=to.note,
        ip_version=version,
        size=bytes_,
    )


def question(
    source_word: str,
    destination_word: str,
    protocol_word: str,
    to_namespace: str,
    *,
    ipv4: bool,
    ipv6: bool,
    size_word: str = "",
    via_word: str = "",
) -> tuple[Source, Callable[[str], PathRequest]]:
    """Read the words of `path`.

    Args:
        source_word, destination_word: the arguments.
        protocol_word: of --protocol, "" where it was not given.
        to_namespace: of --to-namespace, "" where it was not given.
        ipv4, ipv6: -4 and -6 were given.
        size_word: of --size, "" where it was not given.
        via_word: of --via, "" where it was not given.

    Returns:
        The source, and a function from the namespace of the run to the request.

    Raises:
        UsageError: a word cannot be read, or two contradict each other.
    """
    sender, to = source(source_word), destination(destination_word)
    number = protocol(protocol_word, to)
    version = ip_version(ipv4=ipv4, ipv6=ipv6, to=to, sender=sender)
    bytes_ = size(size_word)
    entry = via(via_word, sender)
    request(sender, to, number, "default", to_namespace)  # refuse before any cluster is asked
    return sender, lambda name: request(
        sender, to, number, name, to_namespace, version, bytes_, entry
    )


def target(word: str) -> CaptureTarget:
    """Read `pod/x`, `node/x`, `svc/x`, a workload, `NAMESPACE/POD` or a pod's bare name.

    Raises:
        UsageError: names the expected form, with an example.
    """
    found = split(word, "a target is pod/NAME, deploy/NAME or node/NAME")
    name = checked_name(word, found.name)
    return CaptureTarget(found.kind, name, found.text, found.namespace)


def pod_or_node(word: str, command: str) -> CaptureTarget:
    """Read the target of a command that takes a pod, a workload or a node.

    Raises:
        UsageError: names the expected form, with an example.
    """
    read = target(word)
    if read.kind == "service":
        raise UsageError(
            f"{shown(word)}: {command} takes a pod or node, e.g. pod/NAME or node/NAME",
            hint="for a Service use `kubectl ebpfnet path`",
        )
    return read


def peers(to: str, protocol_word: str) -> tuple[FlowFilter, ...]:
    """Return the filters of `flows` for --to and --protocol; without both, a filter that fits all.

    Raises:
        UsageError: --to is not an address, or --protocol not a protocol.
    """
    end = destination(to) if to else None
    number = _protocol_number(protocol_word) if protocol_word else None
    if end is not None and end.protocol is not None:
        number = protocol(protocol_word, end)
    if end is not None and end.address is None:
        raise UsageError(
            f"--to {shown(to)}: not an address",
            hint="e.g. --to 1.1.1.1, --to 10.96.0.1:443, --to [fd00::1]:80, --to svc/web",
        )
    address, port = (end.address, end.port) if end is not None else (None, None)
    numbers = (ICMP, ICMPV6) if number == ICMP else (number,)
    return tuple(FlowFilter(peer=address, peer_port=port, protocol=each) for each in numbers)


def _protocol_number(word: str) -> int:
    number = PROTOCOLS.get(word.lower())
    if number is None:
        raise UsageError(
            f"--protocol {shown(word)}: unknown protocol", hint="one of: tcp, udp, sctp, icmp"
        )
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
            f"{flag} {shown(word)} is not a duration",
            hint=f"e.g. {flag} 10s, {flag} 1m30s; 0: no limit",
        )
    return seconds or None
