"""Sizes, MACs and devices between nodes, broken for real: from pod client on node1 to client3.

Each fault is first seen to break the traffic, then looked for in the answer, then undone. They
meet what others send to node3, so they run alone, and are short.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.cluster.config import NODES, WORLD_NETNS, WORLD_NODE_ADDRESS
from tests.lab.cluster.tools.live import Answer, address, changed, in_node, in_pod, path
from tests.lab.conftest import Lab, wait_until

NEAR, FAR = NODES[0], NODES[2]
FAR_POD = "client3"


def ip(netns: str, *words: str) -> list[str]:
    return ["ip", "-n", netns, *words]


def fits(lab: Lab, size: int) -> bool:
    """Whether a packet of this size with DF set is answered."""
    words = ("ping", "-c1", "-W0.5", "-M", "do", "-s", str(size - 28), address(lab, FAR_POD))
    return lab.kubectl("exec", "client", "--", *words).returncode == 0


def ask(lab: Lab, *more: str) -> Answer:
    return path(lab, "pod/client", f"pod/{FAR_POD}", "--protocol", "icmp", *more)


def sizes(answer: Answer) -> list[str]:
    return [title for title in answer.titles if " bytes " in title]


def test_a_receiver_that_takes_less_than_the_pods_send(our_lab: Lab) -> None:
    device = ip(FAR.netns, "link", "set", "eth0", "mtu")
    with changed([*device, "1300"], [*device, "1500"]):
        # A veth has room for a VLAN tag beyond its MTU.
        assert (fits(our_lab, 1304), fits(our_lab, 1305)) == (True, False)
        large = ask(our_lab, "--size", "1305")
        assert fits(our_lab, 1304)  # the newest attempt is one that is answered
        small = ask(our_lab, "--size", "1304")
    lost = "packets of more than 1300 bytes are lost in silence: eth0 of node node3 (MTU 1300)"
    assert lost in small.titles
    assert small.code == 0
    mtu = small.document["mtu"]
    assert (mtu["fits"], mtu["limited_by"], mtu["node"], mtu["pod"]) == (
        1300,
        "eth0",
        "node3",
        1500,
    )
    assert (large.code, large.document["drop"]["node"]) == (3, "node3")
    assert large.document["drop"]["object"] == "eth0 of node node3"


def test_a_route_of_the_node_with_an_mtu_of_its_own(our_lab: Lab) -> None:
    route = ip(NEAR.netns, "route")
    one = (address(our_lab, FAR_POD), "via", FAR.address, "dev", "eth0", "mtu", "1200")
    with changed([*route, "add", *one], [*route, "del", *one]):
        assert not fits(our_lab, 1201)
        large = ask(our_lab, "--size", "1201")
        assert fits(our_lab, 1200)  # the newest attempt is one that is answered
        small = ask(our_lab)
    in_pod("client", "ip", "route", "flush", "cache")  # it has learned 1200
    assert "node1 drops it and tells the sender by ICMP" in large.document["reason"]
    assert (large.code, small.code) == (3, 0)
    assert small.document["mtu"]["fits"] == 1200
    assert small.document["mtu"]["limited_by"].startswith("the route to ")


def test_a_wrong_mac_for_the_other_node(our_lab: Lab) -> None:
    neighbour = ip(NEAR.netns, "neigh")
    entry = (FAR.address, "dev", "eth0")
    wrong = (*entry, "lladdr", "02:00:00:00:be:ef", "nud", "permanent")
    with changed([*neighbour, "replace", *wrong], [*neighbour, "del", *entry]):
        assert not fits(our_lab, 100)
        answer = ask(our_lab)
    assert answer.code == 3, answer.document["reason"]
    assert answer.document["drop"]["object"] == f"neighbour {FAR.address} dev eth0 of node node1"
    assert answer.document["fix"]["command"] == f"ip neigh del {FAR.address} dev eth0"
    assert fits(our_lab, 100)


def test_a_router_that_forwards_to_the_other_node_is_no_fault(our_lab: Lab) -> None:
    neighbour = ip(NEAR.netns, "neigh")
    in_node(NEAR, "ping", "-c1", "-W1", WORLD_NODE_ADDRESS)
    said = in_node(NEAR, "ip", "neigh", "show", WORLD_NODE_ADDRESS).split()
    router = said[said.index("lladdr") + 1]
    entry = (FAR.address, "dev", "eth0")
    proxied = (*entry, "lladdr", router, "nud", "permanent")
    back = ip(WORLD_NETNS, "route")
    pods = (FAR.pod_cidr, "via", FAR.address)
    with (
        changed([*back, "add", *pods], [*back, "del", *pods]),
        changed([*neighbour, "replace", *proxied], [*neighbour, "del", *entry]),
    ):
        assert fits(our_lab, 100)
        answer = ask(our_lab)
    assert answer.code == 0, answer.document["reason"]
    assert not [f for f in answer.document["findings"] if f["severity"] == "error"]


def test_larger_frames_on_one_side_are_no_fault(our_lab: Lab) -> None:
    device = ip(NEAR.netns, "link", "set", "eth0", "mtu")
    with changed([*device, "9000"], [*device, "1500"]):
        assert fits(our_lab, 1500)
        answer = ask(our_lab, "--size", "1500")
    assert (answer.code, sizes(answer)) == (0, [])


@contextmanager
def cut_off(pod: str) -> Iterator[None]:
    """A pod whose own device is down; its routes go with it, and come back."""
    routes = in_pod(pod, "ip", "route").splitlines()
    in_pod(pod, "ip", "link", "set", "eth0", "down")
    try:
        yield
    finally:
        in_pod(pod, "ip", "link", "set", "eth0", "up")
        for route in reversed(routes):  # that to the gateway before those by it
            in_pod(pod, "ip", "route", "add", *route.split())


def test_the_far_pods_own_device_is_down(our_lab: Lab) -> None:
    with cut_off(FAR_POD):
        assert not fits(our_lab, 100)
        answer = ask(our_lab)
    assert answer.code == 3, answer.document["reason"]
    assert answer.document["drop"]["node"] == "node3"
    assert "has no carrier" in answer.document["drop"]["by"]
    assert wait_until(lambda: fits(our_lab, 100))
