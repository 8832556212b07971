"""Files of /proc/sys, and of /proc/net and /sys/class/net, for pods whose image has no tools.

Sources: Linux net/ipv4/fib_trie.c (fib_route_seq_show), net/ipv6/route.c and ip6_fib.c
(ipv6_route_native_seq_show), net/ipv4/arp.c (arp_seq_show), include/uapi/linux/route.h,
ipv6_route.h and if_arp.h. Verified with Linux 6.18.

The files have less than netlink, and so have the facts:

* /proc/net/route shows only the table `main`, only the first of several next hops, and no
  source address. Its MTU column is the advertised MSS + 40, not the route's MTU. A next hop of
  IPv6 shows as the gateway 0.0.0.0.
* /proc/net/ipv6_route shows every table without its name: a route of a table of the user's
  own looks like one of `main`.
* /proc/net/arp has no states.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.kernel import Counter, Neighbour, Route, Sysctl
from kubectl_ebpfnet.parse._text import address, decode, hardware_address, integer, lines, quoted

# include/uapi/linux/route.h and ipv6_route.h
_RTF_GATEWAY = 0x0002
_RTF_REJECT = 0x0200
_RTF_ANYCAST = 0x00100000
_RTF_LOCAL = 0x80000000
# include/uapi/linux/if_arp.h
_ATF_COM = 0x02
_ATF_PERM = 0x04
_ATF_PUBL = 0x08

_SYSCTLS = "sysctls"
_STATISTICS = "/proc/net/stat/nf_conntrack:"
_XFRM = "/proc/net/xfrm_stat"
_NO_METRIC = 0xFFFFFFFF
_MULTICAST = IPv6Network("ff00::/8")


def routes(data: bytes) -> tuple[Route, ...]:
    """Return the IPv4 routes of /proc/net/route, in their order.

    The addresses are in the byte order of the host, assumed to be little endian, as Kubernetes
    nodes are (amd64, arm64, ppc64le, riscv64) except s390x.
    """
    return tuple(
        _route(fields, number) for number, fields in _table(data, "/proc/net/route", "Iface", 11)
    )


def _route(fields: list[str], number: int) -> Route:
    source = "/proc/net/route"
    flags = _hexadecimal(fields[3], 4, source, number)
    mask = int(_ipv4(fields[7], number))
    length = mask.bit_count()
    if mask != (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:
        raise ParseError(source, number, f"{quoted(fields[7])} is not the mask of a prefix")
    if flags & _RTF_REJECT:
        kind = "unreachable"  # or prohibit, which refuses packets too
    else:
        # Of the types that have no device, blackhole and throw have no flag either.
        kind = "unicast" if fields[0] != "*" else "blackhole"
    return Route(
        destination=IPv4Network((_ipv4(fields[1], number), length), strict=False),
        gateway=_ipv4(fields[2], number) if flags & _RTF_GATEWAY else None,
        device="" if fields[0] == "*" else fields[0],
        type=kind,
        metric=integer(fields[6], source, number),
        span=Span(number),
    )


def _ipv4(text: str, number: int) -> IPv4Address:
    value = _hexadecimal(text, 8, "/proc/net/route", number)
    return IPv4Address(value.to_bytes(4, "little"))


def routes6(data: bytes) -> tuple[Route, ...]:
    """Return the IPv6 routes of /proc/net/ipv6_route, in their order.

    The kernel's own null route, which ends each table and which `ip -6 route` hides, is left
    out. Routes of the flag `local`, anycast and multicast routes are in the table `local`.
    """
    rows = _table(data, "/proc/net/ipv6_route", "", 10)
    parsed = (_route6(fields, number) for number, fields in rows)
    return tuple(route for route in parsed if route is not None)


def _route6(fields: list[str], number: int) -> Route | None:
    source = "/proc/net/ipv6_route"
    destination = _prefix6(fields[0], fields[1], number)
    metric = _hexadecimal(fields[5], 8, source, number)
    flags = _hexadecimal(fields[8], 8, source, number)
    if metric == _NO_METRIC and flags & _RTF_REJECT:
        return None
    kind = "unicast"
    if flags & _RTF_LOCAL:
        kind = "local"
    elif flags & _RTF_ANYCAST:
        kind = "anycast"
    elif flags & _RTF_REJECT:
        kind = "unreachable"  # or prohibit or blackhole; the file does not distinguish them
    elif destination.subnet_of(_MULTICAST):
        kind = "multicast"
    packet_source = _prefix6(fields[2], fields[3], number)
    return Route(
        destination=destination,
        gateway=_ipv6(fields[4], number) if flags & _RTF_GATEWAY else None,
        device=fields[9],
        table="local" if kind in ("local", "anycast", "multicast") else "main",
        type=kind,
        metric=metric,
        source=packet_source if packet_source.prefixlen else None,
        span=Span(number),
    )


def _ipv6(text: str, number: int) -> IPv6Address:
    return IPv6Address(_hexadecimal(text, 32, "/proc/net/ipv6_route", number))


def _prefix6(text: str, length: str, number: int) -> IPv6Network:
    source = "/proc/net/ipv6_route"
    bits = _hexadecimal(length, 2, source, number)
    if bits > 128:
        raise ParseError(source, number, f"a prefix of {bits} bits")
    return IPv6Network((_ipv6(text, number), bits), strict=False)


def neighbours(data: bytes) -> tuple[Neighbour, ...]:
    """Return the entries of /proc/net/arp, in their order.

    The state is REACHABLE for a complete entry (it may be stale), PERMANENT for an entry set by
    hand, INCOMPLETE for an entry without an address. Published entries are left out: this host
    answers for them.
    """
    parsed = (
        _neighbour(fields, number) for number, fields in _table(data, "/proc/net/arp", "IP", 6)
    )
    return tuple(neighbour for neighbour in parsed if neighbour is not None)


def _neighbour(fields: list[str], number: int) -> Neighbour | None:
    source = "/proc/net/arp"
    flags = integer(fields[2], source, number)
    if flags & _ATF_PUBL:
        return None
    state = "INCOMPLETE"
    if flags & _ATF_COM:
        state = "PERMANENT" if flags & _ATF_PERM else "REACHABLE"
    return Neighbour(
        address=address(fields[0], source, number),
        device=fields[5],
        mac=hardware_address(fields[3]) if flags & _ATF_COM else "",
        states=(state,),
        span=Span(number),
    )


def number(data: bytes) -> int:
    """Return the one number of a file like /sys/class/net/eth0/iflink."""
    text = decode(data, "iflink").strip()
    return integer(text, "iflink", 1)


def sysctls(data: bytes) -> tuple[Sysctl, ...]:
    """Return the sysctls of `grep -r . /proc/sys/net …`: `/proc/sys/net/ipv4/ip_forward:1`."""
    found = []
    for number, text in lines(data, _SYSCTLS):
        if not text or text.startswith(_STATISTICS):
            continue
        path, colon, value = text.rpartition(":")
        name = path.removeprefix("/proc/sys/")
        if not colon or name == path:
            raise ParseError(_SYSCTLS, number, f"not a sysctl: {quoted(text)}")
        found.append(Sysctl(name, integer(value, _SYSCTLS, number, least=None), Span(number)))
    return tuple(found)


def conntrack_counters(data: bytes) -> tuple[Counter, ...]:
    """Return what nf_conntrack lost by `grep … . … /proc/net/stat/nf_conntrack`: a line of names,
    then one of hexadecimal numbers for each CPU (nf_conntrack_standalone.c ct_cpu_seq_show).

    The sums, each at the last line; () where the file is not there.
    """
    rows = [
        (number, text.removeprefix(_STATISTICS).split())
        for number, text in lines(data, _SYSCTLS)
        if text.startswith(_STATISTICS)
    ]
    if len(rows) < 2:
        return ()
    names, first, last = rows[0][1], rows[0][0], rows[-1][0]
    sums = dict.fromkeys(names, 0)
    for number, values in rows[1:]:
        for name, value in zip(names, values, strict=False):
            sums[name] += _hexadecimal(value, 8, _SYSCTLS, number)
    return tuple(
        Counter("conntrack", name, total, span=Span(first, last)) for name, total in sums.items()
    )


def xfrm_errors(data: bytes) -> tuple[Counter, ...]:
    """Return IPsec's counters of lost packets (/proc/net/xfrm_stat), but for those that are 0."""
    found = []
    for number, (name, value) in _table(data, _XFRM, "", 2):
        count = integer(value, _XFRM, number)
        if count:
            found.append(Counter("xfrm", name, count, span=Span(number)))
    return tuple(found)


def _table(data: bytes, source: str, heading: str, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, split at white space, with their line numbers."""
    for row, text in lines(data, source):
        fields = text.split()
        if not fields or (heading and row == 1 and fields[0] == heading):
            continue
        if len(fields) != columns:
            problem = f"{len(fields)} columns instead of {columns}: {quoted(text)}"
            raise ParseError(source, row, problem)
        yield row, fields


def _hexadecimal(text: str, digits: int, source: str, number: int) -> int:
    if len(text) != digits:
        raise ParseError(source, number, f"{quoted(text)} is not {digits} hexadecimal digits")
    return integer(f"0x{text}", source, number)
