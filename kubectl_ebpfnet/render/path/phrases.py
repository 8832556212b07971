"""The parts of a path's answer in words. The text is raw: callers escape it."""

from __future__ import annotations

from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import LIVE, Bundle
from kubectl_ebpfnet.model.net import Flow, endpoint_text, has_ports, protocol_name
from kubectl_ebpfnet.model.path import (
    Fix,
    Hop,
    Packet,
    Path,
    PathMtu,
    Return,
    TrackedFlow,
    WayBack,
)

TABLES = {
    "cilium-ct": "Cilium conntrack",
    "cilium-nat": "Cilium NAT",
    "nf_conntrack": "nf_conntrack",
}
"""Readable names of `TrackingNote.table`."""
# RFC 9293 3.1, in the order in which a connection has them.
_TCP_FLAGS = {
    "SYN": 0x02, "ACK": 0x10, "PSH": 0x08, "URG": 0x20, "ECE": 0x40, "CWR": 0x80, "FIN": 0x01,
    "RST": 0x04,
}  # fmt: skip


def ends_of(path: Path) -> str:
    """Return `pod/client → svc/web 10.96.0.7:80/TCP`."""
    source = path.source
    title = source.title if source.name or source.address else source.text
    if source.kind == "pod" and source.text == str(source.address):  # it was asked for by that
        namespace = "" if source.namespace == "default" else f" in {source.namespace}"
        title = f"{source.text} ({title}{namespace})"
    return f"{title} → {_destination(path)}"


def _destination(path: Path) -> str:
    target = path.destination
    protocol = protocol_name(path.protocol)
    title = target.title if target.name or target.address else target.text
    if target.namespace not in ("", path.source.namespace or "default"):
        title += f" in {target.namespace}"
    if target.address is None:
        return f"{title}{f':{target.port}' if target.port else ''} ({protocol})"
    port, which = target.port, ""
    if port is None and has_ports(path.protocol):
        # The walk takes the newest flow's port, as _first_flow of explain/path/endpoints.py.
        port = path.flows[0].flow.destination_port if path.flows else None
        which = " (no port given: " + ("any)" if port is None else "the newest tracked flow's)")
    tuple_text = f"{endpoint_text(target.address, port)}/{protocol}{which}"
    return tuple_text if title == str(target.address) else f"{title} {tuple_text}"


def largest(mtu: PathMtu) -> str:
    """Return the largest packet that fits, and what limits it, there and back."""
    if mtu.fits is None:
        text = "which packets fit is not known"
    else:
        text = f"largest packet that fits: {mtu.fits} bytes, "
        text += f"limited by {mtu.limited_by} on {mtu.node}"
    if mtu.pod is not None:
        text += f"; the sender's are up to {mtu.pod}"
    if mtu.missing:
        text += f"; not read: {', '.join(mtu.missing)}"
    return text if mtu.back is None else f"{text}. Back: {largest(mtu.back)}"


def notes(path: Path) -> list[str]:
    """Return how the ends were resolved, a sentence each."""
    return [f"{t.text}: {t.note}" for t in (path.source, path.destination) if t.note]


def meant_for(fix: Fix, bundle: Bundle) -> str:
    """Return which cluster a command is for, "" where none or the asked one: kubectl acts on the
    current context, and a capture may be of any cluster, under another name here."""
    if bundle.source == LIVE or not fix.command.startswith("kubectl ") or " --from " in fix.command:
        return ""
    return "For the recorded cluster: choose its --context."


def does(hop: Hop) -> str:
    """Return what a hop does to the packet; of an unknown hop also why it is unknown."""
    text = hop.summary
    if hop.reason:
        text = f"{text}: {hop.reason}" if text else hop.reason
    return f"{text}; dropped here" if hop.drops else text


def in_short(hop: Hop) -> str:
    """Return what a hop does, for a line beside its mark; of an unknown hop also why."""
    text = hop.short or hop.summary
    if not hop.reason:
        return text
    return f"{text}: {hop.reason}" if text else hop.reason


def sent(path: Path) -> Packet:
    """Return the packet as it was sent: to the address that was asked for, which the first hop may
    translate. The path has hops."""
    flow, there = path.hops[0].packet.flow, path.destination
    if there.address is None or there.address.version != flow.destination.version:
        return Packet(flow)
    return Packet(flow.with_destination(there.address, there.port or flow.destination_port))


def tuple_of(value: Packet) -> str:
    """Return the packet's ends without its protocol; encapsulated, those of the outer packet."""
    return f"outer {ends(value.outer)}" if value.outer is not None else ends(value.flow)


def packet(value: Packet) -> str:
    """Return the packet's tuple, its outer tuple, VNI and mark."""
    text = " ".join(part for part in (str(value.flow), encapsulation(value)) if part)
    if value.mark is not None:
        text += f" mark {value.mark:#x}"
    return text


def encapsulation(value: Packet) -> str:
    """Return what encapsulates a packet, in words, "" for nothing."""
    words = [f"in {value.outer}"] if value.outer is not None else []
    words += [f"vni {value.vni}"] if value.vni is not None else []
    return " ".join(words)


def way_back(answer: WayBack) -> str:
    """Return what becomes of the answer, one line."""
    return "; ".join(text for text in (answer.way, answer.reason) if text)


def is_as_usual(answer: WayBack) -> bool:
    """Tell whether the answer comes back as the packet went: then a line is enough."""
    return answer.state is Return.RETURNS and not answer.asymmetric


def translation(tracked: TrackedFlow) -> str:
    """Return `leaves as …` when the tuple is rewritten, "" when it is not."""
    before, after = tracked.flow, tracked.translated
    words = []
    if (before.source, before.source_port) != (after.source, after.source_port):
        words.append(f"leaves as {endpoint_text(after.source, after.source_port)}")
    if (before.destination, before.destination_port) != (after.destination, after.destination_port):
        words.append(f"goes to {endpoint_text(after.destination, after.destination_port)}")
    return ", ".join(words)


def cilium_ct(entry: CtEntry, shown: Flow) -> str:
    """Return Cilium's conntrack entry in words; its tuple only where it differs from `shown`."""
    words = [entry.direction]
    if not entry.flow.matches(shown):
        words[0] += f" {ends(entry.flow)}"
    if entry.remaining is not None:
        left = entry.remaining
        words.append(f"expires in {left}s" if left >= 0 else f"expired {-left}s ago")
    elif entry.expires is not None:
        words.append(f"expires at {entry.expires} of the datapath's clock")
    words += sorted(entry.flags)
    if entry.tx_flags_seen or entry.rx_flags_seen:
        sent, received = _tcp_flags(entry.tx_flags_seen), _tcp_flags(entry.rx_flags_seen)
        words.append(f"{sent} sent; {received} received")
    if entry.source_identity:
        words.append(f"source identity {entry.source_identity}")
    if entry.rev_nat:
        words.append(f"reverse NAT {entry.rev_nat}")
    if entry.backend_id:
        words.append(f"backend {entry.backend_id}")
    return ", ".join(words + _counted(entry.packets, entry.bytes))


def _tcp_flags(bits: int) -> str:
    return ",".join(name for name, bit in _TCP_FLAGS.items() if bits & bit) or "nothing"


def cilium_nat(entry: NatEntry) -> str:
    """Return Cilium's NAT entry in words: the address and port that it writes."""
    end = "destination" if entry.direction == "IN" else "source"
    words = [f"{entry.direction}, {end} becomes {endpoint_text(entry.address, entry.port)}"]
    if entry.needs_ct:
        words.append("port reserved for the node's own address")
    if entry.age is not None:
        words.append(f"made {entry.age}s ago")
    return ", ".join(words)


def netfilter(entry: ConntrackEntry, shown: Flow) -> str:
    """Return nf_conntrack's entry in words; the reply's tuple only where NAT changes it."""
    words = [entry.state] if entry.state else []
    words += sorted(entry.status)
    if not entry.original.matches(shown):
        words.append(ends(entry.original))
    if entry.source_nat or entry.destination_nat:
        words.append(f"reply {ends(entry.reply)}")
    if entry.timeout is not None:
        words.append(f"expires in {entry.timeout}s")
    if entry.mark:
        words.append(f"mark {entry.mark:#x}")
    if entry.zone:
        words.append(f"zone {entry.zone}")
    return ", ".join(words + _counted(entry.packets, entry.bytes)) or "tracked"


def ends(flow: Flow) -> str:
    """Return a tuple without its protocol."""
    if not has_ports(flow.protocol):
        return f"{flow.source} → {flow.destination}"
    return str(flow).partition(" ")[2]


def _counted(packets: int | None, size: int | None) -> list[str]:
    # Zero is "not counted" (model/cilium_ct.py).
    if not packets:
        return []
    return [f"{packets} packets" + (f", {size} bytes" if size else "")]
