"""What is traced on this kernel, check by check; expected.py says what has to come of it.

A check sends real traffic and returns plain values: a virtual machine tells them as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubectl_ebpfnet.model.events import PacketEvent, Place
from kubectl_ebpfnet.model.net import TCP, UDP
from kubectl_ebpfnet.node.trace.packets import PROGRAMS, PacketTrace, Selection
from tests.node.trace import lan

FLOWS = 400
PINGS = 100
OBJECT = "/programs.o"
"""tests/node/trace/programs.bpf.c, compiled."""
_MASQUERADE = """table inet nat {
    chain out {
        type nat hook postrouting priority 100
        oifname "s0" masquerade random
    }
}"""
_FORWARD_DROP = """table inet filter {
    chain forward {
        type filter hook forward priority 0
        udp dport 5000 drop
    }
}"""
_whole: list[PacketTrace] = []


@contextmanager
def setting() -> Iterator[None]:
    """The nodes that all checks share, and a trace of all that the client sends to the server."""
    with lan.lan():
        lan.ask(4), lan.ask(6)  # neighbours are known from here on
        try:
            yield
        finally:
            while _whole:
                _whole.pop().close()


def _seen(traffic: Callable[[], object]) -> list[PacketEvent]:
    """What is seen of traffic from the client to the server, whatever it is."""
    if not _whole:
        both = tuple(lan.to_server(version, None, 0) for version in (4, 6))
        _whole.append(PacketTrace(Selection(both)))
    return lan.traced(_whole[0], traffic)


def _traced(selection: Selection, traffic: Callable[[], object]) -> list[PacketEvent]:
    with PacketTrace(selection) as trace:
        return lan.traced(trace, traffic)


def check_programs() -> Any:
    """Each program is attached, and which are not, with the reason."""
    with PacketTrace(Selection()) as trace:
        return {
            "attached": [str(place) for place in trace.attached],
            "refused": [f"{each.program}: {each.reason}" for each in trace.refused],
        }


def _ways(events: list[PacketEvent]) -> dict[str, Any]:
    """Of each direction, how many packets passed which places: `2 client:queue …`."""
    places: dict[tuple[str, int], list[str]] = defaultdict(list)
    for event in events:
        where = f"{lan.owner(event.netns)}:{event.place}"
        places[str(event.direction), event.fingerprint].append(where)
    ways: Counter[str] = Counter()
    for (direction, _), passed in places.items():
        ways[f"{direction} {' '.join(passed)}"] += 1
    return dict(ways)


def _flows(version: int) -> None:
    for number in range(FLOWS):
        lan.ask(version, payload=f"this is flow {number}".encode())


def _followed(version: int = 4) -> Any:
    selection = Selection(
        (lan.to_server(version),), events_per_second=1_000_000, ring_bytes=1 << 23
    )
    events = _traced(selection, lambda: _flows(version))
    foreign = [each for each in events if each.flow and lan.OTHER in
               (each.flow.source_port, each.flow.destination_port)]  # fmt: skip
    matched = Counter(str(each.matched_by) for each in events)
    return {"ways": _ways(events), "foreign": len(foreign), "matched": matched}


def check_plain() -> Any:
    """Nothing changes the packets."""
    return _followed()


def check_masquerade() -> Any:
    """nftables masquerades what leaves the router, with other ports, beside others' traffic."""
    lan.nft("router", _MASQUERADE)
    try:
        with lan.others() as sent:
            return _followed() | {"others": sent[0]}
    finally:
        lan.nft("router", "flush ruleset")


def check_masquerade_ipv6() -> Any:
    """The same by IPv6."""
    lan.nft("router", _MASQUERADE)
    try:
        return _followed(6)
    finally:
        lan.nft("router", "flush ruleset")


@contextmanager
def _clsact(device: str, *hooks: str) -> Iterator[None]:
    """Programs of OBJECT at the router's device: `egress snat`."""
    lan.run("router", f"tc qdisc add dev {device} clsact")
    try:
        for hook, section in (each.split() for each in hooks):
            words = f"tc filter add dev {device} {hook} bpf da obj {OBJECT} sec tc/{section}"
            lan.run_apart("router", words)
        yield
    finally:
        lan.run("router", f"tc qdisc del dev {device} clsact")


def check_bpf_nat() -> Any:
    """tc programs translate, so that nothing but the buffer's address tells."""
    with _clsact("s0", "egress snat", "ingress undo"), lan.others() as sent:
        return _followed() | {"others": sent[0]}


def check_tcp() -> Any:
    """A megabyte there and back through a masquerade."""
    lan.nft("router", _MASQUERADE)

    def transfer() -> None:
        data = bytes(1 << 20)
        with lan.open_socket("client", kind=socket.SOCK_STREAM) as client:
            client.connect((lan.SERVER[4], lan.ECHO))
            with client.makefile("rb") as reader:
                for start in range(0, len(data), 1 << 16):
                    client.sendall(data[start : start + (1 << 16)])
                    reader.read(1 << 16)

    try:
        events = _seen(transfer)
    finally:
        lan.nft("router", "flush ruleset")
    passed = Counter(f"{each.direction} {lan.owner(each.netns)}:{each.place}" for each in events)
    drops = [_drop(each) for each in events if each.place is Place.DROP]
    return {"places": passed, "drops": drops, "largest": max(each.segments for each in events)}


def check_pings() -> Any:
    """Echo requests to the server: none is lost."""

    def ping() -> None:
        with lan.netns.inside(lan.path("client")):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with raw:
            raw.settimeout(10)
            raw.connect((lan.SERVER[4], 0))
            for number in range(PINGS):
                raw.send(_echo_request(number))
                raw.recv(4096)

    events = _seen(ping)
    return {
        "ways": _ways(events),
        "drops": Counter(_drop(each) for each in events if each.place is Place.DROP),
        "ends": Counter(each.where.partition("+")[0] for each in events
                        if each.place is Place.CONSUME),
    }  # fmt: skip


def _echo_request(number: int) -> bytes:
    head = struct.pack("!HHHH", 0x0800, 0, 0x1234, number)
    total = sum(struct.unpack("!4H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:]


# --- drops ----------------------------------------------------------------------------------------


def _drop(event: PacketEvent) -> str:
    """`router NETFILTER_DROP nf_hook_slow none forth`: where, why, by what, copies, direction."""
    by = event.where.partition("+")[0]
    node = lan.owner(event.netns)
    return " ".join((node, event.reason or "-", by or "-", event.copies, event.direction))


def _lost(send: Callable[[], None] | None = None, protocol: int = UDP) -> Any:
    """The drops of one packet; connections of earlier checks may end meanwhile."""
    seen = _seen(send or _one)
    events = [each for each in seen if each.flow is None or each.flow.protocol == protocol]
    errors = {f"{each.direction} {each.icmp}" for each in events if each.icmp_error}
    drops = Counter(_drop(each) for each in events if each.place is Place.DROP)
    return {"drops": drops, "errors": sorted(errors)}


def _one(port: int = lan.ECHO, size: int = 20) -> None:
    with lan.open_socket("client") as client:
        client.sendto(bytes(size), (lan.SERVER[4], port))


def check_drop_nft() -> Any:
    """A rule of nftables."""
    lan.nft("router", _FORWARD_DROP)
    try:
        return _lost()
    finally:
        lan.nft("router", "flush ruleset")


def check_drop_iptables() -> Any:
    """A rule of iptables."""
    lan.run("router", "iptables -A FORWARD -p udp --dport 5000 -j DROP")
    try:
        return _lost()
    finally:
        lan.run("router", "iptables -F FORWARD")


def check_drop_tc() -> Any:
    """A tc program."""
    with _clsact("c0", "ingress shot"):
        return _lost()


def check_drop_xdp() -> Any:
    """A generic XDP program."""
    lan.run_apart("server", f"ip link set dev eth0 xdpgeneric obj {OBJECT} sec xdp")
    try:
        return _lost()
    finally:
        lan.run("server", "ip link set dev eth0 xdpgeneric off")


def check_drop_closed_udp() -> Any:
    """Nobody has the port: the server says so by ICMP."""
    return _lost(lambda: _one(lan.CLOSED))


def check_drop_closed_tcp() -> Any:
    """Nobody listens."""

    def connect() -> None:
        with lan.open_socket("client", kind=socket.SOCK_STREAM) as client:
            client.connect_ex((lan.SERVER[4], lan.CLOSED))

    return _lost(connect, TCP)


def check_drop_closed_ipv6() -> Any:
    """Nobody has the port, by IPv6."""

    def send() -> None:
        with lan.open_socket("client", 6) as client:
            client.sendto(b"hello", (lan.SERVER[6], lan.CLOSED))

    return _lost(send)


def check_drop_blackhole() -> Any:
    """A blackhole on the router."""
    lan.run("router", "ip route add blackhole 10.2.0.2/32")
    try:
        return _lost()
    finally:
        lan.run("router", "ip route del blackhole 10.2.0.2/32")


def check_drop_unreachable() -> Any:
    """No route on the router."""
    lan.run("router", "ip route add unreachable 10.2.0.2/32")
    try:
        return _lost()
    finally:
        lan.run("router", "ip route del unreachable 10.2.0.2/32")


def check_drop_rp_filter() -> Any:
    """The router expects the client elsewhere."""
    for device in ("all", "c0"):
        lan.write_sysctl("router", f"ipv4/conf/{device}/rp_filter", "1")
    lan.run("router", "ip route add 10.1.0.2/32 dev s0")
    try:
        return _lost()
    finally:
        lan.run("router", "ip route del 10.1.0.2/32 dev s0")
        for device in ("all", "c0"):
            lan.write_sysctl("router", f"ipv4/conf/{device}/rp_filter", "0")


def check_drop_mtu() -> Any:
    """Too large for what is behind the router, and not to be split."""
    lan.run("router", "ip link set s0 mtu 1300")
    try:
        return _lost(lambda: _one(size=1400))
    finally:
        lan.run("router", "ip link set s0 mtu 1500")


# --- tunnels --------------------------------------------------------------------------------------


def _carried(set_up: dict[str, list[str]]) -> Any:
    """What is seen of a flow that a tunnel between router and server carries."""
    made: set[str] = set()
    try:
        for node, lines in set_up.items():
            for line in lines:
                lan.run(node, line)
                made.add(node)
        events = _seen(lan.ask)
    except RuntimeError as error:
        if "nknown device type" not in str(error) and "not supported" not in str(error):
            raise
        return {"unsupported": str(error)}
    finally:
        for node in made:
            lan.run(node, "ip link del t0")
    tunnels = {f"{each.tunnel.kind} {each.tunnel.id} {each.tunnel.source}" for each in events
               if each.tunnel}  # fmt: skip
    return {"ways": _ways(events), "tunnels": sorted(tunnels)}


def _through(kind: str, to_server: str, to_router: str) -> dict[str, list[str]]:
    """A tunnel device at both, over 10.4.0.0/24, and the flow's routes into it."""
    both = {"router": ("10.4.0.1", to_server), "server": ("10.4.0.2", to_router)}
    return {
        node: [
            f"ip link add t0 type {kind} {options}",
            "ip link set t0 up",
            f"ip addr add 10.5.0.{own[-1]}/24 dev t0",
            "ip route replace 10.2.0.2/32 via 10.5.0.2 dev t0" if node == "router"
            else "ip route replace 10.1.0.2/32 via 10.5.0.1 dev t0",
        ]
        for node, (own, options) in both.items()
    }  # fmt: skip


@contextmanager
def _underlay() -> Iterator[None]:
    for node, device, host in (("router", "s0", 1), ("server", "eth0", 2)):
        lan.run(node, f"ip addr add 10.4.0.{host}/24 dev {device}")
    try:
        yield
    finally:
        for node, device, host in (("router", "s0", 1), ("server", "eth0", 2)):
            lan.run(node, f"ip addr del 10.4.0.{host}/24 dev {device}")


def check_vxlan() -> Any:
    """VXLAN."""
    with _underlay():
        return _carried(_through("vxlan", "id 42 remote 10.4.0.2 dstport 8472",
                                 "id 42 remote 10.4.0.1 dstport 8472"))  # fmt: skip


def check_geneve() -> Any:
    """Geneve."""
    with _underlay():
        return _carried(_through("geneve", "id 42 remote 10.4.0.2", "id 42 remote 10.4.0.1"))


def check_ipip() -> Any:
    """IP in IP."""
    with _underlay():
        return _carried(_through("ipip", "local 10.4.0.1 remote 10.4.0.2",
                                 "local 10.4.0.2 remote 10.4.0.1"))  # fmt: skip


# --- what else packets look like ------------------------------------------------------------------


def check_vlan() -> Any:
    """A frame whose VLAN tag stands in it, where devices mostly keep it beside."""
    addresses = (socket.inet_aton(address[4]) for address in (lan.CLIENT, lan.SERVER))
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, *addresses)
    router: str = json.loads(lan.run("router", "ip -j link show c0"))[0]["address"]
    frame = (
        bytes.fromhex(router.replace(":", "")) + bytes(6) + struct.pack("!HHH", 0x8100, 5, 0x800)
    )
    frame += ip + struct.pack("!HHHH", 40000, lan.ECHO, 8, 0)

    def send() -> None:
        with lan.netns.inside(lan.path("client")):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            with raw:
                raw.bind(("eth0", 0))
                raw.send(frame)

    events = _seen(send)
    return sorted({f"{lan.owner(each.netns)}:{each.place} {each.ethertype:x}" for each in events})


def check_fragments() -> Any:
    """A datagram in three pieces: the first one has the ports, and is followed."""
    events = _seen(lambda: lan.ask(payload=bytes(4000)))
    there = [each for each in events if str(each.direction) == "forth"]
    return {
        "pieces": Counter(f"{lan.owner(each.netns)}:{each.place}" for each in there
                          if each.fragment),
        "whole": sorted({f"{lan.owner(each.netns)}:{each.place}" for each in there
                         if not each.fragment}),
    }  # fmt: skip


# --- bounds ---------------------------------------------------------------------------------------


def check_budget() -> Any:
    """A budget of 50 events a second, and a ring that nobody reads: what is lost is counted."""
    told = {}
    for name, selection in (
        ("budget", Selection((lan.to_server(),), events_per_second=50)),
        ("ring", Selection((lan.to_server(),), ring_bytes=4096)),
    ):
        with PacketTrace(selection) as trace:
            for _ in range(20):
                lan.ask()
            losses = trace.losses()
            told[name] = [len(list(trace.events(0))), losses.over_budget, losses.ring_full]
    return told


def check_drops_only() -> Any:
    """Only what is lost in one namespace, by one program."""
    inode = os.stat(lan.path("server")).st_ino
    selection = Selection(netns=inode, programs=("drop",))
    events = _traced(selection, lambda: (_one(lan.CLOSED), lan.ask()))
    return {"programs": len(PROGRAMS), "drops": Counter(_drop(each) for each in events)}
