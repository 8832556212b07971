"""parse.iproute, on what iproute2 6.1 and BusyBox 1.35 printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model.kernel import InterfaceAddress, Link, Neighbour, Route, Rule
from kubectl_ebpfnet.parse import iproute
from tests.parse.parse_samples import line_at, sample

V4, V6 = ip_network("0.0.0.0/0"), ip_network("::/0")
TP06 = "iproute2-unknown/tp06-"


def ip(command: str, where: str = "netns", program: str = "iproute2-6.1.0") -> bytes:
    return sample(f"{program}/{where}/ip-{command}")


def without_netns(links: tuple[Link, ...]) -> list[Link]:
    # Text names the other end's namespace, JSON numbers it.
    return [replace(link, netns_id=None, netns_name="") for link in links]


def test_links_of_a_node_from_json() -> None:
    links = {link.name: link for link in iproute.links(ip("j-d-link", "vxlan-node1"))}
    assert links["cilium_vxlan"] == Link(
        index=5,
        name="cilium_vxlan",
        kind="vxlan",
        mac="1a:1d:1c:11:b0:59",
        mtu=1500,
        tunnel_port=8472,
        tunnel_external=True,
        qdisc="noqueue",
    )
    assert links["lxc890578bef1bb"] == Link(
        index=13,
        name="lxc890578bef1bb",
        kind="veth",
        mac="e6:ae:08:b4:45:d5",
        mtu=1500,
        peer_index=12,
        netns_id=2,
        qdisc="noqueue",
    )
    assert links["cilium_net"].peer_name == "cilium_host"
    assert links["cilium_net"].peer_index is None


@pytest.mark.parametrize("where", ["vxlan-node1", "native-node2", "netns"])
def test_text_and_json_give_equal_links(where: str) -> None:
    text, json = iproute.links(ip("d-link", where)), iproute.links(ip("j-d-link", where))
    assert len(text) > 5
    assert without_netns(text) == without_netns(json)


def test_links_name_the_peers_namespace() -> None:
    data = ip("d-link", "vxlan-node1")
    link = iproute.links(data)[-1]
    assert link.netns_name == "cni-49494a9e-e9a6-ee6f-ddb2-aba9d12b9ceb"
    assert line_at(data, link.span.line).startswith("13: lxc890578bef1bb@if12:")
    assert iproute.links(data)[1].netns_id == 0


def test_links_with_a_master_a_tunnel_and_xdp() -> None:
    links = {link.name: link for link in iproute.links(ip("d-link"))}
    assert links["d1"].master == "br0"
    assert links["d1"].kind == "veth"
    assert (links["vx1"].tunnel_port, links["vx1"].tunnel_external) == (4789, False)
    assert (links["vx1"].up, links["vx1"].lower_up) == (False, False)
    assert links["lxc1"].xdp_program is not None
    assert links["cilium_host"].xdp_program is None
    assert links["lo"].kind == ""  # no line of its own, so not taken for `addrgenmode`


def test_without_details_there_is_no_kind() -> None:
    for command in ("link", "addr", "j-addr"):
        assert {link.kind for link in iproute.links(ip(command))} == {""}


def test_a_vrf_names_its_table_as_text_and_as_json() -> None:
    """By iproute2's ip/iplink_vrf.c, vrf_print_opt."""
    flags = "<NOARP,MASTER,UP,LOWER_UP> mtu 65575 qdisc noqueue state UP mode DEFAULT group default"
    text = (
        f"5: red: {flags} qlen 1000\n"
        "    link/ether 7a:00:00:00:00:05 brd ff:ff:ff:ff:ff:ff promiscuity 0 minmtu 1280\n"
        "    vrf table 10 addrgenmode eui64 numtxqueues 1 numrxqueues 1 gso_max_size 65536\n"
    )
    record = {"ifindex": 5, "ifname": "red", "flags": ["UP"], "linkinfo": {"info_kind": "vrf"}}
    record["linkinfo"]["info_data"] = {"table": 10}  # type: ignore[index]
    for data in (text.encode(), json.dumps([record]).encode()):
        (link,) = iproute.links(data)
        assert (link.kind, link.vrf_table) == ("vrf", "10")


def test_the_pods_link_of_tp06() -> None:
    (link,) = iproute.links(sample(TP06 + "pod/ip-a"))
    assert link == Link(
        index=24, name="eth0", mac="a6:c6:93:71:26:19", mtu=1500, peer_index=25, netns_id=0,
        qdisc="noqueue",
    )  # fmt: skip


def test_an_excerpt_of_the_node_of_tp06() -> None:
    data = sample(TP06 + "node/ip-a-grep")
    (link,) = iproute.links(data)
    assert (link.name, link.peer_index, link.mac) == (
        "lxcf4cd39e34601",
        24,
        "f6:93:7d:11:4d:37",
    )
    assert link.netns_name == "cni-17945243-a306-236e-f504-5197df7b88d9"
    (found,) = iproute.addresses(data)
    assert found == InterfaceAddress(
        "lxcf4cd39e34601", ip_address("fe80::f493:7dff:fe11:4d37"), 64, "link"
    )
    assert found.span.line == 3


def test_lines_of_a_block_without_its_first_line_belong_to_nothing() -> None:
    whole = ip("addr").decode().splitlines()
    start = next(at for at, text in enumerate(whole) if "inet 10.9.0.1" in text)
    excerpt = "\n".join([whole[0], "--", *whole[start - 1 : start + 1]]).encode()
    assert iproute.addresses(excerpt) == ()
    assert [link.name for link in iproute.links(excerpt)] == ["lo"]


def test_names_with_an_at_sign_and_peers_that_are_none() -> None:
    flags = "<UP> mtu 1480 qdisc noop"
    data = f"2: tunl0@NONE: {flags}\n    link/ipip 0.0.0.0 brd 0.0.0.0\n3: a@b@if9: {flags}\n"
    none, odd = iproute.links(data.encode())
    assert (none.name, none.peer_index, none.peer_name, none.mac) == ("tunl0", None, "", "")
    assert (odd.name, odd.peer_index) == ("a@b", 9)


def test_a_device_may_be_called_like_a_word_of_the_line() -> None:
    data = b"2: mtu: <UP> mtu 1400 qdisc noqueue master mtu state UP group default\n"
    (link,) = iproute.links(data)
    assert (link.name, link.mtu, link.master) == ("mtu", 1400, "mtu")


def test_empty_objects_of_a_filtered_listing_are_skipped() -> None:
    filtered = b"[{}," + ip("j-addr-show-dev-d0")[1:]
    assert [link.name for link in iproute.links(filtered)] == ["d0"]
    assert len(iproute.addresses(filtered)) == 5


def test_addresses_of_a_pod() -> None:
    data = ip("addr", "native-pod-client")
    found = iproute.addresses(data)
    assert found[2] == InterfaceAddress("eth0", ip_address("10.244.1.53"), 32)
    assert line_at(data, found[2].span.line).strip().startswith("inet 10.244.1.53/32")
    assert [one.scope for one in found] == ["host", "host", "global", "link"]


def test_text_and_json_give_equal_addresses() -> None:
    text = iproute.addresses(ip("addr"))
    assert text == iproute.addresses(ip("j-addr"))
    peers = {str(one.address): one.prefix_length for one in text}
    assert peers["10.8.0.1"] == 30  # `inet 10.8.0.1 peer 10.8.0.2/30`
    assert peers["fd00:1::1"] == 64


def test_busybox_prints_the_same_links_and_addresses() -> None:
    data = ip("addr", program="busybox-1.35.0")
    links = {link.name: link for link in iproute.links(data)}
    # It prints lxc1@lxc1: the peer's index, 2, is lxc1's own in this namespace.
    assert (links["lxc1"].peer_index, links["lxc1"].peer_name) == (2, "")
    assert links["cilium_net"].peer_name == "cilium_host"
    ours = {(one.device, one.address) for one in iproute.addresses(ip("addr"))}
    assert {(one.device, one.address) for one in iproute.addresses(data)} == ours


@pytest.mark.parametrize(
    ("command", "version"),
    [("route", 4), ("6-route", 6), ("route-show-table-all", 4)],
)
def test_text_and_json_give_equal_routes(command: str, version: int) -> None:
    text = iproute.routes(ip(command), version)
    assert len(text) > 10
    assert text == iproute.routes(ip(f"j-{command}"), version)


def test_details_do_not_change_the_routes() -> None:
    plain, details = iproute.routes(ip("route")), iproute.routes(ip("d-route"))
    assert [replace(route, scope="") for route in plain] == [
        replace(route, scope="") for route in details
    ]
    assert details[0].scope == "global"


def test_the_routes_of_a_pod() -> None:
    data = ip("route", "native-pod-client")
    assert iproute.routes(data) == (
        Route(V4, ip_address("10.244.1.114"), "eth0", mtu=1500),
        Route(ip_network("10.244.1.114/32"), None, "eth0", scope="link"),
    )
    assert [route.span.line for route in iproute.routes(data)] == [1, 2]


def test_every_kind_of_route() -> None:
    data = ip("route-show-table-all")
    routes = iproute.routes(data)
    by = {(route.table, str(route.destination)): route for route in routes}
    assert by["200", "0.0.0.0/0"] == Route(V4, None, "d0", "200", scope="link")
    assert by["main", "0.0.0.0/0"].mtu == 1450
    assert by["main", "1.2.3.4/32"].mtu == 1400  # `mtu lock 1400`
    assert by["main", "1.2.3.4/32"].advmss == 1000
    assert by["main", "10.30.0.0/16"] == Route(
        ip_network("10.30.0.0/16"), None, "", type="blackhole", metric=5
    )
    assert by["main", "10.40.0.0/16"].gateway == ip_address("fd00::9")  # `via inet6`
    assert by["main", "fd01::/32"].source == ip_network("fd00::/64")
    assert by["local", "10.9.0.1/32"].type == "local"
    hops = [route for route in routes if route.destination == ip_network("10.20.0.0/16")]
    assert [str(hop.gateway) for hop in hops] == ["10.9.0.2", "10.9.0.3"]
    assert [line_at(data, hop.span.line).split()[0] for hop in hops] == ["nexthop", "nexthop"]


def test_a_default_tells_its_own_family() -> None:
    defaults = [
        r for r in iproute.routes(ip("route-show-table-all")) if r.destination.prefixlen == 0
    ]
    assert [route.destination.version for route in defaults] == [4, 4, 6, 6]
    rfc5549 = b"default via inet6 fe80::1 dev eth0\n"
    assert iproute.routes(rfc5549)[0].destination == V4
    assert iproute.routes(b"default dev eth0 scope link\n", 6)[0].destination == V6


def test_old_iproute2_prints_the_type_as_a_bare_word() -> None:
    routes = iproute.routes(sample("iproute2-unknown/cilium-1.9-node2/ip-j-route-show-table-all"))
    assert routes[0] == Route(V4, None, "lo", "2004", "local", scope="host")
    assert {"local", "broadcast", "multicast", "unicast"} <= {route.type for route in routes}


def test_next_hops_have_weights_and_may_be_dead() -> None:
    text = (
        "10.1.0.0/16 tos 0x10 metric 5 \n"
        "\tnexthop via 10.0.0.2 dev d0 weight 2 dead linkdown \n"
        "\tnexthop via 10.0.0.3 dev d1 weight 1 onlink \n"
        "10.2.0.0/16 via 10.0.0.2 dev d0 linkdown \n"
    )
    dead, alive, single = iproute.routes(text.encode())
    assert [(hop.weight, hop.dead, hop.tos) for hop in (dead, alive)] == [
        (2, True, "0x10"),
        (1, False, "0x10"),
    ]
    assert (single.weight, single.dead) == (0, False)


def test_selectors_of_rules() -> None:
    """As iproute2 6.1 prints them."""
    text = (
        b"25:\tfrom all goto 501 [unresolved]\n"
        b"26:\tfrom all goto none\n"
        b"31:\tfrom all ipproto sctp sport 100-200 lookup 100\n"
        b"40:\tfrom all uidrange 1000-2000 lookup 100\n"
        b"55:\tfrom all lookup 100 suppress_ifgroup 5\n"
        b"61:\tfrom all tun_id 7 lookup 100\n"
        b"63:\tfrom all dport 0x50/0xff flowlabel 0x7 lookup 9\n"
    )
    json = (
        b'[{"priority":25,"src":"all","goto":501,"unresolved":null},'
        b'{"priority":26,"src":"all","goto":"none"},'
        b'{"priority":31,"src":"all","ipproto":"sctp","sport_start":100,"sport_end":200,'
        b'"table":"100"},'
        b'{"priority":40,"src":"all","uid_start":1000,"uid_end":2000,"table":"100"},'
        b'{"priority":55,"src":"all","table":"100","suppress_ifgroup":"5"},'
        b'{"priority":61,"src":"all","tun_id":7,"table":"100"}]'
    )
    rules = iproute.rules(text)
    assert iproute.rules(json) == rules[:-1]
    assert [(rule.action, rule.goto) for rule in rules[:2]] == [("goto", 501), ("goto", None)]
    assert (rules[2].protocol, rules[2].source_ports) == (132, (100, 200))
    assert rules[3].users == (1000, 2000)
    assert rules[4].suppress_group == "5"
    assert rules[5].tunnel_id == 7
    assert rules[6].other_selectors == ("dport", "flowlabel")
    assert {rule.version for rule in rules} == {4}
    assert {rule.version for rule in iproute.rules6(json)} == {6}


def test_route_get_has_its_metrics_on_the_second_line() -> None:
    text, json = iproute.routes(ip("route-get-1.2.3.4")), iproute.routes(ip("j-route-get-1.2.3.4"))
    assert text == json
    assert (text[0].mtu, text[0].preferred_source) == (1400, ip_address("10.9.0.1"))


def test_an_encapsulation_has_words_like_ours() -> None:
    # As lwt_print_encap() in iproute2's iproute_lwtunnel.c writes it.
    data = b"10.5.0.0/16  encap ip id 7 src 1.1.1.1 dst 2.2.2.2 ttl 0 tos 0 via 10.0.0.1 dev eth0\n"
    assert iproute.routes(data) == (
        Route(ip_network("10.5.0.0/16"), ip_address("10.0.0.1"), "eth0"),
    )


def test_busybox_routes() -> None:
    ours = {(r.destination, r.device, r.metric, r.type) for r in iproute.routes(ip("route"))}
    data = ip("route", program="busybox-1.35.0")
    theirs = {(r.destination, r.device, r.metric, r.type) for r in iproute.routes(data)}
    assert theirs - ours == {(ip_network("10.20.0.0/16"), "", 0, "unicast")}  # multipath


def test_rules() -> None:
    data = ip("rule")
    rules = {rule.priority: rule for rule in iproute.rules(data)}
    assert rules[0] == Rule(0, "local")
    assert rules[8] == Rule(8, "200", source=ip_network("10.9.0.1/32"))
    assert rules[9] == Rule(9, "2004", mark=0x200, mark_mask=0xF00)
    assert rules[11] == Rule(11, "201", mark=5)
    assert rules[12] == Rule(
        12,
        "202",
        source=ip_network("10.9.0.0/16"),
        destination=ip_network("10.7.0.0/16"),
        in_device="lo",
        out_device="d0",
        inverted=True,
    )
    assert rules[13] == Rule(13, "", action="goto", goto=32766)
    assert rules[14] == Rule(
        14,
        "",
        action="unreachable",
        source=rules[14].source,
        protocol=6,
        source_ports=(5, 5),
        destination_ports=(80, 90),
    )
    assert rules[15] == Rule(15, "", action="blackhole", users=rules[15].users)
    assert rules[15].users == (0, 100)
    assert rules[17] == Rule(17, "main", suppress_prefix=0)
    assert rules[18] == Rule(18, "", action="l3mdev")
    assert rules[19] == Rule(19, "5", in_device="nosuch")
    assert rules[20] == Rule(20, "", action="nop")
    assert line_at(data, rules[9].span.line).startswith("9:")


@pytest.mark.parametrize("command", ["rule", "6-rule"])
def test_text_and_json_give_equal_rules(command: str) -> None:
    assert iproute.rules(ip(command)) == iproute.rules(ip(f"j-{command}"))


def test_rules6() -> None:
    assert iproute.rules(ip("j-6-rule"), 6)[1] == Rule(
        22,
        "2005",
        source=ip_network("fd00::/8"),
        destination=ip_network("fd01::/16"),
        mark=0xF00,
        mark_mask=0xF00,
    )


def test_busybox_rules() -> None:
    rules = {r.priority: r for r in iproute.rules(ip("rule", program="busybox-1.35.0"))}
    assert rules[9] == Rule(9, "2004", mark=0x200, mark_mask=0xF00)
    assert (rules[14].action, rules[14].table) == ("unreachable", "")
    assert rules[16].tos == "16"
    assert rules[32766] == Rule(32766, "main")


def test_neighbours() -> None:
    data = ip("neigh")
    found = {str(one.address): one for one in iproute.neighbours(data)}
    assert found["10.9.0.2"] == Neighbour(
        ip_address("10.9.0.2"), "d0", "aa:bb:cc:dd:ee:ff", ("PERMANENT",)
    )
    assert found["10.9.0.3"].states == ("STALE",)
    assert found["10.9.0.4"] == Neighbour(ip_address("10.9.0.4"), "d0", "", ("FAILED",))
    assert found["fd00::2"].states == ("PERMANENT",)
    assert set(iproute.neighbours(ip("j-neigh"))) == set(found.values())
    assert set(iproute.neighbours(ip("s-neigh"))) == set(found.values())
    assert line_at(data, found["fd00::2"].span.line).startswith("fd00::2")


def test_neighbours_that_are_not() -> None:
    assert iproute.neighbours(ip("j-neigh-show-proxy")) == ()
    assert iproute.neighbours(b"10.9.0.66 dev d0 proxy \n") == ()
    assert {one.device for one in iproute.neighbours(ip("neigh-show-dev-d0"))} == {""}


def test_busybox_neighbours() -> None:
    ours = {(one.address, one.mac) for one in iproute.neighbours(ip("neigh"))}
    busybox = iproute.neighbours(ip("neigh", program="busybox-1.35.0"))
    assert {(one.address, one.mac) for one in busybox} >= {
        pair for pair in ours if str(pair[0]) in ("10.9.0.2", "10.9.0.4", "fd00::2")
    }


@pytest.mark.parametrize("parse", [iproute.links, iproute.addresses, iproute.routes])
def test_nothing_is_nothing(parse: Callable[[bytes], tuple[Any, ...]]) -> None:
    assert parse(b"") == parse(b"\n\n") == parse(b"[]") == parse(b"[ ]\n") == ()


@pytest.mark.parametrize(
    ("parse", "data", "line"),
    [
        (iproute.links, b"what is this\n", 1),
        (iproute.links, b"1: lo: <UP> mtu lots\n", 1),
        (iproute.links, b'[{"ifindex": 1}]', 1),
        (iproute.links, b'[{"ifindex": "x", "ifname": "a"}]', 1),
        (iproute.links, b'{"ifindex": 1}', 0),
        (iproute.addresses, b"1: lo: <UP> mtu 1\n    inet 1.2.3.4/33 scope host lo\n", 2),
        (iproute.addresses, b"1: lo: <UP> mtu 1\n    inet\n", 2),
        (iproute.routes, b"default via 10.0.0.1 dev eth0\nnonsense dev eth0\n", 2),
        (iproute.routes, b"default via\n", 1),
        (iproute.routes, b'[{"gateway": "10.0.0.1"}]', 0),
        (iproute.rules, b"0:\tfrom all lookup local\nfrom all\n", 2),
        (iproute.rules, b"5:\tfrom all\n", 1),
        (iproute.rules, b'[{"src": "all", "table": "main"}]', 1),
        (iproute.neighbours, b"eth0 lladdr\n", 1),
        (iproute.neighbours, b"10.0.0.1 and nothing else\n", 1),
    ],
)
def test_an_unintelligible_record_is_named(
    parse: Callable[[bytes], object], data: bytes, line: int
) -> None:
    with pytest.raises(ParseError) as raised:
        parse(data)
    assert raised.value.line == line
    assert raised.value.source.startswith("ip ")
