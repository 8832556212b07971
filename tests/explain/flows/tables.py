"""Bundles of a node's tracking tables, in the words of the agent."""

from __future__ import annotations

import json

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import (
    API,
    Bundle,
    InMemory,
    Record,
    agent_place,
    bundle_of,
)

CT = ("cilium-dbg", "bpf", "ct", "list", "global", "-d")
CT_PLAIN = ("cilium", "bpf", "ct", "list", "global")
NAT = ("cilium-dbg", "bpf", "nat", "list")
NF = ("cat", "/proc/net/nf_conntrack")
NOW = 9000
"""What the datapath's clock stands at."""


def record(node: str, argv: tuple[str, ...], *lines: str, started: str = "10:00:00") -> Record:
    """The record of a command of a node's agent."""
    text = "".join(f"{line}\n" for line in lines)
    when = f"2026-11-30T{started}Z"
    return Record(0, agent_place(node), argv, 0, InMemory(text.encode()), started=when)


def status(node: str, **clock: object) -> Record:
    """The agent's status: its clock, and that it routes by a tunnel."""
    text = json.dumps({"clock-source": clock, "routing": {"inter-host-routing-mode": "tunnel"}})
    return record(node, ("cilium-dbg", "status", "-o", "json"), text)


def pod(name: str, node: str, address: str) -> Record:
    """A Pod object."""
    value = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }
    return Record(0, API, ("get", "pods", name), 0, InMemory(json.dumps(value).encode()))


def ct(
    words: str,
    sent: int | None = None,
    back: int | None = None,
    *,
    flags: tuple[int, int] = (0, 0),
    lifetime: int = 60,
    marks: str = "",
    rev_nat: int = 0,
) -> str:
    """A line of `bpf ct list global -d`.

    Args:
        words: protocol, direction, tuple: `TCP OUT 10.0.0.1:1 -> 10.0.0.2:80`.
        sent, back: seconds since Tx and Rx were last reported, None for never.
        flags: seen in Tx and Rx.
        lifetime: that was left after the last packet.
        marks: flag names.
        rev_nat: of a load-balanced flow.
    """
    reports = [0 if age is None else NOW - age for age in (sent, back)]
    expires = max(reports) + lifetime
    return (
        f"{words} expires={expires} (remaining: {expires - NOW} sec(s)) Packets=0 Bytes=0 "
        f"RxFlagsSeen={flags[1]:#04x} LastRxReport={reports[1]} TxFlagsSeen={flags[0]:#04x} "
        f"LastTxReport={reports[0]} Flags=0x0000 [ {marks} ] RevNAT={rev_nat} "
        "SourceSecurityID=1 BackendID=0 "
    )


def closed(words: str, age: int, rev_nat: int = 0) -> str:
    """A connection that was answered and closed."""
    marks = "RxClosing TxClosing SeenNonSyn"
    return ct(words, age, age, flags=(0x1B, 0x1B), lifetime=10, marks=marks, rev_nat=rev_nat)


def syn(words: str, age: int, rev_nat: int = 0) -> str:
    """A SYN that nobody answered."""
    return ct(words, age, flags=(0x02, 0), rev_nat=rev_nat)


def cluster(*records: Record) -> ClusterView:
    """A view of the records."""
    return ClusterView(bundle(*records))


def bundle(*records: Record) -> Bundle:
    """A bundle of the records."""
    return bundle_of(records, source="test")
