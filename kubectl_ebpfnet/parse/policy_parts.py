"""Parts of network policies of every kind: selectors, prefixes, ports, ICMP types.

Source: Kubernetes apimachinery (LabelSelector); Cilium pkg/labels, pkg/policy/api.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, protocol_number
from kubectl_ebpfnet.model.policy import (
    POD_NAMESPACE,
    CidrPeer,
    PolicyPort,
    Requirement,
)

# pkg/policy/api/icmp.go
_ICMP_TYPES = {
    ICMP: {
        "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
        "RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
        "Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEcho Request": 42,
        "ExtendedEcho Reply": 43,
    },
    ICMPV6: {
        "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
        "EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131, "MulticastListenerDone": 132, "RouterSolicitation": 133,
        "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
    },
}  # fmt: skip


def selector(value: Any, source: str = "", prefix: str = "") -> list[Requirement]:
    """Return the requirements of a LabelSelector.

    Args:
        value: the LabelSelector.
        source: of all its labels; "" where a key names its own (`k8s:app`), or any is meant.
        prefix: of all its keys.
    """
    found = []
    labels = js.dig(value, "matchLabels")
    for key, text in labels.items() if isinstance(labels, dict) else ():
        of, bare = (source, key) if source else _source(key)
        found.append(Requirement(of, prefix + bare, "In", (str(text or ""),)))
    for item in js.items(value, "matchExpressions"):
        key = js.text(item, "key")
        of, bare = (source, key) if source else _source(key)
        operator, values = js.text(item, "operator"), js.texts(item, "values")
        found.append(Requirement(of, prefix + bare, operator, values))
    return found


def _source(key: str) -> tuple[str, str]:
    """Split `k8s:app` into its source and key (pkg/labels, GetExtendedKeyFrom)."""
    source, colon, bare = key.partition(":")
    if colon:
        return source or "any", bare
    if key.startswith("reserved."):
        return "reserved", key.removeprefix("reserved.")
    return "any", key


def in_namespace(namespace: str) -> Requirement:
    return Requirement("k8s", POD_NAMESPACE, "In", (namespace,))


def has_namespace() -> Requirement:
    return Requirement("k8s", POD_NAMESPACE, "Exists")


def cidr(value: Any) -> CidrPeer:
    groups = js.dig(value, "cidrGroupSelector")
    return CidrPeer(
        js.network(js.text(value, "cidr") or None),
        js.networks(js.texts(value, "except")),
        js.text(value, "cidrGroupRef"),
        tuple(selector(groups)) if isinstance(groups, dict) else None,
    )


def port(port: Any, protocol: str, end: int | None) -> PolicyPort | None:
    """Return a port of a rule, None where it is not understood.

    Args:
        port: a number, digits, a name; None or 0 for any.
        protocol: its name, `ANY` for TCP, UDP and SCTP.
        end: the last port of a range, None for one port.
    """
    number = None if protocol.upper() == "ANY" else protocol_number(protocol)
    if number is None and protocol.upper() != "ANY":
        return None
    text = str(port) if isinstance(port, int) and not isinstance(port, bool) else port
    if text is None or text == "0":
        return PolicyPort(number)
    if not isinstance(text, str) or not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 6:
        low = int(text)
        return PolicyPort(number, low, max(low, end or 0))
    return PolicyPort(number, name=text)


def icmp(field: Any) -> PolicyPort | None:
    family = ICMPV6 if js.text(field, "family") == "IPv6" else ICMP
    kind = js.dig(field, "type")
    if isinstance(kind, str):
        digits = kind.isascii() and kind.isdecimal() and len(kind) < 4
        number = int(kind) if digits else _ICMP_TYPES[family].get(kind)
    else:
        number = js.number(field, "type")
    return PolicyPort(family, number, number) if number is not None else None
