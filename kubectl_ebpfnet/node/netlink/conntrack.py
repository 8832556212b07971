"""nf_conntrack of the network namespace that is asked, by ctnetlink.

Three ways, cheapest first. With 100,000 entries on Linux 6.18, at one machine:

* A flow of which everything is said is looked up by key (0.02 ms). Keys are of zone 0.
* Other flows, and one that zone 0 does not have, are picked out by the kernel (CTA_FILTER, Linux
  5.8), by 10 ms a dump. An address may be the source or the destination of either direction, and
  a filter is one tuple of one direction: four dumps. IPv6 addresses are looked for here, in one
  dump of 140 ms: kernels compare them the wrong way round.
* Without flows everything is decoded as it comes (0.9 s).

A kernel before 5.8 passes over the filter and sends the whole table; what was asked for is then
picked out here. `conntrack_message.py` makes entries of what comes.

Sources: Linux include/uapi/linux/netfilter/nfnetlink_conntrack.h,
net/netfilter/nf_conntrack_netlink.c (ctnetlink_get_conntrack, ctnetlink_alloc_filter).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, NodeRequest
from kubectl_ebpfnet.node.netlink import conntrack_message as wire
from kubectl_ebpfnet.node.netlink import message as nlmsg

_CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _GET_STATS = _CTNETLINK | 1, _CTNETLINK | 5  # IPCTNL_MSG_CT_GET, _GET_STATS
_STATS_ENTRIES = 1  # CTA_STATS_GLOBAL_ENTRIES
_FILTER = 25  # CTA_FILTER
# nf_internals.h: what of a tuple a filter looks at
_BY_SOURCE, _BY_DESTINATION, _BY_NUMBER, _BY_SOURCE_PORT, _BY_DESTINATION_PORT = 1, 2, 8, 16, 32

_16 = struct.Struct(">H")
_32 = struct.Struct(">I")
_NFGENMSG = struct.Struct("=BBH")
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")  # of the reader's own namespace
_WHAT = "read the connection tracking table"
_Wanted = Callable[[bytes], bool] | None


def entries(request: NodeRequest) -> Iterator[ConntrackEntry]:
    """The connections that netfilter tracks in this network namespace, IPv4 and IPv6.

    Args:
        request: with `flows`, those that fit one of them, each once; without, all, in the
            kernel's order. A flow of which everything is said and that zone 0 has is not looked
            for in other zones.

    Raises:
        Unsupported: this kernel tracks no connections, or cannot tell by netlink.
        KernelError: EPERM without CAP_NET_ADMIN.
    """
    _must_be_loaded()
    found: set[tuple[int, Flow]] = set()
    unfound = []
    for wanted in request.flows:
        by_key = list(_by_key(wanted))
        if all(one.zone for one in by_key):  # one of another zone has its reply in zone 0
            unfound.append(wanted)
        yield from _new(by_key, found)
    if unfound:
        yield from _new(_picked(unfound), found)
    if not request.flows:
        for data, start, end in _EVERYTHING.messages():
            yield wire.entry(data, start, end)


def count() -> int:
    """How many connections are tracked in this network namespace. Raises as `entries` does."""
    _must_be_loaded()
    for data, start, end in _ask(socket.AF_UNSPEC, 0, b"", _GET_STATS):
        for kind, at, _ in nlmsg.attributes(data, start + _NFGENMSG.size, end):
            if kind == _STATS_ENTRIES:
                return int(_32.unpack_from(data, at)[0])
    raise KernelError(f"{_WHAT}: no count came back")


def _must_be_loaded() -> None:
    if not _COUNT.exists():  # asking would load the module, and to look is not to touch
        raise Unsupported("this kernel tracks no connections: nf_conntrack is not loaded")


def _new(some: Iterable[ConntrackEntry], found: set[tuple[int, Flow]]) -> Iterator[ConntrackEntry]:
    for entry in some:
        key = (entry.zone, entry.original)
        if key not in found:
            found.add(key)
            yield entry


@dataclass(frozen=True, slots=True)
class _TupleFilter:
    """What a kernel-side filter looks for in one direction's tuple; None is any."""

    family: int
    direction: int = wire.ORIG
    protocol: int | None = None
    source: Address | None = None
    source_port: int | None = None
    destination: Address | None = None
    destination_port: int | None = None

    def tuple_(self) -> bytes:
        """CTA_TUPLE_ORIG or CTA_TUPLE_REPLY with what is said."""
        first = 1 if self.family == socket.AF_INET else 3  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
        ends = ((first, self.source), (first + 1, self.destination))
        ip = b"".join(nlmsg.attribute(type, one.packed) for type, one in ends if one is not None)
        body = nlmsg.attribute(wire.TUPLE_IP, ip, nested=True) if ip else b""
        if self.protocol is not None:
            proto = nlmsg.attribute(wire.NUMBER, bytes((self.protocol,)))
            ports = (
                (wire.SOURCE_PORT, self.source_port),
                (wire.DESTINATION_PORT, self.destination_port),
            )
            for type, port in ports:
                proto += b"" if port is None else nlmsg.attribute(type, _16.pack(port))
            body += nlmsg.attribute(wire.TUPLE_PROTO, proto, nested=True)
        return nlmsg.attribute(self.direction, body, nested=True)

    def flags(self) -> int:
        """Which parts of the tuple are said."""
        said = (
            (_BY_SOURCE, self.source), (_BY_DESTINATION, self.destination),
            (_BY_NUMBER, self.protocol), (_BY_SOURCE_PORT, self.source_port),
            (_BY_DESTINATION_PORT, self.destination_port),
        )  # fmt: skip
        return sum(flag for flag, value in said if value is not None)

    def messages(self, wanted: _Wanted = None) -> Iterator[tuple[bytes, int, int]]:
        """What the kernel sends, as nlmsg.answers gives it."""
        flags = self.flags()
        body = b""
        if flags:  # CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS are numbered as the tuples are
            looked_at = nlmsg.attribute(self.direction, struct.pack("=I", flags))
            body = self.tuple_() + nlmsg.attribute(_FILTER, looked_at, nested=True)
        return _ask(self.family, nlmsg.DUMP, body, wanted=wanted)

    def passes(self, message: bytes) -> bool:
        """Whether the message has the addresses: without them no kernel that filters sends it."""
        ends = (self.source, self.destination)
        return all(one is None or one.packed in message for one in ends)


_EVERYTHING = _TupleFilter(socket.AF_UNSPEC)


def _tuple_filters(wanted: FlowFilter) -> list[_TupleFilter]:
    """The kernel-side filters that together show all that fits, and perhaps more.

    The kernel compares ports of a protocol that is named only, and of IPv6 addresses it sends
    those that are not meant (up to 6.18 at least, ctnetlink_filter_match_tuple takes equal for
    different). So it is asked for the protocol then, once.
    """
    ends = [one for one in (wanted.address, wanted.peer) if one is not None]
    families = {socket.AF_INET if one.version == 4 else socket.AF_INET6 for one in ends}
    if len(families) == 2:
        return []  # no packet has addresses of two families
    if not ends and wanted.protocol is None:
        return [_EVERYTHING]
    families = families or {socket.AF_INET, socket.AF_INET6}
    ported = wanted.protocol is not None and has_ports(wanted.protocol)
    near = (wanted.address, wanted.port if ported else None)
    far = (wanted.peer, wanted.peer_port if ported else None)
    if near == far == (None, None) or (ends and ends[0].version == 6):
        return [_TupleFilter(family, protocol=wanted.protocol) for family in families]
    return [
        _TupleFilter(family, direction, wanted.protocol, *source, *destination)
        for family in families
        for direction in (wire.ORIG, wire.REPLY)
        for source, destination in ((near, far), (far, near))
    ]


def _picked(flows: list[FlowFilter]) -> Iterator[ConntrackEntry]:
    """What fits one of the filters, by filtered dumps; an entry may come more than once."""
    filters = list(dict.fromkeys(one for wanted in flows for one in _tuple_filters(wanted)))
    if _EVERYTHING in filters:
        filters = [_EVERYTHING]
    ends = [(wanted.address, wanted.peer) for wanted in flows]
    needles = [tuple(end.packed for end in both if end is not None) for both in ends]

    def useful(data: bytes) -> bool:  # a search in bytes is 20 times cheaper than an entry
        return any(all(needle in data for needle in some) for some in needles)

    told = set()  # families that an old kernel has told everything of
    for one in filters:
        if one.family in told:
            continue
        addressed = one.source is not None or one.destination is not None
        for data, start, end in one.messages(None if addressed else useful):
            message = data[start:end]
            if not one.passes(message):
                told.add(one.family)
            if useful(message):
                entry = wire.entry(message, 0, len(message))
                if any(wanted.fits(entry.original, entry.reply) for wanted in flows):
                    yield entry


def _by_key(wanted: FlowFilter) -> Iterator[ConntrackEntry]:
    """The entries that have this flow, or its reverse, as a tuple of zone 0."""
    flow = wanted.exact
    if flow is None or not has_ports(flow.protocol):
        return
    if flow.source.version != flow.destination.version:
        return
    family = socket.AF_INET if flow.source.version == 4 else socket.AF_INET6
    for one in (flow, flow.reversed()):  # the reply's tuple is found by either attribute too
        key = _TupleFilter(
            family, wire.ORIG, one.protocol,
            one.source, one.source_port, one.destination, one.destination_port,
        )  # fmt: skip
        try:
            for data, start, end in _ask(family, 0, key.tuple_()):
                yield wire.entry(data, start, end)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise


def _ask(
    family: int, flags: int, body: bytes, type: int = _GET, wanted: _Wanted = None
) -> Iterator[tuple[bytes, int, int]]:
    head = _NFGENMSG.pack(family, 0, 0)
    try:
        yield from nlmsg.answers(nlmsg.NETLINK_NETFILTER, type, flags, head + body, _WHAT, wanted)
    except KernelError as error:
        if error.errno == errno.EINVAL:  # nfnetlink's word for a part that is not there
            raise Unsupported(
                f"{_WHAT}: this kernel cannot tell it by netlink (CONFIG_NF_CT_NETLINK)",
                error.errno,
            ) from None
        raise
