"""nf_conntrack of a network namespace, by ctnetlink.

Three methods, cheapest first. Times for 100,000 entries on Linux 6.18:

* A completely known flow is looked up by key (0.02 ms). Keys are of zone 0.
* Other flows, and one that zone 0 lacks, are filtered by the kernel (CTA_FILTER, Linux 5.8), 10 ms
  a dump. An address may be the source or the destination of either direction, and a filter is one
  tuple of one direction: four dumps. IPv6 addresses are filtered here, in one dump of 140 ms, since
  kernels compare them the wrong way round (11 s, were all decoded by pyroute2).
* Without flows the whole table is decoded (0.9 s).

Where only the newest are wanted, those with the longest time-out are decoded. Of a table of more
than SMALL entries the kernel then sends the requested flows alone, and nothing beside them.

A kernel before 5.8 ignores the filter and sends the whole table, which is then filtered here.
conntrack_message.py decodes the messages.

Sources: Linux include/uapi/linux/netfilter/nfnetlink_conntrack.h,
net/netfilter/nf_conntrack_netlink.c (ctnetlink_get_conntrack, ctnetlink_alloc_filter).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from heapq import heappush, heappushpop
from operator import itemgetter
from pathlib import Path
from typing import Any

from pyroute2.netlink import NETLINK_NETFILTER, NLM_F_DUMP
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, nfct_msg, nfct_stats

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, LeftOut, NodeRequest
from kubectl_ebpfnet.node.netlink import conntrack_message, transport

_CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _GET_STATS = _CTNETLINK | 1, _CTNETLINK | 5  # IPCTNL_MSG_CT_GET, _GET_STATS
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")  # of the reader's own namespace
_FILTER = "CTA_FILTER"
_WHAT = "read the connection tracking table"
_ReadFilter = Callable[[bytes], bool] | None
SMALL = 2000
"""Entries of a table of which what stands beside the requested flows is sent too."""
_MOST_FILTERS = 4
"""Flows for each of which the kernel is asked on its own, by four dumps."""
_TIMEOUT = struct.pack("=HH", 8, 7)  # CTA_TIMEOUT, a number of 4 bytes
_ID = struct.pack("=HH", 8, 12)  # CTA_ID


def entries(request: NodeRequest) -> Iterator[ConntrackEntry | LeftOut]:
    """Yield the connections that netfilter tracks in this network namespace, IPv4 and IPv6.

    Args:
        request: with `flows`, the entries that match one of them, each once; without, all, in the
            kernel's order. A completely known flow in zone 0 is not searched in other zones.

    Raises:
        Unsupported: this kernel tracks no connections, or has no ctnetlink.
        KernelError: EPERM without CAP_NET_ADMIN.
    """
    _must_be_loaded()
    if request.newest and (request.flows or request.beside):
        yield from _newest(request)
        return
    found: set[tuple[int, Flow]] = set()
    remaining = []
    for flow_filter in request.flows:
        by_key = list(_by_key(flow_filter))
        if all(entry.zone for entry in by_key):  # one of another zone has its reply in zone 0
            remaining.append(flow_filter)
        yield from _unseen(by_key, found)
    if remaining:
        yield from _unseen(_by_filtered_dumps(remaining), found)
    if not request.flows:
        for data, start, end in _EVERYTHING.messages():
            yield conntrack_message.entry(data, start, end)


def _newest(request: NodeRequest) -> Iterator[ConntrackEntry | LeftOut]:
    """Yield the newest entries of the requested flows, then how many were left out.

    A small table is read whole, by one dump: each of the kernel's filters goes over the entries of
    all network namespaces.
    """
    there = count()
    small = there <= SMALL or not request.flows
    groups: dict[object, list[FlowFilter]] = {}
    for is_beside, flow in [
        *((False, flow) for flow in request.flows),
        *((True, flow) for flow in request.beside if small),
    ]:
        any_peer = flow.peer is None
        alike = (is_beside, flow.address, flow.port, flow.peer_port, flow.protocol, any_peer)
        groups.setdefault(alike, []).append(flow)
    wanted = list(groups.values())
    kept: list[list[tuple[int, int, ConntrackEntry]]] = [[] for _ in wanted]
    fitting = [0] * len(wanted)
    every = [flow for flows in wanted for flow in flows]
    seen: set[bytes] = set()
    for raw in _messages(every, whole=small):
        key, left = _key(raw), _time_left(raw)
        if key in seen:
            continue
        seen.add(key)
        entry = conntrack_message.entry(raw, 0, len(raw))
        for number, flows in enumerate(wanted):
            if any(flow.fits(entry.original, entry.reply) for flow in flows):
                fitting[number] += 1
                put = heappush if len(kept[number]) < request.newest else heappushpop
                put(kept[number], (left, len(seen), entry))
                break
    missing = [0, 0]
    for number, flows in enumerate(wanted):
        yield from (entry for _, _, entry in sorted(kept[number], key=itemgetter(1)))
        missing[flows[0] not in request.flows] += fitting[number] - len(kept[number])
    if request.beside and not small:
        missing[1] = max(0, there - sum(fitting))
    if any(missing):
        yield LeftOut(missing[0], missing[1])


def _key(raw: bytes) -> bytes:
    """Return what tells a message's entry: its first attribute, the original tuple, and its id."""
    at = raw.find(_ID)
    return raw[4 : 4 + int.from_bytes(raw[4:6], sys.byteorder)] + raw[at : at + 8]


def _time_left(raw: bytes) -> int:
    at = raw.find(_TIMEOUT)
    return int.from_bytes(raw[at + 4 : at + 8], "big") if at >= 0 else 0


def count() -> int:
    """Return the number of entries in this network namespace. Raises as `entries` does."""
    _must_be_loaded()
    for data, start, _ in _ask(socket.AF_UNSPEC, 0, [], _GET_STATS):
        message = nfct_stats(data, offset=start - transport.HEADER.size)
        message.decode()
        return int(message.get_attr("CTA_STATS_GLOBAL_ENTRIES"))
    raise KernelError(f"{_WHAT}: no count came back")


def _must_be_loaded() -> None:
    if not _COUNT.exists():  # a question would load the module
        raise Unsupported("this kernel tracks no connections: nf_conntrack is not loaded")


def _unseen(
    candidates: Iterable[ConntrackEntry], found: set[tuple[int, Flow]]
) -> Iterator[ConntrackEntry]:
    for entry in candidates:
        key = (entry.zone, entry.original)
        if key not in found:
            found.add(key)
            yield entry


@dataclass(frozen=True, slots=True)
class _TupleFilter:
    """A kernel-side filter of one direction's tuple; None matches any value."""

    family: int
    direction: str = "ORIG"
    protocol: int | None = None
    source: Address | None = None
    source_port: int | None = None
    destination: Address | None = None
    destination_port: int | None = None

    def key(self) -> tuple[Any, int]:
        """Return the tuple with its known parts, and the flags that name them."""
        known = NFCTAttrTuple(
            self.family, *(None if end is None else str(end) for end in self._ends()),
            self.protocol, self.source_port, self.destination_port,
        )  # fmt: skip
        return {"attrs": known.attrs()}, known.flags

    def messages(self, is_useful: _ReadFilter = None) -> Iterator[transport.Answer]:
        """Yield the kernel's messages as transport.answers does."""
        attributes: list[tuple[str, Any]] = []
        if self != _EVERYTHING:
            key, flags = self.key()
            if flags:
                filter_flags = {"attrs": [(f"CTA_FILTER_{self.direction}_FLAGS", flags)]}
                attributes = [(f"CTA_TUPLE_{self.direction}", key), (_FILTER, filter_flags)]
        return _ask(self.family, NLM_F_DUMP, attributes, is_useful=is_useful)

    def _ends(self) -> tuple[Address | None, Address | None]:
        return self.source, self.destination

    def passes(self, raw: bytes) -> bool:
        """Tell whether a message has the addresses; a kernel that filters sends no other."""
        return all(end is None or end.packed in raw for end in self._ends())


_EVERYTHING = _TupleFilter(socket.AF_UNSPEC)


def _tuple_filters(flow_filter: FlowFilter) -> list[_TupleFilter]:
    """Return the kernel-side filters that together match the flow's entries, and perhaps more.

    The kernel compares ports only with a protocol, and for IPv6 addresses it sends the wrong
    entries (up to 6.18 at least, ctnetlink_filter_match_tuple takes equal for different). So one
    filter by protocol is used for IPv6.
    """
    ends = [end for end in (flow_filter.address, flow_filter.peer) if end is not None]
    families = {socket.AF_INET if end.version == 4 else socket.AF_INET6 for end in ends}
    if len(families) == 2:
        return []  # no packet has addresses of two families
    if not ends and flow_filter.protocol is None:
        return [_EVERYTHING]
    families = families or {socket.AF_INET, socket.AF_INET6}
    with_ports = flow_filter.protocol is not None and has_ports(flow_filter.protocol)
    local_end = (flow_filter.address, flow_filter.port if with_ports else None)
    remote_end = (flow_filter.peer, flow_filter.peer_port if with_ports else None)
    if local_end == remote_end == (None, None) or (ends and ends[0].version == 6):
        return [_TupleFilter(family, protocol=flow_filter.protocol) for family in families]
    return [
        _TupleFilter(family, direction, flow_filter.protocol, *source, *destination)
        for family in families
        for direction in ("ORIG", "REPLY")
        for source, destination in ((local_end, remote_end), (remote_end, local_end))
    ]


def _by_filtered_dumps(flows: list[FlowFilter]) -> Iterator[ConntrackEntry]:
    """Yield the entries that match one of the flows, by filtered dumps; some come repeatedly."""
    for raw in _messages(flows):
        entry = conntrack_message.entry(raw, 0, len(raw))
        if any(flow_filter.fits(entry.original, entry.reply) for flow_filter in flows):
            yield entry


def _messages(flows: list[FlowFilter], *, whole: bool = False) -> Iterator[bytes]:
    """Yield the kernel's messages of entries that may match one of the flows; some come
    repeatedly, unless the whole table is read."""
    asked = flows
    if len(flows) > _MOST_FILTERS:  # of some peers each: one dump for all of them
        asked = list(dict.fromkeys(replace(flow, peer=None, peer_port=None) for flow in flows))
    filters = list(dict.fromkeys(f for flow_filter in asked for f in _tuple_filters(flow_filter)))
    if whole or _EVERYTHING in filters:
        filters = [_EVERYTHING]
    ends = [(flow_filter.address, flow_filter.peer) for flow_filter in flows]
    needles = [tuple(end.packed for end in pair if end is not None) for pair in ends]

    def useful(data: bytes) -> bool:  # a search in bytes is 20 times cheaper than decoding
        return any(all(needle in data for needle in group) for group in needles)

    done = set()  # families whose whole table an old kernel has sent
    for tuple_filter in filters:
        if tuple_filter.family in done:
            continue
        has_address = tuple_filter.source is not None or tuple_filter.destination is not None
        for data, start, end in tuple_filter.messages(None if has_address else useful):
            raw = data[start:end]
            if not tuple_filter.passes(raw):
                done.add(tuple_filter.family)
            if useful(raw):
                yield raw


def _by_key(flow_filter: FlowFilter) -> Iterator[ConntrackEntry]:
    """Yield the entries that have this flow, or its reverse, as a tuple of zone 0."""
    flow = flow_filter.exact
    if flow is None or not has_ports(flow.protocol):
        return
    if flow.source.version != flow.destination.version:
        return
    family = socket.AF_INET if flow.source.version == 4 else socket.AF_INET6
    for direction in (flow, flow.reversed()):  # either attribute finds the reply's tuple too
        key = _TupleFilter(
            family, "ORIG", direction.protocol, direction.source,
            direction.source_port, direction.destination, direction.destination_port,
        )  # fmt: skip
        try:
            for data, start, end in _ask(family, 0, [("CTA_TUPLE_ORIG", key.key()[0])]):
                yield conntrack_message.entry(data, start, end)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise


def _ask(
    family: int,
    flags: int,
    attributes: list[tuple[str, Any]],
    type: int = _GET,
    is_useful: _ReadFilter = None,
) -> Iterator[transport.Answer]:
    message = nfct_msg()
    message.update(nfgen_family=family, attrs=attributes)
    message.encode()
    body = bytes(message.data[transport.HEADER.size :])
    try:
        yield from transport.answers(NETLINK_NETFILTER, type, flags, body, _WHAT, is_useful)
    except KernelError as error:
        if error.errno == errno.EINVAL:  # nfnetlink's errno for a missing subsystem
            raise Unsupported(
                f"{_WHAT}: this kernel cannot tell it by netlink (CONFIG_NF_CT_NETLINK)",
                error.errno,
            ) from None
        raise
