"""Cilium's outputs: recorded text and JSON of 1.20-dev agree; old forms by their formats.

Old forms come from seed 003 (tests/scenarios/tp06, a real old agent) and from the formats of
cilium-facts 2; those were not printed by a run and say so here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from json import loads

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.cilium import Backend, PolicyEntry
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.evidence import Span
from kubectl_ebpfnet.model.net import ICMP, TCP, UDP, Flow
from kubectl_ebpfnet.parse.cilium import agent, ct, egress, lb, maps, nat, policy
from kubectl_ebpfnet.parse.cilium import config as cilium_config
from tests.parse import recorded, stored_json
from tests.parse.parse_samples import every, sample

POD = ip_address("10.244.0.213")
WORLD = ip_address("1.0.0.1")
DBG = "cilium-dbg"


def lists(*words: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The argv of a list in text and in JSON."""
    return (DBG, *words), (DBG, *words, "-o", "json")


def timeless(entry: CtEntry) -> CtEntry:
    """Without what moves between two commands."""
    return replace(
        entry, expires=None, remaining=None, tx_flags_seen=0, rx_flags_seen=0,
        last_tx_report=None, last_rx_report=None,
    )  # fmt: skip


@pytest.mark.parametrize("both", recorded.pairs(*lists("bpf", "ct", "list", "global")))
def test_conntrack_says_the_same_in_text_and_json(both: tuple[bytes, bytes]) -> None:
    text = {timeless(e) for e in every(ct.entry, both[0])}
    json = {timeless(e) for e in stored_json.ct(both[1])}
    assert text
    # The agent's own connections come and go between the two commands.
    assert len(text ^ json) <= 2
    assert len(text & json) >= 3
    reports = [
        {(e.flow, e.direction, e.last_tx_report, e.last_rx_report) for e in entries}
        for entries in (every(ct.entry, both[0]), stored_json.ct(both[1]))
    ]
    assert len(reports[0] & reports[1]) >= 3


@pytest.mark.parametrize("both", recorded.pairs(*lists("bpf", "nat", "list")))
def test_nat_says_the_same_in_text_and_json(both: tuple[bytes, bytes]) -> None:
    text = {replace(e, age=None) for e in every(nat.entry, both[0])}
    json = set(stored_json.nat(both[1]))
    assert len(text & json) >= 3
    assert len(text ^ json) <= 4


def test_a_recorded_conntrack_line() -> None:
    line = (
        b"TCP OUT 10.244.1.160:36768 -> 1.1.1.1:80 expires=5624 (remaining: -8 sec(s)) Packets=0 "
        b"Bytes=0 RxFlagsSeen=0x03 LastRxReport=5614 TxFlagsSeen=0x03 LastTxReport=5614 "
        b"Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0 SourceSecurityID=60735 "
        b"BackendID=0 NatPort=0 "
    )
    entry = ct.entry(line, 7)
    assert entry == CtEntry(
        Flow(TCP, ip_address("10.244.1.160"), 36768, ip_address("1.1.1.1"), 80),
        "OUT",
        expires=5624,
        remaining=-8,
        flags=frozenset({"RxClosing", "TxClosing", "SeenNonSyn"}),
        tx_flags_seen=3,
        rx_flags_seen=3,
        source_identity=60735,
        last_tx_report=5614,
        last_rx_report=5614,
    )


def test_an_old_agents_lines() -> None:
    """Seed 003: a real agent of about 1.9."""
    tcp, echo, related, ping = every(
        ct.entry, recorded.outputs("cilium", "bpf", "ct", "list", "global")[0]
    )
    assert tcp.flow == Flow(TCP, POD, 46486, WORLD, 80)
    assert (tcp.packets, tcp.bytes, tcp.source_identity) == (10, 1029, 42837)
    assert tcp.rx_flags_seen == 0x1B
    assert tcp.remaining is None
    assert echo.flow == Flow(ICMP, POD, 51724, WORLD, None)
    assert related.related
    assert related.flow == Flow(ICMP, POD, None, WORLD, None)
    assert ping.packets == 208


@pytest.mark.parametrize(
    ("line", "flow", "direction"),
    [
        # ≤ 1.14 prints service entries backwards (format of cilium-facts 2.1, not a run).
        (
            b"UDP OUT 10.96.0.10:53 -> 10.0.0.5:43210 service expires=1 RxPackets=0 RxBytes=7 "
            b"RxFlagsSeen=0x00 LastRxReport=0 TxPackets=1 TxBytes=70 TxFlagsSeen=0x00 "
            b"LastTxReport=0 Flags=0x0000 [ ] RevNAT=3 SourceSecurityID=0 IfIndex=0 ",
            Flow(UDP, ip_address("10.0.0.5"), 43210, ip_address("10.96.0.10"), 53),
            "SVC",
        ),
        (
            b"TCP SVC 10.0.0.5:43210 -> 10.96.0.10:53 expires=1 Flags=0x0000 [ ] RevNAT=3 ",
            Flow(TCP, ip_address("10.0.0.5"), 43210, ip_address("10.96.0.10"), 53),
            "SVC",
        ),
        # IPv6 without brackets, as upstream's own formatting code prints it (cilium-facts 2.1).
        (
            b"TCP OUT fd00:::4000 -> fe00:::80 expires=12 Flags=0x0000 [ ] ",
            Flow(TCP, ip_address("fd00::"), 4000, ip_address("fe00::"), 80),
            "OUT",
        ),
        (
            b"TCP IN 1.0.0.1:5555 -> 10.244.0.213:80 expires=1 Flags=0x0000 [ ] ",
            Flow(TCP, WORLD, 5555, POD, 80),
            "IN",
        ),
    ],
)
def test_forms_of_other_versions(line: bytes, flow: Flow, direction: str) -> None:
    entry = ct.entry(line, 1)
    assert entry is not None
    assert (entry.flow, entry.direction) == (flow, direction)


@pytest.mark.parametrize(
    "line",
    [b"no", b"TCP OUT a -> b:1 expires=1", b"TCP OUT 1.1.1.1:99999 -> 2.2.2.2:1 ", b"\xff" * 20,
     b"TCP OUT 1.1.1.1:1 -> 2.2.2.2:1 expires=x", b"WHAT OUT 1.1.1.1:1 -> 2.2.2.2:1 expires=1"],
)  # fmt: skip
def test_what_is_no_entry_names_its_line(line: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        ct.entry(line, 42)
    assert caught.value.line == 42


def test_nat_lines() -> None:
    out = nat.entry(
        b"TCP OUT 10.244.1.160:36768 -> 1.1.1.1:80 XLATE_SRC 172.30.0.12:36768 "
        b"Created=11sec ago NeedsCT=0",
        1,
    )
    assert out is not None
    assert out.translated() == Flow(
        TCP, ip_address("172.30.0.12"), 36768, ip_address("1.1.1.1"), 80
    )
    assert (out.age, out.needs_ct) == (11, False)
    # ≤ 1.14 takes the age from a wrong clock; IPv6 in brackets (formats, not a run).
    old = nat.entry(
        b"TCP IN [fd00::9]:80 -> [fd00::1]:4000 XLATE_DST [fd00::2]:4000 Created=99sec HostLocal=1",
        1,
    )
    assert old is not None
    assert (old.age, old.needs_ct, str(old.address)) == (None, True, "fd00::2")
    assert old.translated().destination == ip_address("fd00::2")


def test_the_old_load_balancer_lists() -> None:
    """Formats of 1.9 and 1.14 (cilium-facts 2.3, not a run): rows grouped under their frontend."""
    data = (
        b"SERVICE ADDRESS     BACKEND ADDRESS (REVNAT_ID) (SLOT)\n"
        b"10.96.0.1:443       10.0.0.2:8443 (1) (1)\n"
        b"                    0.0.0.0:0 (1) (0) [ClusterIP, non-routable]\n"
        b"10.96.0.10:53       0.0.0.0:0 (2) [ClusterIP]\n"
        b"                    10.0.0.7:53 (2)\n"
        b"                    10.0.0.8:53 (2)\n"
    )
    one, two = lb.frontends(data)
    assert (str(one.address), one.port, one.type, one.rev_nat) == ("10.96.0.1", 443, "ClusterIP", 1)
    assert [b.port for b in one.backends] == [8443]
    assert [str(b.address) for b in two.backends] == ["10.0.0.7", "10.0.0.8"]
    assert two.protocol is None


def test_source_ranges() -> None:
    """The heading is what agents print without any range; a map that is not read has none."""
    data = sample("cilium-1.14/format/bpf-lb-list--source-ranges")
    found = [(row.rev_nat, str(row.prefix), row.span.line) for row in lb.source_ranges(data)]
    assert found == [(21, "192.0.2.0/24", 2), (22, "fd00:7::/32", 3), (9, "0.0.0.0/0", 4)]
    assert lb.source_ranges(b"SOURCE RANGE (REVNAT_ID)   \n") == ()
    for other in (b"", b"SOURCE RANGE (REVNAT_ID)\n192.0.2.0/24\n"):
        with pytest.raises(ParseError):
            lb.source_ranges(other)


def test_the_recorded_services() -> None:
    found = {}
    for data in recorded.outputs(DBG, "service", "list", "-o", "json"):
        for frontend in lb.services(data):
            found[str(frontend.address), frontend.port, frontend.internal] = frontend
    web = found["10.96.51.4", 80, False]
    assert (web.type, web.namespace, web.name, web.protocol) == ("ClusterIP", "default", "web", TCP)
    backend = Backend(ip_address("10.244.0.135"), 8080, TCP, "active", preferred=True)
    assert [replace(b, node="", id=0) for b in web.backends] == [backend]
    local = found["10.111.111.129", 80, False]
    assert (local.type, local.flags) == ("LoadBalancer", {"Local"})
    assert found["10.111.111.129", 80, True].internal


@pytest.mark.parametrize(
    ("policies", "flags"),
    [
        ({"extTrafficPolicy": "Cluster", "intTrafficPolicy": "Local"}, {"InternalLocal"}),
        ({"extTrafficPolicy": "Local", "intTrafficPolicy": "Cluster"}, {"Local"}),
        ({"trafficPolicy": "Local"}, {"Local"}),
    ],
)
def test_traffic_policies_of_the_agents_list_are_flags_as_the_maps(
    policies: dict[str, str], flags: set[str]
) -> None:
    spec = {"frontend-address": {"ip": "10.96.0.1", "port": 80}, "flags": policies}
    (found,) = lb.services(json.dumps([{"spec": spec}]).encode())
    assert found.flags == flags


@pytest.mark.parametrize(
    ("line", "identity", "endpoint", "flags"),
    [
        # 1.9 and 1.10; 1.14; 1.16 with its comma (formats, not a run); 1.20-dev (recorded).
        (b"10.244.0.213/32   42837 0 172.18.0.3", 42837, "172.18.0.3", set()),
        (b"10.244.0.213/32   42837 0 0.0.0.0", 42837, None, set()),
        (b"10.0.0.1/32@3   identity=7 encryptkey=0 tunnelendpoint=172.18.0.3 nodeid=0x1a2b", 7,
         "172.18.0.3", set()),
        (b"10.0.0.1/32   identity=7 encryptkey=0 tunnelendpoint=0.0.0.0, flags=<none>", 7, None,
         set()),
        (b"10.244.0.0/24     identity=2 encryptkey=0 tunnelendpoint=172.30.0.11 flags=hastunnel  ",
         2, "172.30.0.11", {"hastunnel"}),
    ],
)  # fmt: skip
def test_the_ipcache_of_every_version(
    line: bytes, identity: int, endpoint: str | None, flags: set[str]
) -> None:
    (entry,) = maps.ipcache(b"IP PREFIX/ADDRESS   IDENTITY\n" + line + b"\n")
    assert entry.identity == identity
    assert entry.tunnel_endpoint == (ip_address(endpoint) if endpoint else None)
    assert entry.flags == flags
    assert entry.span == Span(2)


def test_the_endpoints_map_of_an_old_version() -> None:
    """1.9: IPv6 in brackets, no sec_id (format, not a run)."""
    data = (
        b"IP ADDRESS      LOCAL ENDPOINT INFO\n"
        b"[fd00::1]:0     id=1234  flags=0x0000 ifindex=12  mac=0A:00:00:00:00:01 "
        b"nodemac=0B:00:00:00:00:02\n"
        b"10.0.0.1:0      (localhost)\n"
    )
    pod, host = maps.endpoint_map(data)
    assert (str(pod.address), pod.endpoint_id, pod.identity, pod.ifindex) == (
        "fd00::1",
        1234,
        None,
        12,
    )
    assert pod.node_mac == "0b:00:00:00:00:02"
    assert host.host


def test_a_cilium_without_egress_gateway_has_no_policies() -> None:
    said = sample("cilium-1.9.8/vxlan-node2/bpf-egress-list")
    assert egress.policies(said) == ()
    with pytest.raises(ParseError):
        egress.policies(said.replace(b"  endpoint ", b"  egress   "))


def test_the_egress_gateway_list() -> None:
    found, missing, excluded = egress.policies(sample("cilium-1.14/format/bpf-egress-list"))
    assert found.gateway == ip_address("172.30.0.11")
    assert missing.gateway is None
    assert not missing.excluded
    assert excluded.excluded


def test_the_egress_gateway_list_as_it_was_printed_in_text_and_json() -> None:
    text = egress.policies(sample("cilium-1.18/egress-gateway/bpf-egress-list"))
    as_json = egress.policies_json(sample("cilium-1.18/egress-gateway/bpf-egress-list-o-json"))
    assert sorted(map(str, text)) == sorted(map(str, as_json)) or set(text) == set(as_json)
    assert len(text) == 4
    (excluded,) = [row for row in text if row.excluded]
    assert (excluded.destination, excluded.gateway) == (ip_network("1.1.1.0/24"), None)
    assert {row.gateway for row in text if not row.excluded} == {ip_address("172.31.7.11")}


def test_a_node_without_the_egress_gateways_map_says_so_on_stderr_alone() -> None:
    assert egress.policies(b"") == egress.policies_json(b"") == ()


def test_egress_gateways_up_to_1_10() -> None:
    (text,) = egress.policies(sample("cilium-1.10/format/bpf-egress-list"))
    (as_json,) = egress.policies_json(sample("cilium-1.10/format/bpf-egress-list-o-json"))
    assert text == as_json
    assert (str(text.source), str(text.destination)) == ("10.0.0.174", "172.18.0.0/16")
    assert (str(text.gateway), str(text.egress_address)) == ("172.18.0.5", "172.18.0.6")


def test_several_egress_gateways_of_one_policy() -> None:
    several, none = egress.policies(sample("cilium-1.12/format/bpf-egress-list"))
    assert str(several.gateway) == "172.30.0.11"
    assert [str(each) for each in several.others] == ["172.30.0.13"]
    assert several.span.lines == range(2, 4)
    assert (none.gateway, none.others, none.excluded) == (None, (), False)
    as_json = (
        b'[{"SourceIP":"10.244.1.7","DestCIDR":"1.1.1.0/24","EgressIP":"172.30.0.77",'
        b'"GatewayIPs":["172.30.0.11","172.30.0.13"]}]'
    )
    assert egress.policies_json(as_json) == (several,)


def test_a_gateway_that_is_not_understood_is_not_no_gateway() -> None:
    with pytest.raises(ParseError):
        egress.policies(
            b"Source IP   Destination CIDR   Egress IP   Gateway IP\n"
            b"10.0.0.5   1.1.1.0/24   0.0.0.0   Waiting\n"
        )


def test_ip_masq_in_json() -> None:
    said = maps.ip_masq_json(sample("cilium-1.18/egress-gateway/bpf-ipmasq-list-o-json"))
    assert ip_network("1.1.1.0/24") in said
    assert maps.ip_masq_json(b"null") == ()


def test_ip_masq() -> None:
    assert maps.ip_masq(b"IP PREFIX/ADDRESS\n10.0.0.0/8\n") == (ip_network("10.0.0.0/8"),)


def test_the_recorded_policy() -> None:
    (text,) = (t for t in recorded.outputs(DBG, "bpf", "policy", "get", "--all") if b"80/TCP" in t)
    (json,) = (
        t
        for t in recorded.outputs(DBG, "bpf", "policy", "get", "--all", "-o", "json")
        if b"20480" in t
    )
    rows = [e for e in policy.entries(json) if e.direction == "egress" and e.protocol]
    assert {e.identity for e in rows} == {2, 9, 10, 16777217}
    assert {(e.protocol, e.ports) for e in rows} == {(TCP, (80, 80))}
    assert all(e.endpoint_id == 1174 and not e.deny and e.precedence for e in rows)
    world = next(e for e in rows if e.identity == 2)
    said = {e.identity: e for e in policy.entries(text) if e.protocol}
    assert said[2] == replace(
        world, precedence=None, packets=said[2].packets, bytes=said[2].bytes,
        labels=("reserved:world",),
    )  # fmt: skip
    # A CIDR's identity stands there by its labels alone: it cannot be told.
    assert said[-1].labels == ("reserved:kube-apiserver", "reserved:world")


@pytest.mark.parametrize(
    ("cell", "protocol", "ports"),
    [
        (b"ANY", 0, (0, 65535)),
        (b"80/TCP", TCP, (80, 80)),
        (b"8080-8095/TCP", TCP, (8080, 8095)),
        (b"0x50/16/TCP", TCP, (80, 80)),
        (b"0x1f90/12/TCP", TCP, (8080, 8095)),
        (b"UDP", UDP, (0, 65535)),
    ],
)
def test_ports_of_every_version(cell: bytes, protocol: int, ports: tuple[int, int]) -> None:
    data = (
        b"Endpoint ID: 7\nPath: /sys/fs/bpf/tc/globals/cilium_policy_00007\n\n"
        b"POLICY   DIRECTION   IDENTITY   PORT/PROTO     PROXY PORT   AUTH TYPE   BYTES   PACKETS\n"
        b"Deny     Egress      42         "
        + cell.ljust(15)
        + b"NONE         disabled    10      2\n"
    )
    assert policy.entries(data) == (
        PolicyEntry(7, True, "egress", 42, protocol, ports, packets=2, bytes=10),
    )


def test_the_recorded_status() -> None:
    vxlan, native = (
        next(
            agent.status(r.stdout.read())
            for name, r in recorded.records()
            if name == wanted and r.argv == (DBG, "status", "-o", "json")
        )
        for wanted in ("vxlan-kpr", "native-iptables")
    )
    assert (vxlan.routing_mode, vxlan.tunnel_protocol, vxlan.host_routing) == (
        "tunnel",
        "vxlan",
        "bpf",
    )
    assert (vxlan.masquerade, vxlan.kube_proxy_replacement, vxlan.socket_lb) == ("bpf", True, True)
    assert vxlan.devices == ("eth0",)
    assert (native.routing_mode, native.host_routing, native.masquerade) == (
        "native", "legacy", "iptables",
    )  # fmt: skip
    assert native.kube_proxy_replacement is False


def test_the_recorded_endpoints_have_their_places() -> None:
    for data in recorded.outputs(DBG, "endpoint", "list", "-o", "json"):
        for endpoint in agent.endpoints(data):
            (index,) = endpoint.span.path
            assert loads(data)[index]["id"] == endpoint.id
    client = next(
        e
        for data in recorded.outputs(DBG, "endpoint", "list", "-o", "json")
        for e in agent.endpoints(data)
        if e.pod == "client" and e.id == 1174
    )
    assert client.interface == "lxcca1c984e26ef"
    assert client.host_mac == "ca:f7:8c:79:e1:5b"
    assert client.addresses == (ip_address("10.244.1.160"),)


def test_the_recorded_nodes() -> None:
    nodes = {
        n.name: n
        for data in recorded.outputs(DBG, "node", "list", "-o", "json")
        for n in agent.nodes(data)
    }
    assert set(nodes) == {"node1", "node2"}
    assert nodes["node1"].addresses == (ip_address("172.30.0.11"),)
    assert len(nodes["node1"].router_addresses) == 1


def test_version() -> None:
    (said, *_) = recorded.outputs(DBG, "version")
    assert agent.version(said) == "1.20.0-dev_cb982861da"
    assert agent.version(b"") == ""


def test_settings_of_an_old_cluster() -> None:
    """`cilium config view` of seed 003."""
    data = recorded.outputs("cilium", "config", "view")[0]
    config = cilium_config.datapath(cilium_config.settings(data))
    assert config.masquerade == "iptables"
    assert config.routing_mode == ""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tunnel": "vxlan"}, {"routing_mode": "tunnel", "tunnel_protocol": "vxlan"}),
        ({"tunnel": "disabled"}, {"routing_mode": "native"}),
        ({"routing-mode": "tunnel", "tunnel-protocol": "geneve"},
         {"routing_mode": "tunnel", "tunnel_protocol": "geneve"}),
        ({"enable-ipv4-masquerade": "false"}, {"masquerade": "disabled"}),
        ({"masquerade": "true", "enable-bpf-masquerade": "true"}, {"masquerade": "bpf"}),
        ({"kube-proxy-replacement": "strict"},
         {"kube_proxy_replacement": True, "socket_lb": True}),
        ({"kube-proxy-replacement": "partial"}, {}),
        ({"enable-host-legacy-routing": "false"}, {}),
        ({"enable-host-legacy-routing": "true"}, {"host_routing": "legacy"}),
        ({"bpf-lb-mode-annotation": "false"}, {"node_port_mode_annotation": False}),
        ({"ipv4-native-routing-cidr": "10.0.0.0/8"},
         {"native_cidrs": (ip_network("10.0.0.0/8"),)}),
    ],
)  # fmt: skip
def test_keys_say_only_what_they_say(settings: dict[str, str], expected: dict[str, object]) -> None:
    assert cilium_config.datapath(settings) == replace(DatapathConfig(), **expected)  # type: ignore[arg-type]


def test_the_agents_status_wins_where_it_says_anything() -> None:
    status = DatapathConfig(masquerade="iptables", kube_proxy_replacement=False)
    config = DatapathConfig(masquerade="bpf", routing_mode="native", kube_proxy_replacement=True)
    both = cilium_config.merge(status, config)
    assert (both.masquerade, both.routing_mode, both.kube_proxy_replacement) == (
        "iptables", "native", False,
    )  # fmt: skip
