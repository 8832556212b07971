"""Small answers, built by hand, for the tests of render. The numbers are invented."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    InMemory,
    Record,
    agent_place,
    bundle_of,
    pod_place,
)
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import (
    ClosedEntry,
    Drop,
    Entrance,
    Entry,
    Evidence,
    Finding,
    Fix,
    Hop,
    HopKind,
    HopPlace,
    Larger,
    Packet,
    Path,
    PathMtu,
    Return,
    Severity,
    State,
    Target,
    TrackedFlow,
    TrackingNote,
    Verdict,
    WayBack,
)

CLIENT = ip_address("10.244.1.160")
ONE = ip_address("1.1.1.1")
SENT = Flow(TCP, CLIENT, None, ONE, 80)
OPEN = Flow(TCP, CLIENT, 36768, ONE, 80)
OUTSIDE = OPEN.with_source(ip_address("172.30.0.12"), 36768)

ROUTES = b"default via 10.244.1.41 dev eth0 mtu 1450\n10.244.1.41 dev eth0 scope link\n"
POLICY = b'[{"EndpointID":1174,"Direction":"egress"}]\n'


def bundle() -> Bundle:
    """What the answers below cite."""
    pod, agent = pod_place("default", "client"), agent_place("kind-worker")
    return bundle_of(
        [
            Record(0, pod, ("ip", "route"), 0, InMemory(ROUTES), started="2026-11-21T05:00:00Z"),
            Record(0, agent, ("cilium-dbg", "bpf", "nat", "list"), 1, stderr=b"no snat map\n"),
            Record(0, agent, ("cilium-dbg", "bpf", "policy", "get", "--all"), 0, InMemory(POLICY)),
            Record(0, agent, ("tc", "filter", "show"), None, error="tc is not in this image"),
        ],
        source="sample",
    )


def _hop(number: int, kind: HopKind, summary: str, packet: Packet, **more: object) -> Hop:
    place = more.pop("place", HopPlace.NODE)
    where = more.pop("where", "kind-worker")
    node = more.pop("node", "kind-worker")
    state = more.pop("state", State.DERIVED)
    return Hop(number, place, where, node, kind, summary, state, packet, **more)  # type: ignore[arg-type]


def delivered() -> Path:
    """pod → world through netfilter's masquerading, one program unknown."""
    sent, opened = Packet(SENT), Packet(OPEN)
    hops = (
        _hop(
            1,
            HopKind.ROUTE,
            "default route by 10.244.1.41 on eth0, mtu 1450",
            sent,
            place=HopPlace.POD,
            where="default/client",
            evidence=(Evidence(1, (1,), ("default via 10.244.1.41 dev eth0 mtu 1450",)),),
        ),
        _hop(
            2,
            HopKind.PROGRAM,
            "programs at lxc3f1c9d8ab1e2 ingress",
            sent,
            place=HopPlace.CILIUM,
            state=State.UNKNOWN,
            reason="tc is not in this image",
            evidence=(Evidence(4),),
        ),
        _hop(
            3,
            HopKind.LOAD_BALANCING,
            "no frontend has this address",
            opened,
            place=HopPlace.CILIUM,
        ),
        _hop(
            4,
            HopKind.NAT,
            "netfilter masquerades to 172.30.0.12:36768, as its conntrack entry shows",
            Packet(OUTSIDE, mark=0x200),
            state=State.OBSERVED,
            evidence=(Evidence(2), Evidence(1, (2,))),
        ),
        _hop(
            5,
            HopKind.DELIVERY,
            "leaves the cluster to 1.1.1.1",
            Packet(OUTSIDE),
            place=HopPlace.WORLD,
            where="1.1.1.1",
            node="",
        ),
    )
    nf = ConntrackEntry(
        OPEN, OUTSIDE.reversed(), 86395, "ESTABLISHED", frozenset({"ASSURED"}), packets=12
    )
    ct = CtEntry(OPEN, "OUT", remaining=46, flags=frozenset({"SeenNonSyn"}), source_identity=7012)
    return Path(
        source=Target("pod/client", "pod", "default", "client", CLIENT, node="kind-worker"),
        destination=Target("1.1.1.1:80", "address", address=ONE, port=80),
        protocol=TCP,
        mtu=PathMtu(1450, "eth0", "node2", 1450, Larger.FRAGMENTED),
        verdict=Verdict.DELIVERED,
        reason="TCP 10.244.1.160:36768 → 1.1.1.1:80 was answered 8 s before the record; it leaves "
        "the cluster as 172.30.0.12:36768",
        hops=hops,
        findings=(
            Finding(
                Severity.WARNING,
                "the masquerading rule matches more than this pod's range",
                "Set ipv4NativeRoutingCIDR to the range of the pods, so that traffic between "
                "nodes keeps its source address.",
                (Evidence(1, (1, 2)),),
            ),
            Finding(Severity.INFO, "tc is missing", ""),
        ),
        flows=(TrackedFlow("kind-worker", OPEN, ct, None, None, nf, OUTSIDE, (Evidence(1),)),),
        tracking=(
            TrackingNote("kind-worker", "cilium-nat", "no snat map on this node", (Evidence(2),)),
            TrackingNote("kind-worker2", "cilium-ct", "no entry of this flow"),
        ),
        answer=WayBack(
            Return.RETURNS,
            "",
            True,
            "other devices than the packet: by eth1 of kind-worker",
            (
                _hop(
                    1,
                    HopKind.DELIVERY,
                    "pod default/client receives the answer of 1.1.1.1:80",
                    Packet(SENT.reversed()),
                    place=HopPlace.POD,
                    where="default/client",
                ),
            ),
        ),
    )


def dropped() -> Path:
    """pod → service on IPv6, denied by policy; the packet would have been tunnelled."""
    source, vip = ip_address("fd00:10:244:1::a0"), ip_address("fd00:10:96::10")
    backend = ip_address("fd00:10:244:2::7")
    sent = Flow(TCP, source, None, vip, 80)
    balanced = sent.with_destination(backend, 8080)
    outer = Flow(17, ip_address("172.18.0.3"), None, ip_address("172.18.0.2"), 8472)
    hops = (
        _hop(
            1,
            HopKind.SOCKET,
            "connect() is rewritten to [fd00:10:244:2::7]:8080",
            Packet(balanced),
            place=HopPlace.POD,
            where="shop/client",
        ),
        _hop(
            2,
            HopKind.POLICY,
            "egress policy of endpoint 1174 denies identity 52011 port 8080/TCP",
            Packet(balanced, outer, 52011),
            place=HopPlace.CILIUM,
            state=State.OBSERVED,
            drops=True,
            evidence=(Evidence(3, (), ('"Direction":"egress"',)),),
        ),
    )
    svc = CtEntry(sent.with_source(source, 40000), "SVC", rev_nat=7, backend_id=12)
    opened = balanced.with_source(source, 40000)
    nat = NatEntry(opened, "OUT", ip_address("fd00::3"), 40001, age=12)
    return Path(
        source=Target("pod/client", "pod", "shop", "client", source, note="one of 3 ready pods"),
        destination=Target("svc/web:http", "service", "prod", "web", vip, 80),
        protocol=TCP,
        verdict=Verdict.DROPPED,
        reason="dropped at hop 2: egress policy of endpoint 1174 denies identity 52011",
        hops=hops,
        because=("at kind-worker, by the egress policy of pod/client",),
        seen=(
            "3 drops “Policy denied” (hubble, kind-worker), the newest 8s before hubble was asked",
        ),
        cause="CiliumNetworkPolicy shop/client selects it, and no rule allows 8080/TCP",
        fix=Fix("Allow it.", "kubectl edit ciliumnetworkpolicy -n shop client"),
        findings=(Finding(Severity.ERROR, "policy denies the flow", "Allow it.", decides=True),),
        flows=(
            TrackedFlow(
                "kind-worker",
                svc.flow,
                CtEntry(opened, "OUT", remaining=-3, tx_flags_seen=2, packets=4, bytes=240),
                svc,
                nat,
                None,
                opened.with_source(ip_address("fd00::3"), 40001),
            ),
        ),
    )


def outside() -> Path:
    """A client outside → a load-balancer: one node drops it, another does not, one is not
    entered."""
    client, vip = ip_address("203.0.113.9"), ip_address("198.51.100.7")
    sent = Packet(Flow(TCP, client, None, vip, 443))
    enters = _hop(
        1, HopKind.LINK, "client 203.0.113.9 sends it; it enters by kind-worker", sent,
        place=HopPlace.WORLD, where="203.0.113.9", node="",
    )  # fmt: skip
    drops = _hop(
        2, HopKind.LOAD_BALANCING, "svc shop/web has no backend there", sent, drops=True,
        place=HopPlace.CILIUM, where="eth0", evidence=(Evidence(1, (1,), ()),),
    )  # fmt: skip
    lost = Path(
        source=Target("203.0.113.9", "address", address=client),
        destination=Target("svc/web", "service", "shop", "web", vip, 443),
        protocol=TCP,
        verdict=Verdict.DROPPED,
        reason="dropped at hop 2 on kind-worker: svc shop/web has no backend there",
        hops=(enters, drops),
        findings=(Finding(Severity.ERROR, "kind-worker drops what others let through", ""),),
        cause="externalTrafficPolicy Local, and no endpoint on kind-worker",
        drop=Drop("derived", 2, "kind-worker", "svc shop/web has no backend there"),
        because=("at kind-worker: svc shop/web has no backend there",),
    )
    through = replace(
        lost, verdict=Verdict.REACHABLE, reason="the tables let it through to pod shop/web",
        hops=(enters,), findings=(), cause="", drop=None,
        because=("the tables let it through to pod shop/web",),
    )  # fmt: skip
    entrance = Entrance(
        "each node that a load-balancer may use", "kind-worker",
        (Entry("kind-worker", lost), Entry("kind-worker2", through)),
        (ClosedEntry("kind-control-plane", "it has the label exclude-from-…"),), 3,
    )  # fmt: skip
    return replace(
        lost, verdict=Verdict.UNKNOWN, drop=None, outside=entrance,
        reason="it depends on the node that it enters by: dropped by kind-worker (svc shop/web has "
        "no backend there), reachable by kind-worker2; 3 more nodes were not asked",
        because=("it depends on the node that it enters by", "3 more nodes were not asked"),
    )  # fmt: skip


HOSTILE = "a\x1b[31m\nb\u202ec\u200b<script>\"'\\N`;]%%{init}%%--> #quot; end|\x9b \U000e0041"
"""Everything that some output format might obey."""


def hostile() -> Path:
    """An answer whose every text is hostile."""
    sent = Packet(SENT)
    evidence = (Evidence(1, (1,), (HOSTILE,)),)
    hop = Hop(
        1,
        HopPlace.POD,
        HOSTILE,
        HOSTILE,
        HopKind.ROUTE,
        HOSTILE,
        State.UNKNOWN,
        sent,
        HOSTILE,
        True,
        evidence,
    )
    path = Path(
        source=Target(HOSTILE, "pod", HOSTILE, HOSTILE, CLIENT, node=HOSTILE, note=HOSTILE),
        destination=Target(HOSTILE, "name", address=ONE, name=HOSTILE, port=80),
        protocol=TCP,
        verdict=Verdict.UNKNOWN,
        reason=HOSTILE,
        hops=(hop,),
        answer=WayBack(Return.LOST, HOSTILE, True, HOSTILE, (hop,)),
        findings=(Finding(Severity.ERROR, HOSTILE, HOSTILE, evidence),),
        flows=(TrackedFlow(HOSTILE, OPEN, None, None, None, None, OPEN, evidence),),
        mtu=PathMtu(
            1400, HOSTILE, HOSTILE, 1500, Larger.LOST, (HOSTILE,), PathMtu(None, "", "", None, None)
        ),
        tracking=(TrackingNote(HOSTILE, HOSTILE, HOSTILE, evidence),),
    )
    closed = (ClosedEntry(HOSTILE, HOSTILE),)
    return replace(path, outside=Entrance(HOSTILE, "", (Entry(HOSTILE, path),), closed))


def hostile_bundle() -> Bundle:
    """A record whose every text is hostile."""
    place = pod_place(HOSTILE, HOSTILE)
    record = Record(0, place, ("echo", HOSTILE), None, InMemory(HOSTILE.encode()), error=HOSTILE)
    return bundle_of([record], source=HOSTILE, note=HOSTILE)


def empty() -> Path:
    """An answer that could not even begin."""
    return Path(
        source=Target("pod/late", "pod", "default", "late"),
        destination=Target("1.1.1.1", "address", address=ONE),
        protocol=1,
        verdict=Verdict.UNKNOWN,
        reason="pod/late is Pending: Unschedulable, so it has no address",
        hops=(),
        findings=(),
    )
