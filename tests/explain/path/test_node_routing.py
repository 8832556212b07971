"""The routing hops of a path: rules and tables, sysctls, the kernel's own look-up, next hops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.path import state
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    InMemory,
    Place,
    Record,
    agent_place,
    bundle_of,
    pod_place,
)
from kubectl_ebpfnet.model.path import Attempt, Hop, Outcome, Path, State, Verdict
from tests.explain.path.changed import (
    NATIVE,
    SCENARIOS,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    fail,
    finding,
    say,
    swap,
    without,
)
from tests.explain.path.variants import json_edit

ROUTES, RULES = "ip -j route show table all", "ip -j rule"
WORLD, WORLD_ROUTE = (
    "1.1.1.1:80",
    '{"dst":"1.1.1.1","gateway":"172.30.0.200","dev":"eth0","flags":[]}',
)
DEFAULT_RULES = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 32766, "src": "all", "table": "main"},
    {"priority": 32767, "src": "all", "table": "default"},
]
CLIENT = pod_place("default", "client")


def rules(*more: dict[str, object], at: str = "node2") -> Change:
    """The node's rules, with more before those of main."""
    listed = sorted([*DEFAULT_RULES, *more], key=lambda rule: int(str(rule["priority"])))
    return say(at, RULES, json.dumps(listed))


def routes(*more: dict[str, object]) -> Change:
    """More routes of node2."""
    text = "".join(f"{json.dumps({'flags': [], **route})}," for route in more)
    return swap("node2", ROUTES, "[{", f"[{text}{{")


def sysctls(node: str = "node2", **more: int) -> Record:
    """What an agent's grep prints; a name is the device's and the setting's: lxc__rp_filter."""
    names = {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
    for device in ("all", "eth0", "cilium_host", lxc(), "lxc454044f1d690"):
        names[f"net/ipv4/conf/{device}/forwarding"] = 1
        names[f"net/ipv4/conf/{device}/rp_filter"] = 0
    for name, value in more.items():
        device, _, setting = name.rpartition("__")
        device = lxc() if device == "lxc" else device
        long = {"": "net/ipv4/", "nf": "net/netfilter/"}.get(device, f"net/ipv4/conf/{device}/")
        names[long + setting] = value
    text = "".join(f"/proc/sys/{name}:{value}\n" for name, value in names.items())
    return said(agent_place(node), q.SYSCTLS.forms[0], text)


def said(place: Place, argv: tuple[str, ...], text: str) -> Record:
    return Record(0, place, argv, 0, InMemory(text.encode()))


def lxc() -> str:
    return "lxc00f235fb673a"


def in_pod(rule: str, *table: str) -> tuple[Record, ...]:
    """What `ip rule` and `ip route show table all` print in the pod."""
    listed = "0:\tfrom all lookup local\n" + rule + "32766:\tfrom all lookup main\n"
    lines = (
        "default via 10.244.1.114 dev eth0 mtu 1500",
        "10.244.1.114 dev eth0 scope link",
        *table,
    )
    text = "".join(f"{line}\n" for line in lines)
    return (
        said(CLIENT, ("ip", "rule"), listed),
        said(CLIENT, ("ip", "route", "show", "table", "all"), text),
    )


def route_hops(path: Path, node: str = "node2") -> list[Hop]:
    return [hop for hop in path.hops if hop.kind == "route" and hop.node == node][1:]


@pytest.fixture(autouse=True)
def never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No table has an attempt, so that the walk alone decides."""
    monkeypatch.setattr(state.PathBuilder, "attempt", None)


@pytest.fixture
def unanswered(never_tried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest attempt of every walk is recent, and got no answer."""

    def attempt(walk: state.PathBuilder) -> Attempt | None:
        found = walk.ends.attempt
        return found and replace(found, outcome=Outcome.UNANSWERED, age=1.0)

    monkeypatch.setattr(state.PathBuilder, "attempt", property(attempt))


# --- rules and tables of the node -----------------------------------------------------------------


def test_a_rule_that_may_match_leaves_the_route_undecided() -> None:
    change = rules({"priority": 40, "src": "all", "tos": "0x10", "table": "100"})
    more = routes({"dst": "default", "gateway": "172.30.0.9", "dev": "eth0", "table": "100"})
    path = ask(changed(NATIVE, change, more), "client", WORLD)
    (hop,) = route_hops(path)
    assert (hop.state, path.verdict) == (State.UNKNOWN, Verdict.UNKNOWN)
    assert "rule 40 (tos 0x10) may match: the packet's TOS is not known" in path.reason
    assert path.fix is not None
    assert "ip route get 1.1.1.1 from 10.244.1.53" in path.fix.command


def test_a_rule_that_changes_nothing_is_no_doubt() -> None:
    change = rules({"priority": 40, "src": "all", "tos": "0x10", "table": "main"})
    path = ask(changed(NATIVE, change), "client", WORLD)
    assert path.verdict is Verdict.LEAVES


def test_a_rule_by_port_is_evaluated() -> None:
    change = rules({"priority": 40, "src": "all", "ipproto": "tcp", "dport": 80, "table": "77"})
    more = routes({"type": "blackhole", "dst": "default", "table": "77"})
    path = ask(changed(NATIVE, change, more), "client", WORLD)
    hop = dropped_at(path)
    assert hop.summary == (
        "the route default is blackhole in table 77, which rule 40 (ipproto TCP dport 80) looks up "
        "on node2"
    )
    assert any('"priority": 40' in line for piece in hop.evidence for line in piece.excerpt)
    other = ask(changed(NATIVE, change, more), "client", "1.1.1.1:81")
    assert other.verdict is Verdict.LEAVES


def test_a_table_that_was_not_read_is_named() -> None:
    plain = "default via 172.30.0.1 dev eth0\n172.30.0.0/24 dev eth0 scope link\n"
    change = rules({"priority": 111, "src": "10.244.1.53", "table": "11"})
    bundle = changed(NATIVE, change, without("node2", ROUTES), say("node2", "ip route", plain))
    path = ask(bundle, "client", WORLD)
    assert path.verdict is Verdict.UNKNOWN
    assert "table 11 was not read, which rule 111 (from 10.244.1.53) looks up" in path.reason
    assert path.fix is not None
    assert path.fix.command == "ip route show table all; ip rule"


def test_rules_that_were_not_read_leave_a_way_out_undecided() -> None:
    path = ask(changed(NATIVE, fail("node2", RULES)), "client", WORLD)
    assert "the node's rules were not read" in path.reason
    # Not the way to the node's own pod, which it takes for granted.
    there = ask(changed(NATIVE, fail("node1", RULES)), "client", "pod/web:8080")
    assert there.verdict is Verdict.REACHABLE


def test_one_of_several_next_hops_is_named() -> None:
    hops = [{"gateway": f"172.30.0.{n}", "dev": "eth0", "weight": 1, "flags": []} for n in (1, 200)]
    change = swap("node2", ROUTES, WORLD_ROUTE, json.dumps({"dst": "1.1.1.1", "nexthops": hops}))
    path = ask(changed(NATIVE, change), "client", WORLD)
    (hop,) = route_hops(path)
    assert "one of 2 next hops (172.30.0.1, 172.30.0.200)" in hop.summary
    assert hop.state is State.DERIVED


def test_next_hops_to_different_nodes_are_undecided() -> None:
    hops = [{"gateway": f"172.30.0.{n}", "dev": "eth0", "weight": 1, "flags": []} for n in (11, 1)]
    change = swap("node2", ROUTES, WORLD_ROUTE, json.dumps({"dst": "1.1.1.1", "nexthops": hops}))
    (hop,) = route_hops(ask(changed(NATIVE, change), "client", WORLD))
    assert hop.reason == (
        "which next hop the kernel takes for this flow is not known: they lead to a router, node1"
    )


HEALTHY: dict[str, tuple[Change, ...]] = {
    "Cilium's proxy rules": (
        rules(
            {"priority": 9, "src": "all", "fwmark": "0x200", "fwmask": "0xf00", "table": "2004"},
            {"priority": 10, "src": "all", "fwmark": "0xa00", "fwmask": "0xf00", "table": "2005"},
        ),
        routes({"type": "local", "dst": "default", "dev": "lo", "table": "2004"}),
    ),
    "a VRF somewhere": (rules({"priority": 1000, "src": "all", "l3mdev": None}),),
    "WireGuard of wg-quick": (
        rules(
            {"priority": 10, "src": "all", "table": "main", "suppress_prefixlen": 0},
            {"priority": 11, "not": None, "src": "all", "fwmark": "0xca6c", "table": "51820"},
        ),
        routes({"dst": "default", "gateway": "172.30.0.200", "dev": "eth0", "table": "51820"}),
    ),
    "an ENI's rules": (
        rules(
            {"priority": 20, "src": "all", "dst": "10.244.1.53", "table": "main"},
            {"priority": 111, "src": "10.244.1.53", "table": "11"},
        ),
        routes({"dst": "default", "gateway": "172.30.0.200", "dev": "eth0", "table": "11"}),
    ),
    "a rule for users": (
        rules({"priority": 50, "src": "all", "uid_start": 1000, "uid_end": 2000, "table": "77"}),
        routes({"type": "unreachable", "dst": "default", "table": "77"}),
    ),
    "backup routes": (
        routes(
            {"dst": "1.1.1.1", "gateway": "172.30.0.1", "dev": "eth0", "metric": 500},
            {"type": "blackhole", "dst": "1.1.1.0/24", "metric": 9000},
        ),
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_unusual_routing_that_works_is_no_error(name: str) -> None:
    path = ask(changed(NATIVE, *HEALTHY[name], more=(sysctls(),)), "client", WORLD)
    assert path.verdict is Verdict.LEAVES, path.reason
    assert not [one for one in path.findings if one.severity == "error"]


# --- any one rule may be undecidable, any record away ---------------------------------------------


def riddles(bundle: Bundle) -> Iterator[tuple[str, Bundle]]:
    """The bundle with a selector that nobody understands in one rule of a node."""
    for record in bundle.records:
        if record.command != RULES:
            continue
        listed = json.loads(record.stdout.read())
        for number, rule in enumerate(listed):
            text = json.dumps([*listed[:number], {**rule, "riddle": 7}, *listed[number + 1 :]])
            odd = replace(record, stdout=InMemory(text.encode()))
            rest = [odd if one is record else one for one in bundle.records]
            yield f"rule {rule['priority']} of {record.place}", bundle_of(rest, "riddle")


def unread(bundle: Bundle) -> Iterator[tuple[str, Bundle]]:
    """The bundle without the rules, the routes or the sysctls of a place, or without its tables."""
    for record in bundle.records:
        if record.command not in (RULES, ROUTES, "ip rule", " ".join(q.SYSCTLS.forms[0])):
            continue
        rest = [one for one in bundle.records if one is not record]
        yield f"{record.command} of {record.place}", bundle_of(rest, "unread")


@pytest.mark.variants
@pytest.mark.parametrize("scenario", [NATIVE, VXLAN])
@pytest.mark.parametrize("destination", [WORLD, "pod/web:8080", "svc/web"])
def test_what_is_not_understood_or_read_only_takes_certainty(
    scenario: str, destination: str
) -> None:
    odd = rules(
        {"priority": 30, "src": "all", "dst": "1.1.1.1", "dport": 81, "action": "blackhole"},
        {"priority": 40, "src": "10.244.1.0", "srclen": 24, "goto": 32766},
        {"priority": 50, "src": "all", "action": "unreachable"},
    )
    for bundle in (open_bundle(SCENARIOS / scenario), changed(scenario, odd)):
        whole = ask(bundle, "client", destination)
        for what, less in (*riddles(bundle), *unread(bundle)):
            path = ask(less, "client", destination)
            assert path.verdict in (whole.verdict, Verdict.UNKNOWN), (what, path.reason)


# --- sysctls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text", "command"),
    [
        (
            {"__ip_forward": 0, "lxc__forwarding": 0},
            "the node forwards nothing: net.ipv4.ip_forward is 0",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            {"lxc__forwarding": 0},
            "what comes in by lxc00f235fb673a is not forwarded: "
            "net.ipv4.conf.lxc00f235fb673a.forwarding is 0",
            "sysctl -w net.ipv4.conf.lxc00f235fb673a.forwarding=1",
        ),
        (
            {"lxc__rp_filter": 1},
            "rp_filter is strict (1) at lxc00f235fb673a, and the route back to 10.244.1.53 leads "
            "by cilium_host: the packet is a martian",
            "sysctl -w net.ipv4.conf.lxc00f235fb673a.rp_filter=0",
        ),
        (
            {"all__rp_filter": 2},
            "rp_filter is loose (2) at lxc00f235fb673a, and the route back to 10.244.1.53 leads by "
            "cilium_host: the packet is a martian",  # the device has no address
            "sysctl -w net.ipv4.conf.lxc00f235fb673a.rp_filter=0",
        ),
        (
            {"nf__nf_conntrack_count": 100, "nf__nf_conntrack_max": 100},
            "nf_conntrack of node2 is full: 100 of at most 100 connections",
            "sysctl -w net.netfilter.nf_conntrack_max=200",
        ),
    ],
)
def test_a_sysctl_that_drops_the_packet_is_named(
    settings: dict[str, int], text: str, command: str
) -> None:
    path = ask(changed(NATIVE, more=(sysctls(**settings),)), "client", WORLD)
    hop = dropped_at(path)
    assert (hop.node, hop.state) == ("node2", State.DERIVED)
    assert text in hop.summary
    assert path.fix is not None
    assert path.fix.command == command
    assert hop.evidence[0].excerpt[0].startswith("/proc/sys/net/")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"eth0__rp_filter": 1},
        {"cilium_host__rp_filter": 2},
        {"nf__nf_conntrack_count": 99, "nf__nf_conntrack_max": 100},
    ],
)
def test_sysctls_that_let_the_packet_through(settings: dict[str, int]) -> None:
    path = ask(changed(NATIVE, more=(sysctls(**settings),)), "client", WORLD)
    assert path.verdict is Verdict.LEAVES, path.reason


def test_forwarding_of_the_device_that_the_answer_comes_in_by() -> None:
    path = ask(changed(NATIVE, more=(sysctls(eth0__forwarding=0),)), "client", WORLD)
    assert path.verdict is Verdict.DROPPED
    assert path.drop is not None
    assert (path.drop.direction, path.drop.node) == ("answer", "node2")
    assert "net.ipv4.conf.eth0.forwarding is 0" in path.reason


def test_unread_sysctls_are_named_where_no_answer_comes(unanswered: None) -> None:
    path = ask(changed(NATIVE), "client", "pod/web:8080")
    assert path.verdict is Verdict.UNKNOWN
    wanted = (
        "net.ipv4.ip_forward, forwarding and rp_filter of {}, nf_conntrack_count and "
        "nf_conntrack_max on {} (`sysctl`)"
    )
    assert wanted.format("eth0", "node1") in path.presumed
    # nf_conntrack of node2 has the flow, so it was forwarded there.
    assert wanted.format("lxc00f235fb673a", "node2") not in path.presumed
    path = ask(changed(NATIVE, more=(sysctls("node1"), sysctls("node2"))), "client", "pod/web:8080")
    assert path.verdict is Verdict.UNKNOWN
    assert "`sysctl`" not in " ".join(path.presumed)


# --- the pod's own rules --------------------------------------------------------------------------


def test_a_rule_in_the_pod_is_named_and_the_cni_plugin_is_not_blamed() -> None:
    rule = "50:\tfrom all to 1.1.1.1 lookup 77\n"
    bundle = changed(NATIVE, more=in_pod(rule, "unreachable default table 77 metric 4294967295"))
    path = ask(bundle, "client", WORLD)
    hop = dropped_at(path)
    assert hop.place == "pod"
    assert hop.summary == (
        "the route default is unreachable in table 77, which rule 50 (to 1.1.1.1) looks up in the "
        "pod"
    )
    assert "CNI" not in finding(path, "unreachable").detail
    quoted = [line for piece in hop.evidence for line in piece.excerpt]
    assert "50:\tfrom all to 1.1.1.1 lookup 77" in quoted
    assert ask(bundle, "client", "9.9.9.9:53", "udp").verdict is not Verdict.DROPPED


def test_a_rule_of_the_pod_by_mark_is_undecided() -> None:
    """As a service mesh has it: the pod's own netfilter, which is not read, marks packets."""
    rule = "32765:\tfrom all fwmark 0x539 lookup 133\n"
    path = ask(
        changed(NATIVE, more=in_pod(rule, "local default dev lo table 133")), "client", WORLD
    )
    assert path.verdict is Verdict.UNKNOWN
    assert "rule 32765 (fwmark 0x539) may match: the packet's mark is not known" in path.reason


def test_unread_rules_of_the_pod_are_said() -> None:
    path = ask(changed(NATIVE), "client", WORLD)
    assert "`ip rule` was not read" in path.hops[0].summary
    path = ask(changed(NATIVE, more=in_pod("")), "client", WORLD)
    assert "not read" not in path.hops[0].summary


# --- next hops ------------------------------------------------------------------------------------


def test_a_router_that_is_no_node_does_not_lead_to_a_pod_in_silence() -> None:
    own = '{"dst":"10.244.0.0/24","gateway":"172.30.0.11","dev":"eth0","protocol":"kernel",'
    own += '"flags":[]},'
    path = ask(changed(NATIVE, swap("node2", ROUTES, own, "")), "client", "pod/web:8080")
    assert path.verdict is Verdict.UNKNOWN
    assert "it arrives only if the router 172.30.0.1 routes 10.244.0.0/24 to node1" in path.reason
    assert path.fix is not None
    assert path.fix.text.startswith("Give node2 a route to node1 for its pods")
    assert finding(path, "which is no node").severity == "warning"


def test_a_next_hop_without_an_entry_is_asked_for() -> None:
    gone = say("node2", "ip -j neigh", "[]")
    path = ask(changed(NATIVE, gone), "client", WORLD)
    (hop,) = [hop for hop in path.hops if hop.kind == "neighbour" and hop.place == "node"]
    assert (
        hop.summary == "no entry for next hop 172.30.0.200 on eth0 yet: the node asks for its MAC"
    )
    assert path.verdict is Verdict.LEAVES


def test_a_next_hop_without_an_entry_may_be_why_no_answer_comes(unanswered: None) -> None:
    gone = say("node2", "ip -j neigh", "[]")
    path = ask(changed(NATIVE, gone), "client", WORLD)
    assert path.verdict is Verdict.UNKNOWN
    assert "whether anybody has 172.30.0.200 on eth0 is not known" in path.reason


# --- BPF host routing by one device ---------------------------------------------------------------


def test_a_rule_on_the_incoming_device_is_not_asked() -> None:
    change = rules({"priority": 90, "src": "all", "iif": "lxcca1c984e26ef", "table": "100"})
    more = routes({"type": "blackhole", "dst": "default", "table": "100"})
    path = ask(changed(VXLAN, change, more), "client", WORLD)
    assert path.verdict is Verdict.LEAVES
    (hop,) = route_hops(path)
    assert "and past rule 90 (iif lxcca1c984e26ef)" in hop.summary


def test_where_no_route_is_the_destination_is_asked_for_on_the_link() -> None:
    change = rules({"priority": 90, "src": "all", "dst": "1.1.1.1", "table": "100"})
    more = routes({"type": "blackhole", "dst": "default", "table": "100"})
    path = ask(changed(VXLAN, change, more), "client", WORLD)
    (hop,) = route_hops(path)
    assert hop.summary.startswith(
        "1.1.1.1 is asked for on eth0 itself: the route default is blackhole in table 100"
    )
    assert path.hops[-1].packet.flow.destination == ip_address("1.1.1.1")
    asked = [h for h in path.hops if h.kind == "neighbour" and h.place == "node"]
    assert "no entry for next hop 1.1.1.1 on eth0" in asked[0].summary


# --- a tunnel's outer packet ----------------------------------------------------------------------


@pytest.mark.parametrize(("strict", "elsewhere"), [(1, True), (1, False), (0, True)])
def test_rp_filter_of_the_receiver_looks_at_the_outer_packet(strict: int, elsewhere: bool) -> None:
    route = {"dst": "172.30.0.12", "dev": "cilium_host", "scope": "link", "flags": []}
    changes = [json_edit("node1", "ip -j route show table all", lambda rows: rows.append(route))]
    more = (sysctls("node1", eth0__rp_filter=strict),)
    path = ask(changed(VXLAN, *changes * elsewhere, more=more), "client", "pod/web:8080")
    if not (strict and elsewhere):
        assert path.verdict is not Verdict.DROPPED, path.reason
        return
    hop = dropped_at(path)
    assert (hop.node, hop.kind) == ("node1", "route")
    assert "rp_filter is strict (1) at eth0, and the route back to 172.30.0.12" in hop.summary
    assert path.fix is not None
    assert path.fix.command == "sysctl -w net.ipv4.conf.eth0.rp_filter=0"


@pytest.mark.parametrize(("sender", "cidr", "beside", "far"), [
    ("node2", "10.244.0.0/24", "172.30.0.11", "node1"),
    ("node1", "10.244.1.0/24", "172.30.0.12", "node2"),
])  # fmt: skip
def test_a_gateway_that_is_no_node_though_the_node_is_on_the_link(
    sender: str, cidr: str, beside: str, far: str
) -> None:
    def by_nobody(listed: list[dict[str, object]]) -> None:
        next(route for route in listed if route["dst"] == cidr)["gateway"] = "172.30.0.250"

    path = ask(changed(NATIVE, json_edit(sender, ROUTES, by_nobody)), "client", "pod/web:8081")
    assert path.verdict == "unknown"
    assert f"{far} itself is on the same link, at {beside}" in path.cause
    assert path.fix is not None
    assert path.fix.command == f"ip route replace {cidr} via {beside} dev eth0"
