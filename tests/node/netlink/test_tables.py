"""What rtnetlink says to us and to iproute2: the same facts, in namespaces of our own."""

from __future__ import annotations

import asyncio
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

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.catalogue import NODE_FACTS
from kubectl_ebpfnet.model.kernel import FibAnswer, InterfaceAddress, Link, Neighbour, Route, Rule
from kubectl_ebpfnet.model.net import protocol_number
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink import dump, tables
from kubectl_ebpfnet.node.netlink import links as netlink_links
from kubectl_ebpfnet.node.netlink import message as nlmsg
from kubectl_ebpfnet.node.server import registry
from kubectl_ebpfnet.parse import iproute
from tests.node.bpf import bpf_programs as bpf
from tests.node.netlink.netlink_namespace import Namespace, many_addresses, namespace, why_not

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
    assert {"suppress_prefixlength", "ipproto", "sport", "dport", "uidrange", "tos"} <= {
        name for rule in rules for name in rule.other_selectors
    }
    states = {state for one in ours(made, "neighbours") for state in one.states}
    assert {"PERMANENT", "FAILED", "REACHABLE", "STALE"} <= states


def test_rules_of_the_two_families_can_be_told_apart(made: Namespace) -> None:
    versions = [rule.version for rule in ours(made, "rules")]
    assert versions == sorted(versions)
    assert set(versions) == {4, 6}


def test_learned_path_mtus_are_no_routes(made: Namespace) -> None:
    made.learn_path_mtu()
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
    real = dump._ask

    async def interrupted(*words: Any) -> Any:
        messages, _ = await real(*words)
        asked.append(len(messages))
        return messages[1:] if len(asked) < 3 else messages, len(asked) < 3

    monkeypatch.setattr(dump, "_ask", interrupted)
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
                    question = dump._ask(dump.GETADDR, 0x301, bytes(8))
                    _, interrupted = asyncio.run(question)
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
    monkeypatch.setattr(dump, "_FOLDERS", (tmp_path, tmp_path / "none"))
    names = dump.names("rt_tables")
    assert (names[200], names[31], names[201], names[254]) == ("egress", "hexa", "more", "main")
    assert 202 not in names


def joined(attributes: dict[int, bytes]) -> bytes:
    return b"".join(nlmsg.attribute(kind, value) for kind, value in attributes.items())


def test_attributes_are_cut_apart() -> None:
    attributes = {1: b"a", 2: b"", 3: b"four", 0x8004: b"fives"}
    data = b"head" + joined(attributes)
    assert dump.attributes_of(data, 4) == {1: b"a", 2: b"", 3: b"four", 4: b"fives"}
    assert dump.attributes_of(b"\0\0\0\0") == {}


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


@pytest.mark.parametrize(
    ("kind", "data", "port", "external"),
    [
        ("geneve", {5: b"\x17\xc1", 6: b""}, 6081, True),
        ("geneve", {5: b"\x17\xc1"}, 6081, False),
        ("vxlan", {15: b"\x21\x18", 25: b"\1"}, 8472, True),
        ("vxlan", {15: b"\x21\x18", 25: b"\0"}, 8472, False),
        ("gre", {5: b"\x17\xc1"}, None, False),
    ],
)
def test_tunnels(kind: str, data: dict[int, bytes], port: int | None, external: bool) -> None:
    """Of the kinds that this machine may have no module for; numbers are if_link.h's."""
    info = joined({1: kind.encode() + b"\0", 2: joined(data)})
    found = netlink_links._link(5, 1, 1, {3: b"tun\0", 18: info}, {5: "tun"})
    assert (found.kind, found.tunnel_port, found.tunnel_external) == (kind, port, external)


@pytest.mark.parametrize(
    ("hardware", "value", "mac"),
    [
        (1, "02aabbccddee", "02:aa:bb:cc:dd:ee"),
        (768, "0a090001", ""),  # ipip
        (769, "fd000000000000000000000000000001", ""),  # ip6tnl
        (772, "000000000000", "00:00:00:00:00:00"),
        (65534, "", ""),  # a tun device
    ],
)
def test_ip_addresses_are_no_hardware_addresses(hardware: int, value: str, mac: str) -> None:
    assert netlink_links.hardware_address(bytes.fromhex(value), hardware) == mac


def test_a_selector_that_is_not_known_is_named() -> None:
    head = struct.pack("=BBBBBxxBI", 2, 0, 0, 0, 254, 1, 0)
    rule = tables._rule(dump.Message(head, {6: b"\5\0\0\0", 25: b"\1", 77: b""}), {})
    assert rule.other_selectors == ("attribute 77", "dscp")
