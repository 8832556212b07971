"""What came back to a tracked flow, by all entries that a node has of it.

It is told by the TCP flags that Cilium saw in each direction, by its reports of replies, by ICMP
errors that it tracks as related, and by netfilter's state. Netfilter may see the requests alone
(BPF host routing passes it by on the way back), so where it saw no reply and Cilium did, Cilium's
entry counts.

Sources: Cilium bpf/lib/conntrack.h; Linux net/netfilter/nf_conntrack_proto_tcp.c; RFC 9293.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.flows.clock import KEPT, REPORT_INTERVAL
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.net import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP
from kubectl_ebpfnet.model.path import Outcome, TrackedFlow

_GAP = 2 * REPORT_INTERVAL
"""Seconds that the last answer may be older than the last packet sent, by two reports, while every
packet is answered."""

Came = tuple[Outcome, str]
"""What came back to an attempt, and that in words."""


def came_back(flow: TrackedFlow) -> Came:
    """Return what came back to a flow, by all entries that its node has of it."""
    by_cilium = _by_cilium(flow)
    by_netfilter = _by_netfilter(flow.netfilter) if flow.netfilter is not None else None
    if by_cilium is None:
        if by_netfilter is not None:
            return by_netfilter
        return Outcome.UNKNOWN, "is tracked, and what came back is not told"
    if by_netfilter is None:
        return by_cilium
    if not _nothing_back(flow, by_cilium[0]):
        told = by_cilium[0] is not Outcome.UNKNOWN or by_netfilter[0] is Outcome.UNANSWERED
        return by_cilium if told else by_netfilter
    what = ""
    if _half_open(flow.netfilter):
        what = "the SYN+ACK"
    elif flow.flow.protocol != TCP and by_netfilter[0] is Outcome.ANSWERED:
        what = "an answer"
    if what:
        return Outcome.UNANSWERED, (
            f"{by_cilium[1]}; nf_conntrack of {flow.node} has {what} "
            f"({_state(flow.netfilter)}): it came back to the node and did not reach the sender"
        )
    if by_netfilter[0] is Outcome.REFUSED:
        return by_netfilter
    return by_cilium


def _nothing_back(flow: TrackedFlow, outcome: Outcome) -> bool:
    """Tell whether Cilium's entry could have seen an answer at the sender, and saw none."""
    ct = flow.cilium_ct
    silent = ct is not None and bool(ct.last_request) and not ct.last_reply
    return outcome is Outcome.UNANSWERED or (outcome is Outcome.UNKNOWN and silent)


def _by_cilium(flow: TrackedFlow) -> Came | None:
    ct = flow.cilium_ct
    if ct is None:
        service = flow.service_ct
        return _load_balanced_alone(service, flow.last_seen.sent) if service is not None else None
    if ct.flow.protocol == TCP:
        came = _tcp(ct, flow)
    else:
        came = _without_handshake(ct, flow)
    if came[0] is Outcome.ANSWERED and "ProxyRedirect" in ct.flags:
        return Outcome.UNKNOWN, (
            "was answered by Cilium's L7 proxy; whether the destination answered the proxy, this "
            "entry does not tell"
        )
    if came[0] in (Outcome.UNANSWERED, Outcome.UNKNOWN) and flow.error_ct is not None:
        return Outcome.REFUSED, "was refused: an ICMP error came back (unreachable, or too big)"
    return came


def _load_balanced_alone(service: CtEntry, age: float | None) -> Came:
    """A flow of which the entry of load-balancing is left, and none to the backend."""
    if service.flow.protocol == TCP and service.request_flags & ACK:
        return Outcome.ANSWERED, "was answered: its sender went on"
    words = "was load-balanced, and Cilium's conntrack has no entry to the backend"
    if age is not None and age <= KEPT:
        return Outcome.UNANSWERED, f"was not answered: it {words}"
    return Outcome.UNKNOWN, f"{words}, or no longer"


def _tcp(ct: CtEntry, flow: TrackedFlow) -> Came:
    sent, back = ct.request_flags, ct.reply_flags
    if not sent and not back:
        if ct.flags & {"SeenNonSyn", "RxClosing", "TxClosing"}:
            return Outcome.ANSWERED, "was answered"
        return Outcome.UNKNOWN, "is tracked, without the TCP flags that were seen"
    if back & RST and not back & ~(RST | ACK):
        return Outcome.REFUSED, "was refused: a RST came back"
    if back & SYN and not sent & (ACK | FIN | RST):
        return Outcome.UNANSWERED, (
            "stopped in the handshake: SYN sent, SYN+ACK came back, the ACK never followed: the "
            "sender did not get the answer"
        )
    if back & ~RST:
        return _answered(ct, flow)
    if sent & ACK:
        # Replies pass this entry by, but the sender has what it acknowledges.
        return Outcome.ANSWERED, "was answered: its sender went on, by another way than it came"
    return Outcome.UNANSWERED, "was not answered: SYN sent, nothing came back"


def _answered(ct: CtEntry, flow: TrackedFlow) -> Came:
    if {"RxClosing", "TxClosing"} <= ct.flags:
        return Outcome.ANSWERED, "was answered and closed"
    silent = _silence(flow)
    # Nobody answers a RST, and a side that has closed may be silent.
    if silent is not None and not ct.flags & {"RxClosing", "TxClosing"}:
        return Outcome.UNANSWERED, (
            f"was answered, but not since {silent:.0f} s, in which more was sent"
        )
    return Outcome.ANSWERED, "was answered"


def _silence(flow: TrackedFlow) -> float | None:
    """Return the seconds without an answer of a flow that goes on, None where it has none."""
    seen = flow.last_seen
    if seen.sent is None or seen.answered is None or seen.answered - seen.sent <= _GAP:
        return None
    return seen.answered


def _without_handshake(ct: CtEntry, flow: TrackedFlow) -> Came:
    """UDP, ICMP echo and others: Cilium's reports tell whether a packet came back."""
    udp = ct.flow.protocol == UDP
    if ct.last_reply:
        silent = _silence(flow)
        if silent is None:
            return Outcome.ANSWERED, "was answered"
        outcome = Outcome.UNKNOWN if udp else Outcome.UNANSWERED
        return (
            outcome,
            f"was answered, but not since {silent:.0f} s, in which its sender sent again",
        )
    if not ct.last_request:
        return (
            Outcome.UNKNOWN,
            "is tracked, and the record does not say whether an answer came back",
        )
    if udp:
        return Outcome.UNKNOWN, "was sent and nothing came back, as UDP may be without a fault"
    echo = ct.flow.protocol in (ICMP, ICMPV6)
    what = "echo request sent, nothing came back" if echo else "nothing came back"
    return Outcome.UNANSWERED, f"was not answered: {what}"


def _by_netfilter(entry: ConntrackEntry) -> Came:
    protocol, words = entry.original.protocol, f"by nf_conntrack: {_state(entry)}"
    if protocol == TCP:
        if entry.state == "CLOSE" and "ASSURED" not in entry.status:
            refused = "UNREPLIED" not in entry.status
            return (
                (Outcome.REFUSED, f"was refused: a RST came back ({words})")
                if refused
                else (Outcome.UNANSWERED, f"was not answered ({words})")
            )
        if _half_open(entry):
            return Outcome.UNANSWERED, (
                "stopped in the handshake: SYN+ACK came back, the ACK never followed: the sender "
                f"did not get the answer ({words})"
            )
    if "UNREPLIED" not in entry.status:
        return Outcome.ANSWERED, f"was answered ({words})"
    if protocol == UDP:
        return Outcome.UNKNOWN, f"was sent and nothing came back, as UDP may be ({words})"
    return Outcome.UNANSWERED, f"was not answered ({words})"


def _half_open(entry: ConntrackEntry | None) -> bool:
    return entry is not None and entry.original.protocol == TCP and entry.state == "SYN_RECV"


def _state(entry: ConntrackEntry | None) -> str:
    if entry is None:
        return ""
    status = "".join(f"[{word}]" for word in sorted(entry.status))
    return f"{entry.state} {status}".strip() or "a reply was seen"
