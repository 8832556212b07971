"""What rtnetlink says to us and to iproute2: the same facts, in namespaces of our own."""

from __future__ import annotations

import errno
import itertools
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink import NETLINK_ROUTE, NLM_F_DUMP
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_GETLINK, RTM_NEWLINK, RTM_NEWRULE

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.kernel import FibAnswer, InterfaceAddress, Link, Neighbour, Route, Rule
from kubectl_ebpfnet.model.net import protocol_number
from kubectl_ebpfnet.model.node_facts import NODE_FACTS
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import links as netlink_links
from kubectl_ebpfnet.node.netlink import names as netlink_names
from kubectl_ebpfnet.node.netlink import rtnetlink, tables, transport
from kubectl_ebpfnet.node.server import registry
from kubectl_ebpfnet.parse import iproute
from tests.network_namespaces import Namespace, why_not
from tests.node.bpf import bpf_programs as bpf
from tests.node.netlink.netlink_namespace import learn_path_mtu, many_addresses, namespace

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(why_not()), reason=f"cannot make a network namespace: {why_not()}"),
]
_DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def made() -> Iterator[Namespace]:
    with namespace() as one:
        yield one


def ours(made: Namespace, name: str, *words: str) -> tuple[Any, ...]:
    with netns.inside(made.path):
        return tuple(registry.function(name)(NodeRequest(1, node_argv(name, *words))))


def ip_links(made: Namespace) -> tuple[Any, ...]:
    return iproute.links(made.run("ip", "-j", "-d", "link"))


def ip_addresses(made: Namespace) -> tuple[Any, ...]:
    return iproute.addresses(made.run("ip", "-j", "addr"))


def ip_routes(made: Namespace) -> tuple[Any, ...]:
    words = ("route", "show", "table", "all")
    return (
        *iproute.routes(made.run("ip", "-j", "-4", *words)),
        *iproute.routes(made.run("ip", "-j", "-6", *words), 6),
    )


def ip_rules(made: Namespace) -> tuple[Any, ...]:
    return (
        *iproute.rules(made.run("ip", "-j", "rule")),
        *iproute.rules(made.run("ip", "-j", "-6", "rule"), 6),
    )


def ip_neighbours(made: Namespace) -> tuple[Any, ...]:
    return iproute.neighbours(made.run("ip", "-j", "neigh"))


def test_all_that_is_compared_could_be_made(made: Namespace) -> None:
    if made.missing:
        pytest.skip(f"this kernel lacks some of it: {made.missing}")


@pytest.mark.parametrize(
    ("name", "theirs", "kind"),
    [
        ("links", ip_links, Link),
        ("addresses", ip_addresses, InterfaceAddress),
        ("routes", ip_routes, Route),
        ("rules", ip_rules, Rule),
        ("neighbours", ip_neighbours, Neighbour),
    ],
)
def test_iproute2_says_the_same(
    made: Namespace, name: str, theirs: Callable[[Namespace], tuple[Any, ...]], kind: type
) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while True:  # neighbours change their state by themselves: compare when they did not meanwhile
        before, facts, after = theirs(made), ours(made, name), theirs(made)
        if before == after or time.monotonic() > deadline:
            break
    assert list(facts) == list(before)
    assert facts
    assert all(isinstance(fact, kind) for fact in facts)


@pytest.mark.parametrize("name", ["links", "addresses", "routes", "rules", "neighbours"])
def test_facts_come_back_from_their_lines(made: Namespace, name: str) -> None:
    facts = ours(made, name)
    lines = map(codec.line_of, facts)
    assert [codec.fact(line, NODE_FACTS[name]) for line in lines] == list(facts)


def test_the_namespace_has_what_the_comparison_is_about(made: Namespace) -> None:
    # So that two listings that are wrong in the same way are not taken for equal.
    links = {link.name: link for link in ours(made, "links")}
    assert links["far0"].netns_id is not None
    assert links["far0"].peer_index
    assert (links["d0"].peer_name, links["d0"].netns_id) == ("d1", None)
    assert (links["vx0"].tunnel_port, links["vx0"].tunnel_external) == (8472, True)
    assert (links["vx1"].tunnel_port, links["vx1"].tunnel_external) == (4789, False)
    assert (links["br0p"].master, links["br0p"].mtu) == ("br0", 1400)
    assert not links["down0"].up
    routes = ours(made, "routes")
    assert len([one for one in routes if str(one.destination) == "10.20.0.0/16"]) == 2
    assert {"blackhole", "unreachable", "prohibit", "throw", "local"} <= {r.type for r in routes}
    assert {"main", "local", "200", "2005"} <= {route.table for route in routes}
    rules = ours(made, "rules")
    assert any(rule.suppress_prefix == 0 for rule in rules)
    assert any(rule.suppress_group == "4" for rule in rules)
    assert any(rule.tos == "0x10" for rule in rules)
    assert any(rule.users == (70000, 70001) for rule in rules)
    assert any(rule.protocol == 6 and rule.source_ports == (5, 5) for rule in rules)
    assert any(rule.destination_ports == (80, 90) for rule in rules)
    assert any(route.tos == "0x10" for route in routes)
    assert [r.weight for r in routes if str(r.destination) == "10.20.0.0/16"] == [1, 5]
    states = {state for one in ours(made, "neighbours") for state in one.states}
    assert {"PERMANENT", "FAILED", "REACHABLE", "STALE"} <= states


def test_rules_of_the_two_families_can_be_told_apart(made: Namespace) -> None:
    versions = [rule.version for rule in ours(made, "rules")]
    assert versions == sorted(versions)
    assert set(versions) == {4, 6}


def test_learned_path_mtus_are_no_routes(made: Namespace) -> None:
    learn_path_mtu(made)
    routes = ours(made, "routes")
    assert list(routes) == list(ip_routes(made))
    assert not [one for one in routes if str(one.destination) == "10.67.0.5/32"]
    (answer,) = ours(made, "fib", "10.67.0.5")
    assert answer.mtu == 1300


def test_a_socket_is_of_the_namespace_of_its_thread(made: Namespace) -> None:
    inside, go = [], threading.Event()

    def look() -> None:
        with netns.inside(made.path):
            go.wait(_DEADLINE_S)
            inside.extend(link.name for link in registry.function("links")(NodeRequest(1, ())))

    thread = threading.Thread(target=look)
    thread.start()
    here = {link.name for link in registry.function("links")(NodeRequest(1, ()))}
    go.set()
    thread.join(_DEADLINE_S)
    assert inside == [link.name for link in ip_links(made)]
    assert here == set(iproute_names_here())
    assert "vx1" not in here


def iproute_names_here() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir() if path.is_dir()]


FIB = [
    "10.9.0.2",
    "10.9.0.1",
    "8.8.8.8",
    "8.8.8.8 from 10.9.0.1",
    "8.8.8.8 from 10.9.0.77 iif d0",
    "10.50.1.1",
    "10.50.1.1 mark 0x200",
    "10.51.1.1 mark 5",
    "10.51.1.1 mark 4",
    "10.30.1.1",
    "10.31.1.1",
    "10.32.1.1",
    "10.33.1.1",
    "10.40.1.1",
    "10.20.1.1",
    "1.2.3.4",
    "10.60.1.1",
    "10.66.0.2",
    "10.7.7.7",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1 ipproto udp dport 53",
    "192.0.2.1 ipproto udp dport 54",
    "192.0.2.1 ipproto tcp sport 1 dport 53",
    "10.9.0.1 from 10.66.0.2 iif far0",
    "8.8.8.8 from 10.66.0.2 iif far0 mark 7",
    "8.8.8.8 from 10.66.0.2 iif far0 mark 5 ipproto tcp sport 40000 dport 443",
    "8.8.8.8 from 127.0.0.1 iif far0",
    "8.8.8.8 from 172.16.0.1",
    "fd00::2",
    "fd00::1",
    "fd02::1",
    "fd04::1",
    "fd06::1",
    "fd01::1 from fd00::1",
    "fd01::1 from fd00::1 mark 0xf00",
    "fd99::1",
    "fd66::2 from fd00::5 iif d0",
    "2001:db8::1 ipproto udp dport 53",
    "2001:db8::1 ipproto tcp dport 53",
    "::1",
]


@pytest.mark.parametrize("words", FIB)
def test_iproute2_gets_the_same_route(made: Namespace, words: str) -> None:
    (answer,) = ours(made, "fib", *words.split())
    assert answer.destination == ip_address(words.split()[0])
    argv = ("ip", "-j", "route", "get", *words.split())
    made_of = made.run("sh", "-c", '"$@" 2>&1 || true', "sh", *argv)
    try:
        document = json.loads(made_of)
    except ValueError:
        said = made_of.decode().strip().partition("\n")[0]
        assert said == f"RTNETLINK answers: {answer.error.partition(':')[0]}"
        assert (answer.type, answer.device, answer.table) == ("", "", "")
        return
    (route,) = iproute.routes(json.dumps(document).encode(), answer.destination.version)
    assert (answer.type, answer.gateway, answer.device, answer.preferred_source, answer.mtu) == (
        route.type, route.gateway, route.device, route.preferred_source, route.mtu,
    )  # fmt: skip
    assert answer.table == document[0].get("table", "main")
    assert bool(answer.error) == ("error" in document[0])


@pytest.mark.parametrize(
    ("words", "table"), [("8.8.8.8 from 10.9.0.1", "200"), ("10.50.1.1 mark 0x200", "2005")]
)
def test_rules_decide_the_table(made: Namespace, words: str, table: str) -> None:
    (answer,) = ours(made, "fib", *words.split())
    assert (answer.table, answer.error) == (table, "")


def test_an_answer_says_what_was_asked(made: Namespace) -> None:
    words = "8.8.8.8 from 10.66.0.2 iif far0 mark 0x7 ipproto tcp sport 40000 dport 443"
    (answer,) = ours(made, "fib", *words.split())
    assert (answer.source, answer.in_device, answer.mark) == (
        ip_address("10.66.0.2"), "far0", 7,
    )  # fmt: skip
    asked = (answer.protocol, answer.source_port, answer.destination_port)
    assert asked == (protocol_number("tcp"), 40000, 443)
    assert codec.fact(codec.line_of(answer), FibAnswer) == answer


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "fib DEST"),
        ("8.8.8.8 from", "fib DEST"),
        ("8.8.8.8 via 1.1.1.1", "fib DEST"),
        ("8.8.8.8 mark 1 mark 2", "fib DEST"),
        ("8.8.8", "not an IP address"),
        ("fe80::1%lo", "not an IP address"),
        ("8.8.8.8 from fd00::1", "different IP versions"),
        ("8.8.8.8 iif nosuch", "no device nosuch"),
        ("8.8.8.8 mark x", "mark 'x' is not a number"),
        ("8.8.8.8 mark 0x1ffffffff", "is not a number from 0 to"),
        ("8.8.8.8 ipproto nothing", "no IP protocol"),
        ("8.8.8.8 ipproto 999", "no IP protocol"),
        ("8.8.8.8 ipproto tcp dport 65536", "is not a number from 0 to 65535"),
    ],
)
def test_other_words_are_refused(made: Namespace, words: str, says: str) -> None:
    with pytest.raises(KernelError, match=says):
        ours(made, "fib", *words.split())


def test_a_protocol_that_the_kernel_takes_none_of_is_unsupported(made: Namespace) -> None:
    with pytest.raises(Unsupported, match="IP protocol 99"):
        ours(made, "fib", "8.8.8.8", "ipproto", "99")


def test_a_listing_that_was_interrupted_is_asked_again(
    made: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = rtnetlink.answers

    def interrupted(*words: Any) -> Iterator[transport.Answer]:
        asked.append(1)
        yield from list(real(*words))[len(asked) < 3 :]
        if len(asked) < 3:
            raise transport.changed("list links")

    monkeypatch.setattr(rtnetlink, "answers", interrupted)
    assert list(ours(made, "links")) == list(ip_links(made))
    assert len(asked) == 3


def test_the_kernel_says_when_a_table_changes_while_it_is_read() -> None:
    stop = threading.Event()
    with many_addresses(1500) as made:

        def change() -> None:
            with netns.inside(made.path):
                for command in itertools.cycle(("add", "del")):
                    if stop.is_set():
                        return
                    made.run("ip", "addr", command, "10.77.0.1/32", "dev", "lo")

        thread = threading.Thread(target=change)
        thread.start()
        try:
            with netns.inside(made.path):
                interrupted, deadline = False, time.monotonic() + _DEADLINE_S
                while not interrupted and time.monotonic() < deadline:
                    try:
                        list(
                            transport.answers(NETLINK_ROUTE, RTM_GETADDR, NLM_F_DUMP, bytes(8), "")
                        )
                    except KernelError as error:
                        interrupted = error.errno == errno.EINTR
                try:
                    facts = ours(made, "addresses")
                except KernelError:  # it never stood still, which is said: see the next tests
                    return
        finally:
            stop.set()
            thread.join(_DEADLINE_S)
            assert interrupted
    assert len({one.address for one in facts if str(one.address) != "10.77.0.1"}) == 1500


def test_names_of_tables_come_from_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "iproute2"
    (folder / "rt_tables.d").mkdir(parents=True)
    (folder / "rt_tables").write_text("# comment\n200\tegress # why\n0x1F hexa\nnonsense\n")
    (folder / "rt_tables.d" / "x.conf").write_text("201 more\nx y\n")
    (folder / "rt_tables.d" / "README").write_text("202 not\n")
    monkeypatch.setattr(netlink_names, "_FOLDERS", (tmp_path, tmp_path / "none"))
    names = netlink_names.names("rt_tables")
    assert (names[200], names[31], names[201], names[254]) == ("egress", "hexa", "more", "main")
    assert 202 not in names


def test_an_xdp_program_is_told(made: Namespace) -> None:
    with ExitStack() as stack, netns.inside(made.path):
        program = bpf.load(stack, bpf.XDP, "xdp_pass", 2)
        try:
            bpf.link(stack, program, index_of(made, "d1"), bpf.AT_XDP, bpf.XDP_GENERIC)
        except OSError as error:
            pytest.skip(f"no XDP on a veth here: {error}")
        links = ours(made, "links")
        assert list(links) == list(ip_links(made))
        (found,) = [link.xdp_program for link in links if link.name == "d1"]
        assert found == bpf.id_of(program)


def index_of(made: Namespace, device: str) -> int:
    return next(link.index for link in ip_links(made) if link.name == device)


def decoded(type: int, head: bytes, *attributes: tuple[int, bytes]) -> Any:
    """A message of the kernel, as pyroute2 decodes it."""
    body = head + joined(*attributes)
    data = struct.pack("=IHHII", 16 + len(body), type, 0, 1, 0) + body
    return rtnetlink._decoded(data, 16, len(data))


def joined(*attributes: tuple[int, bytes]) -> bytes:
    return b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )


@pytest.mark.parametrize(
    ("kind", "data", "port", "external"),
    [
        ("geneve", ((5, b"\x17\xc1"), (6, b"")), 6081, True),
        ("geneve", ((5, b"\x17\xc1"),), 6081, False),
        ("vxlan", ((15, b"\x21\x18"), (25, b"\1")), 8472, True),
        ("vxlan", ((15, b"\x21\x18"), (25, b"\0")), 8472, False),
        ("gre", ((5, b"\x17\xc1"),), None, False),
        ("netkit", ((1, b"\0\0\0\0"),), None, False),
    ],
)
def test_tunnels(
    kind: str, data: tuple[tuple[int, bytes], ...], port: int | None, external: bool
) -> None:
    """Of the kinds that this machine may have no module for; numbers are if_link.h's."""
    info = joined((1, kind.encode() + b"\0"), (2, joined(*data)))
    head = struct.pack("=BxHiII", 0, 1, 5, 1, 0)
    message = decoded(RTM_NEWLINK, head, (3, b"t\xffn\0"), (18, info))
    found = netlink_links._link(message, {5: "tun"})
    assert (found.kind, found.tunnel_port, found.tunnel_external) == (kind, port, external)
    assert found.name == "t\ufffdn"


@pytest.mark.parametrize(
    ("value", "mac"),
    [
        ("02aabbccddee", "02:aa:bb:cc:dd:ee"),
        ("0a090001", ""),  # ipip
        ("fd000000000000000000000000000001", ""),  # ip6tnl
        ("000000000000", "00:00:00:00:00:00"),
        ("0011223344556677", "00:11:22:33:44:55:66:77"),  # IEEE 802.15.4
        ("80000208fe800000000000007cfe900300261b10",
         "80:00:02:08:fe:80:00:00:00:00:00:00:7c:fe:90:03:00:26:1b:10"),  # InfiniBand
        ("", ""),  # a tun device
    ],
)  # fmt: skip
def test_ip_addresses_are_no_hardware_addresses(value: str, mac: str) -> None:
    head = struct.pack("=BxHiII", 0, 1, 5, 1, 0)
    message = decoded(RTM_NEWLINK, head, (1, bytes.fromhex(value)), (3, b"x\0"))
    assert netlink_links._link(message, {}).mac == mac


def test_a_selector_that_is_not_known_is_named() -> None:
    head = struct.pack("=BBBBBxxBI", 2, 0, 0, 0, 254, 1, 0)
    message = decoded(RTM_NEWRULE, head, (6, b"\5\0\0\0"), (25, b"\1"), (77, b""), (30, b"\1"))
    assert tables._rule(message, {}).other_selectors == ("attribute 77", "dscp")


def test_tables_of_a_later_pyroute2_stay_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later:
        nla_map = (("A", "none"), ("B", "uint8"), ("OURS_OF_2", "its own"))

    rows = (("OURS_OF_2", "ours"), ("OURS_OF_3", "ours"))
    monkeypatch.setattr(rtnetlink, "_ROWS", ((Later, 2, rows),))
    monkeypatch.setattr(rtnetlink, "_AS_BYTES", {})
    for _ in range(2):
        rtnetlink._mend_tables()
        assert Later.nla_map[2:] == (("OURS_OF_2", "its own"), ("OURS_OF_3", "ours"))


def test_a_question_leaves_no_descriptor_and_no_thread(made: Namespace) -> None:
    def remains() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(
            list(Path("/proc/self/task").iterdir())
        )

    before = remains()
    for name in ("links", "addresses", "routes", "rules", "neighbours", "counters"):
        assert ours(made, name)
    assert ours(made, "fib", "10.9.0.2")
    with pytest.raises(KernelError), netns.inside(made.path):
        rtnetlink.get(RTM_GETLINK, "look at a device", index=9999)
    assert remains() == before
