"""`ebpfnet-node probe`: connections through several next hops, IPv4 and IPv6, TCP and UDP."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from tests.node.netkat import wire as kat_wire
from tests.node.netkat.probe_lan import SERVICE, Lan, lan

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("version", [4, 6])
KNOWN = ("one known", "other known")
EACH = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])


@pytest.fixture(scope="module")
def nodes() -> Iterator[Lan]:
    """Nodes that do everything that can be met; they serve TCP and UDP alike."""
    if why := kat_wire.why_not():
        pytest.skip(why)
    with lan() as made:
        for role in ("answers", "refuses", "rejects", "mute", "forgets", *KNOWN):
            made.has_service(role)
        made.refuses_by_route("unreachable", "unreachable")
        made.refuses_by_route("prohibits", "prohibit")
        made.refuses_by_route("swallows", "blackhole")
        for version, tables in ((4, "iptables"), (6, "ip6tables")):
            # As kube-proxy rejects what has no endpoint.
            made.run("rejects", tables, "-A", "INPUT", "-d", SERVICE[version], "-j", "REJECT")
            made.run("mute", tables, "-A", "OUTPUT", "-s", SERVICE[version], "-j", "DROP")
            for role in ("answers", *KNOWN):
                for udp in (False, True):
                    made.serves(role, version, udp=udp)
        yield made


def said(found: list[ConnectAttempt]) -> list[tuple[str, str]]:
    """Outcomes and details."""
    return [(one.outcome, one.detail) for one in found]


@BOTH
@EACH
def test_each_next_hop_has_an_answer_of_its_own(nodes: Lan, version: int, udp: bool) -> None:
    roles = ("answers", "refuses", "rejects", "mute", "unreachable", "prohibits", "swallows", "?")
    service, here = SERVICE[version], {role: nodes.address(role, version) for role in roles}
    found = nodes.probe(version, *roles, udp=udp)
    closed = "ICMP port unreachable, said by"
    host = "host unreachable" if version == 4 else "no route"
    assert dict(zip(roles, said(found), strict=True)) == {
        "answers": ("connected", ""),
        "refuses": ("refused", f"{closed} {service}" if udp else "TCP RST"),
        "rejects": ("refused", f"{closed} {service}"),
        "mute": ("timeout", "silence for 0.5 s"),
        "unreachable": ("icmp", f"ICMP {host}, said by {here['unreachable']}"),
        "prohibits": ("icmp", f"ICMP communication prohibited, said by {here['prohibits']}"),
        "swallows": ("timeout", "silence for 0.5 s"),
        "?": ("unreachable", f"{here['?']} does not answer ARP or NDP"),
    }
    assert {one.source for one in found} == {ip_address(nodes.address("source", version))}
    assert len({one.source_port for one in found}) == len(roles)
    assert {one.device for one in found} == {"eth0"}
    took = {role: one.seconds or 0 for role, one in zip(roles, found, strict=True)}
    assert all(0 < took[role] < 0.5 for role in ("answers", "refuses", "rejects", "prohibits"))
    assert all(0.5 <= took[role] < 0.95 for role in ("mute", "swallows", "?"))


@BOTH
@EACH
def test_the_backend_tells_the_clients_address(nodes: Lan, version: int, udp: bool) -> None:
    (found,) = nodes.probe(version, "answers", udp=udp, http="/clientip")
    host = f"[{found.source}]" if version == 6 else str(found.source)
    assert found.answer.endswith(f"{host}:{found.source_port}")
    assert found.answer.startswith(host if udp else "HTTP/1.1 200 OK\r\n")


@BOTH
@EACH
def test_a_next_hop_that_is_known_is_not_asked_for(nodes: Lan, version: int, udp: bool) -> None:
    """Frames go to the MAC in the neighbour table, as a load-balancer's do."""
    for role in KNOWN:
        nodes.knows_by_heart(role, version)
    assert said(nodes.probe(version, *KNOWN, udp=udp)) == [("connected", "")] * 2


@BOTH
def test_a_datagram_that_is_lost_is_sent_again(nodes: Lan, version: int) -> None:
    heard = nodes.serves("forgets", version, udp=True, deaf=1)
    (found,) = nodes.probe(version, "forgets", udp=True, wait="5")
    assert found.outcome == "connected"
    assert found.seconds is not None
    assert 1 < found.seconds < 2
    # agnhost takes the spaces off; twelve bytes are the least that a name server looks at.
    assert {word.strip() for word in heard} == {b"clientip"}
    assert [len(word) for word in heard] == [12, 12]


@BOTH
def test_without_a_next_hop_the_hosts_own_way_is_taken(nodes: Lan, version: int) -> None:
    (silent,) = nodes.probe(version)
    assert silent.outcome == "unreachable"
    way = ("route", "add", SERVICE[version], "via", nodes.address("answers", version))
    nodes.run("source", "ip", *way)
    (found,) = nodes.probe(version, http="/clientip")
    assert (found.outcome, found.detail) == ("connected", "")
    assert found.answer.startswith("HTTP/1.1 200")
