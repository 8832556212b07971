"""Devices that take no packets, by the lines that `ip -d link` prints of them."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.explain.kernel.devices import why_down
from kubectl_ebpfnet.parse.iproute.link import links

ETHERNET = "    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff promiscuity 0\n"


def block(index: int, name: str, flags: str, kind: str, more: str = "") -> str:
    """The lines of one device."""
    header = f"{index}: {name}: <BROADCAST,MULTICAST,{flags}> mtu 1500 qdisc noqueue {more}\n"
    return header + ETHERNET + f"    {kind} \n"


UP, DOWN, NO_CARRIER = "UP,LOWER_UP", "M-DOWN", "NO-CARRIER,UP"
BOND = block(4, "bond0", NO_CARRIER, "bond mode 802.3ad")


def port(index: int, flags: str, master: str = "master bond0 ") -> str:
    return block(index, f"ens{index}", flags, "bond_slave", master)


CASES = [
    ("up", block(2, "eth0", UP, "veth"), "eth0", None),
    ("not read", "", "eth0", None),
    ("down", block(2, "eth0", DOWN, "veth"), "eth0", ("eth0 is down", ("eth0",))),
    ("no carrier", block(2, "eth0", NO_CARRIER, "veth"), "eth0",
     ("eth0 has no carrier", ("eth0",))),
    ("a VLAN on a device that is down",
     block(2, "ens2", DOWN, "") + block(3, "ens2.7@ens2", NO_CARRIER, "vlan id 7"), "ens2.7",
     ("ens2.7 has no carrier: ens2 is down", ("ens2",))),
    ("a bond whose ports are down", BOND + port(2, DOWN) + port(3, DOWN), "bond0",
     ("bond0 has no carrier: ens2 is down, ens3 is down", ("ens2", "ens3"))),
    ("a bond with one port that is up has a carrier",
     block(4, "bond0", UP, "bond") + port(2, DOWN) + port(3, UP), "bond0", None),
    ("a VLAN on a bond whose only port has no carrier",
     BOND + port(2, NO_CARRIER) + block(5, "bond0.7@bond0", NO_CARRIER, "vlan id 7"), "bond0.7",
     ("bond0.7 has no carrier: bond0 has no carrier: ens2 has no carrier", ("ens2",))),
    ("the other end of a veth in this namespace",
     block(2, "a@b", NO_CARRIER, "veth") + block(3, "b@a", DOWN, "veth"), "a",
     ("a has no carrier: b is down", ("b",))),
    ("a bond without carrier though its ports are up",
     BOND + port(2, UP), "bond0", ("bond0 has no carrier", ("bond0",))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "right"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_why_a_device_takes_no_packets(
    text: str, name: str, right: tuple[str, tuple[str, ...]] | None
) -> None:
    down = why_down(links(text.encode()), name)
    assert (None if down is None else (down.what, down.causes)) == right


def test_a_capture_may_name_devices_in_a_circle() -> None:
    ring = "".join(
        port(number, NO_CARRIER, f"master ens{1 + (number + step) % 40} ")
        for number in range(1, 41)
        for step in range(40)
    )
    down = why_down(links(ring.encode()), "ens1")
    assert down is not None
    assert len({link.name for link in down.links}) == len(down.links)


def test_both_ends_of_a_veth_without_carrier_are_named_once() -> None:
    pair = block(2, "a@b", NO_CARRIER, "veth") + block(3, "b@a", NO_CARRIER, "veth")
    down = why_down(links(pair.encode()), "a")
    assert down is not None
    assert down.what == "a has no carrier: b has no carrier"
