"""The kernel's counters that can explain a lost packet.

`_LOSSES` and `_DEVICE_LOSSES` list the counters, each group with its reason. Counters of plain
traffic are left out except for devices and softnet, where they are the measure of losses. A loss of
0 is left out too: it explains nothing, and 250 devices have 5,000 of them.

/proc/thread-self/net is of the calling thread's namespace; /proc/net is of the main thread's.

Sources: Linux include/uapi/linux/if_link.h (rtnl_link_stats64, with what each counter means),
Documentation/networking/snmp_counter.rst, net/ipv4/proc.c, net/ipv6/proc.c, net/core/net-procfs.c
(softnet_seq_show), net/netfilter/nf_conntrack_standalone.c (ct_cpu_seq_show).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from pyroute2.netlink.rtnl import RTM_GETLINK

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.kernel import Counter
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.netlink.rtnetlink import dump, text

_NET = Path("/proc/thread-self/net")
_SYSCTL = Path("/proc/sys/net/netfilter")  # of the reader's own namespace

_LOSSES: tuple[tuple[str, str, str], ...] = (
    # (file, prefix, names), each below its reason
    # a packet that no route, no address or no protocol of this namespace takes
    ("snmp", "Ip.", "InAddrErrors InUnknownProtos OutNoRoutes"),
    ("snmp6", "Ip6", "InNoRoutes InAddrErrors InUnknownProtos OutNoRoutes"),
    ("netstat", "IpExt.", "InNoRoutes"),
    # a broken or short header: a tunnel or an offload that writes wrong packets
    ("snmp", "Ip.", "InHdrErrors"),
    ("snmp6", "Ip6", "InHdrErrors InTruncatedPkts"),
    ("netstat", "IpExt.", "InTruncatedPkts InCsumErrors"),
    # dropped for want of memory, by a firewall or by a device's queue
    ("snmp", "Ip.", "InDiscards OutDiscards"),
    ("snmp6", "Ip6", "InDiscards OutDiscards"),
    # the MTU: fragments that did not come together, packets that may not be cut
    ("snmp", "Ip.", "ReasmTimeout ReasmFails FragFails"),
    ("snmp6", "Ip6", "InTooBigErrors ReasmTimeout ReasmFails FragFails"),
    ("netstat", "IpExt.", "ReasmOverlaps"),
    ("netstat", "TcpExt.", "TCPMTUPFail"),
    # ICMP errors of others, or of this namespace, about undeliverable packets
    ("snmp", "Icmp.", "InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InRedirects"),
    ("snmp", "Icmp.", "OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs"),
    ("snmp", "Icmp.", "OutTimeExcds OutRedirects"),
    ("snmp6", "Icmp6", "InErrors InCsumErrors InDestUnreachs InPktTooBigs InTimeExcds"),
    ("snmp6", "Icmp6", "InParmProblems OutErrors OutRateLimitHost OutDestUnreachs OutPktTooBigs"),
    ("snmp6", "Icmp6", "OutTimeExcds"),
    # rp_filter and arp_filter
    ("netstat", "TcpExt.", "IPReversePathFilter ArpFilter"),
    # nobody listens, or resets
    ("snmp", "Tcp.", "AttemptFails EstabResets OutRsts"),
    ("snmp", "Udp.", "NoPorts"),
    ("snmp6", "Udp6", "NoPorts"),
    # a slow listener: its backlog and its SYN queue
    ("netstat", "TcpExt.", "ListenOverflows ListenDrops TCPReqQFullDrop TCPReqQFullDoCookies"),
    ("netstat", "TcpExt.", "SyncookiesFailed EmbryonicRsts TCPDeferAcceptDrop"),
    ("netstat", "TcpExt.", "TCPFastOpenListenOverflow TCPTimeWaitOverflow"),
    # a socket's buffer or the memory of all sockets is full
    ("snmp", "Udp.", "InErrors RcvbufErrors SndbufErrors InCsumErrors MemErrors"),
    ("snmp6", "Udp6", "InErrors RcvbufErrors SndbufErrors InCsumErrors MemErrors"),
    ("netstat", "TcpExt.", "PruneCalled RcvPruned OfoPruned TCPBacklogDrop PFMemallocDrop"),
    ("netstat", "TcpExt.", "TCPOFODrop TCPRcvQDrop TCPZeroWindowDrop TCPWqueueTooBig"),
    ("netstat", "TcpExt.", "TCPAbortOnMemory TCPMemoryPressures LockDroppedIcmps"),
    # segments that TCP refuses: damage, old time stamps, TTL, signatures
    ("snmp", "Tcp.", "InErrs InCsumErrors"),
    ("netstat", "TcpExt.", "PAWSActive PAWSEstab PAWSOldAck TSEcrRejected BeyondWindow"),
    ("netstat", "TcpExt.", "OutOfWindowIcmps TCPMinTTLDrop TCPChallengeACK TCPSYNChallenge"),
    ("netstat", "TcpExt.", "TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure"),
    ("netstat", "TcpExt.", "TCPAORequired TCPAOBad TCPAOKeyNotFound TCPAODroppedIcmps"),
    # losses that TCP noticed: retransmissions, and connections given up
    ("snmp", "Tcp.", "RetransSegs"),
    ("netstat", "TcpExt.", "TCPTimeouts TCPSynRetrans TCPLostRetransmit TCPRetransFail"),
    ("netstat", "TcpExt.", "TCPAbortOnTimeout TCPAbortFailed"),
)
_WANTED = {
    file: frozenset(
        prefix + name for one, prefix, names in _LOSSES if one == file for name in names.split()
    )
    for file in ("snmp", "snmp6", "netstat")
}

# struct rtnl_link_stats64, in its order; "" is left out (multicast, compressed packets)
_DEVICE_TRAFFIC = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
_DEVICE_LOSSES = (
    "rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "", "collisions", "rx_length_errors",
    "rx_over_errors", "rx_crc_errors", "rx_frame_errors", "rx_fifo_errors", "rx_missed_errors",
    "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors", "tx_heartbeat_errors",
    "tx_window_errors", "", "", "rx_nohandler", "rx_otherhost_dropped",
)  # fmt: skip
_DEVICE = _DEVICE_TRAFFIC + _DEVICE_LOSSES

# Columns of /proc/net/softnet_stat. `processed` is traffic; `dropped` is a full backlog;
# `time_squeeze` is a round that ended with packets left; `flow_limit_count` limits one loud flow.
_SOFTNET = ((0, "processed"), (1, "dropped"), (2, "time_squeeze"), (10, "flow_limit_count"))
# A full table (insert_failed, drop, early_drop), clashes of NAT and of racing packets, packets of
# no possible connection (invalid), broken ICMP errors.
_CONNTRACK = frozenset(
    ("clashres", "invalid", "insert_failed", "drop", "early_drop", "icmp_error", "search_restart")
)


def counters(_request: NodeRequest) -> Iterator[Counter]:
    """Yield the counters of this network namespace; softnet's are of the whole node.

    Raises:
        KernelError: a file of /proc cannot be read, or rtnetlink refuses.
    """
    yield from _devices()
    yield from _named_rows("snmp")
    yield from _snmp6()
    yield from _named_rows("netstat")
    yield from _softnet()
    yield from _conntrack()


def xfrm(_request: NodeRequest) -> Iterator[Counter]:
    """Yield IPsec's counters of lost packets; none without IPsec. Raises KernelError."""
    if not (_NET / "xfrm_stat").exists():
        return
    for line in _read(_NET / "xfrm_stat").splitlines():
        name, value = line.split()
        if value != "0":
            yield Counter("xfrm", name, int(value))


def _devices() -> Iterator[Counter]:
    for link in dump(RTM_GETLINK, "read link counters"):
        device, statistics = text(link.get_attr("IFLA_IFNAME")), link.get_attr("IFLA_STATS64")
        # Older kernels know fewer counters.
        values = struct.unpack(f"={len(statistics) // 8}Q", statistics) if statistics else ()
        for name, value in zip(_DEVICE, values, strict=False):
            if name in _DEVICE_TRAFFIC or (name and value):
                yield Counter("device", name, value, device)


def _named_rows(file: str) -> Iterator[Counter]:
    """Read /proc/net/snmp or netstat: for each protocol a line of names and a line of values."""
    lines = _read(_NET / file).splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        prefix = names.partition(":")[0] + "."
        for name, value in zip(names.split()[1:], values.split()[1:], strict=False):
            if prefix + name in _WANTED[file] and value != "0":
                yield Counter(file, prefix + name, int(value))


def _snmp6() -> Iterator[Counter]:
    """Read /proc/net/snmp6: a name and a value a line; a kernel without IPv6 has no such file."""
    if not (_NET / "snmp6").exists():
        return
    for line in _read(_NET / "snmp6").splitlines():
        name, _, value = line.partition(" ")
        if name in _WANTED["snmp6"] and value.strip() not in ("", "0"):
            yield Counter("snmp", name, int(value))


def _softnet() -> Iterator[Counter]:
    """Read softnet_stat: a line of hexadecimal numbers for each online CPU."""
    rows = [line.split() for line in _read(_NET / "softnet_stat").splitlines()]
    for column, name in _SOFTNET:
        value = sum(int(row[column], 16) for row in rows if len(row) > column)
        if value or column == 0:
            yield Counter("softnet", name, value)


def _conntrack() -> Iterator[Counter]:
    """Read the size of nf_conntrack and its losses; yield nothing where it is not loaded."""
    for name in ("nf_conntrack_count", "nf_conntrack_max"):
        if (_SYSCTL / name).exists():
            yield Counter("conntrack", name, int(_read(_SYSCTL / name)))
    if not (_NET / "stat" / "nf_conntrack").exists():
        return
    names, *rows = (line.split() for line in _read(_NET / "stat" / "nf_conntrack").splitlines())
    for column, name in enumerate(names):
        value = sum(int(row[column], 16) for row in rows)
        if name in _CONNTRACK and value:
            yield Counter("conntrack", name, value)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise KernelError(f"read {file}: {error.strerror}", error.errno or 0) from None
