"""What netkat asks of rtnetlink is what iproute2 then shows."""

from __future__ import annotations

import errno
import json
import subprocess

import pytest

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netlink.rtnetlink import change
from tests.node.netkat.wire import Wire

pytestmark = pytest.mark.kernel


def made(wire: Wire, *wanted: changes.Change) -> None:
    """Have them made on the host of the test."""
    with netns.inside(f"/run/netns/{wire.host}"):
        change(wanted)


def shown(wire: Wire, *words: str) -> list[dict[str, object]]:
    """What ip says there."""
    argv = ("ip", "-n", wire.host, "-j", "-d", *words)
    found: list[dict[str, object]] = json.loads(
        subprocess.run(argv, check=True, capture_output=True).stdout
    )
    return found


def index_of(wire: Wire, device: str) -> int:
    """Its ifindex."""
    found = shown(wire, "link", "show", "dev", device)[0]["ifindex"]
    assert isinstance(found, int)
    return found


@pytest.fixture
def device(wire: Wire) -> int:
    """A device of the host that is up and has nothing else."""
    argv = ("ip", "-n", wire.host, "link", "add", "one", "type", "veth", "peer", "name", "two")
    subprocess.run(argv, check=True)
    index = index_of(wire, "one")
    made(wire, *changes.up(index_of(wire, "two")), *changes.up(index, arp=False))
    return index


def test_a_device_is_up_without_an_address_of_its_own(wire: Wire, device: int) -> None:
    assert device
    (link,) = shown(wire, "link", "show", "dev", "one")
    assert {"UP", "NOARP"} <= set(link["flags"])  # type: ignore[call-overload]
    (one,) = shown(wire, "addr", "show", "dev", "one")
    assert one["addr_info"] == []


def test_addresses_and_neighbours(wire: Wire, device: int) -> None:
    mac = bytes.fromhex("0200c0000201")
    made(
        wire, changes.address(device, "192.0.2.9"), changes.address(device, "2001:db8::9"),
        changes.neighbour(device, "192.0.2.1", mac), changes.neighbour(device, "2001:db8::1", mac),
    )  # fmt: skip
    (one,) = shown(wire, "addr", "show", "dev", "one")
    found = {row["local"]: row for row in one["addr_info"]}  # type: ignore[attr-defined]
    assert {name: row["prefixlen"] for name, row in found.items()} == {
        "192.0.2.9": 32, "2001:db8::9": 128,
    }  # fmt: skip
    assert found["2001:db8::9"]["nodad"]
    assert not found["2001:db8::9"].get("tentative")
    neighbours = [row for row in shown(wire, "neigh", "show", "dev", "one") if row.get("lladdr")]
    assert {(row["dst"], row["lladdr"], str(row["state"])) for row in neighbours} == {
        ("192.0.2.1", "02:00:c0:00:02:01", "['PERMANENT']"),
        ("2001:db8::1", "02:00:c0:00:02:01", "['PERMANENT']"),
    }


def test_routes_and_rules(wire: Wire, device: int) -> None:
    made(
        wire, changes.address(device, "192.0.2.9"), changes.address(device, "2001:db8::9"),
        changes.route(4, "198.51.100.0/24", "", device, "192.0.2.9", mtu=1400),
        changes.route(4, "203.0.113.1/32", "192.0.2.1", device, "192.0.2.9", table=1007),
        changes.route(4, "203.0.113.2/32", "fe80::1", device, "192.0.2.9", table=1007),
        changes.route(6, "2001:db8:1::/64", "2001:db8::1", device, "2001:db8::9", table=1007),
        changes.rule(4, 7, 1007, 70), changes.rule(6, 7, 1007, 70),
    )  # fmt: skip
    link = next(r for r in shown(wire, "route") if r["dst"] == "198.51.100.0/24")
    assert (link["dev"], link["scope"], link["prefsrc"]) == ("one", "link", "192.0.2.9")
    assert link["metrics"] == [{"mtu": 1400}]
    first, second = shown(wire, "route", "show", "table", "1007")
    assert (first["dst"], first["gateway"]) == ("203.0.113.1", "192.0.2.1")
    assert (second["dst"], second["via"]) == (
        "203.0.113.2", {"family": "inet6", "host": "fe80::1"},
    )  # fmt: skip
    assert "onlink" in first["flags"]  # type: ignore[operator]
    (third,) = shown(wire, "-6", "route", "show", "table", "1007")
    assert (third["dst"], third["gateway"]) == ("2001:db8:1::/64", "2001:db8::1")
    for family in ("-4", "-6"):
        rules = [row for row in shown(wire, family, "rule") if row["priority"] == 70]
        assert [(row["fwmark"], row["table"]) for row in rules] == [("0x7", "1007")]


def test_the_first_that_is_refused_is_told_with_the_kernels_words(wire: Wire, device: int) -> None:
    with pytest.raises(KernelError) as told:
        made(
            wire, changes.address(device, "192.0.2.9"), changes.address(device, "192.0.2.9"),
            changes.route(4, "198.51.100.0/24", "203.0.113.7", 4242, "192.0.2.9"),
            changes.address(device, "192.0.2.10"),
        )  # fmt: skip
    assert told.value.errno == errno.EEXIST
    assert told.value.message.startswith("add address 192.0.2.9: ")
    (one,) = shown(wire, "addr", "show", "dev", "one")
    found = [row["local"] for row in one["addr_info"]]  # type: ignore[attr-defined]
    assert found == ["192.0.2.9", "192.0.2.10"]
    with pytest.raises(KernelError) as told:
        made(wire, changes.route(4, "192.0.2.0/24", "", device, "203.0.113.99"))
    # "Invalid prefsrc address" since Linux 4.16, errno(3)'s words before it.
    assert (told.value.message, told.value.errno) == (
        "add the route to 192.0.2.0/24: Invalid prefsrc address", errno.EINVAL,
    )  # fmt: skip
