"""The parser of each form of a question (kubectl_ebpfnet/model/catalogue.py), by its argv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.parse import iproute, netfilter, nettools, node_side, procfs
from kubectl_ebpfnet.parse.bpf import bpffs, bpftool
from kubectl_ebpfnet.parse.cilium import agent, lb, maps, policy

Reader = Callable[[bytes], Sequence[Any]]


def _routes6(data: bytes) -> Sequence[Any]:
    return iproute.routes(data, version=6)


# The first row whose words all stand in the argv, in this order, is the parser.
LINKS: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("ip",), iproute.links),
    (("ifconfig",), nettools.links),
)
ADDRESSES: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("ip",), iproute.addresses),
    (("ifconfig",), nettools.addresses),
)
ROUTES: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("ip", "-6"), _routes6),
    (("ip",), iproute.routes),
    (("/proc/net/route",), procfs.routes),
    (("/proc/net/ipv6_route",), procfs.routes6),
    (("route",), nettools.routes),
)
RULES: tuple[tuple[tuple[str, ...], Reader], ...] = ((("ip",), iproute.rules),)
NEIGHBOURS: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("ip",), iproute.neighbours),
    (("/proc/net/arp",), procfs.neighbours),
    (("arp",), nettools.neighbours),
)
NODE_SIDE: tuple[tuple[tuple[str, ...], Reader], ...] = ()
BPF_NET: tuple[tuple[tuple[str, ...], Reader], ...] = ((("bpftool",), bpftool.net),)
CGROUP_PROGRAMS: tuple[tuple[tuple[str, ...], Reader], ...] = ((("bpftool",), bpftool.cgroup_tree),)
BPF_LINKS: tuple[tuple[tuple[str, ...], Reader], ...] = ((("bpftool",), bpftool.links),)
BPF_PROGRAMS: tuple[tuple[tuple[str, ...], Reader], ...] = ((("bpftool",), bpftool.programs),)
BPF_PINS: tuple[tuple[tuple[str, ...], Reader], ...] = ((("ls",), bpffs.pins),)
NETFILTER: tuple[tuple[tuple[str, ...], Reader], ...] = (
    ((), lambda data: (netfilter.ruleset(data),)),
)
ENDPOINTS: tuple[tuple[tuple[str, ...], Reader], ...] = (((), agent.endpoints),)
ENDPOINT_MAP: tuple[tuple[tuple[str, ...], Reader], ...] = (((), maps.endpoint_map),)
IPCACHE: tuple[tuple[tuple[str, ...], Reader], ...] = (((), maps.ipcache),)
POLICY: tuple[tuple[tuple[str, ...], Reader], ...] = (((), policy.entries),)
SERVICES: tuple[tuple[tuple[str, ...], Reader], ...] = (((), lb.services),)
LB_MAP: tuple[tuple[tuple[str, ...], Reader], ...] = (((), lb.frontends),)
EGRESS_GATEWAY: tuple[tuple[tuple[str, ...], Reader], ...] = (((), maps.egress_gateway),)
IP_MASQ: tuple[tuple[tuple[str, ...], Reader], ...] = (((), maps.ip_masq),)
STATUS: tuple[tuple[tuple[str, ...], Reader], ...] = (((), lambda data: (agent.status(data),)),)
VERSION: tuple[tuple[tuple[str, ...], Reader], ...] = (((), lambda data: (agent.version(data),)),)
NODES: tuple[tuple[tuple[str, ...], Reader], ...] = (((), agent.nodes),)
IDENTITIES: tuple[tuple[tuple[str, ...], Reader], ...] = (((), agent.identities),)
METRICS: tuple[tuple[tuple[str, ...], Reader], ...] = (((), maps.metrics),)
IFLINK: tuple[tuple[tuple[str, ...], Reader], ...] = (((), lambda data: (procfs.number(data),)),)


def read(record: Record, table: Sequence[tuple[tuple[str, ...], Reader]]) -> Sequence[Any]:
    """Parse a record by the first row of the table whose words its argv has.

    Raises:
        ParseError: the output is malformed, or no row matches the command.
    """
    if node_side.is_node_question(record.argv):
        return node_side.facts(record.stdout.read(), record.argv)
    for words, reader in table:
        if all(word in record.argv for word in words):
            return reader(record.stdout.read())
    raise ParseError(record.command, 0, "no parser knows this command")
