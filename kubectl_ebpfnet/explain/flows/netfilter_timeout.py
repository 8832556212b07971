"""The time-out that nf_conntrack gives an entry with each packet, by the node's sysctls.

Source: Linux net/netfilter/nf_conntrack_proto_{tcp,udp,icmp}.c; sysctls
net.netfilter.nf_conntrack_*.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.net import ICMP, ICMPV6, TCP, UDP

_TCP_STATES = {
    "SYN_SENT": "syn_sent", "SYN_SENT2": "syn_sent", "SYN_RECV": "syn_recv",
    "ESTABLISHED": "established", "FIN_WAIT": "fin_wait", "CLOSE_WAIT": "close_wait",
    "LAST_ACK": "last_ack", "TIME_WAIT": "time_wait", "CLOSE": "close",
}  # fmt: skip


def netfilter_timeout(node: NodeView, entry: ConntrackEntry) -> int | None:
    """Return the seconds that an entry lived on after its last packet, None when not known."""
    protocol = entry.original.protocol
    if protocol == TCP:
        return _tcp(node, entry)
    if protocol == UDP:
        return _sysctl(node, "udp_timeout_stream" if "ASSURED" in entry.status else "udp_timeout")
    if protocol in (ICMP, ICMPV6):
        return _sysctl(node, "icmp_timeout" if protocol == ICMP else "icmpv6_timeout")
    return None


def _tcp(node: NodeView, entry: ConntrackEntry) -> int | None:
    name = _TCP_STATES.get(entry.state)
    by_state = _sysctl(node, f"tcp_timeout_{name}") if name else None
    if by_state is None or entry.timeout is None:
        return None
    # Data that nobody acknowledges, or that is sent again, has a time-out of its own if shorter.
    for other in ("max_retrans", "unacknowledged"):
        shorter = _sysctl(node, f"tcp_timeout_{other}")
        if by_state > 60 and shorter is None:
            return None
        if shorter is not None and entry.timeout <= shorter < by_state:
            return None
    return by_state


def _sysctl(node: NodeView, name: str) -> int | None:
    return node.sysctl(f"net/netfilter/nf_conntrack_{name}")
