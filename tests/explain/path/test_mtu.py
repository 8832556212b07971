"""The largest packet that fits, there and back, and what becomes of a larger one (`--size`).

The recorded clusters: native-iptables routes by netfilter's stack with MTU 1500 everywhere;
vxlan-kpr has pods' routes of MTU 1450 and devices of 1500. node2 sends, node1 has pod web.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.path import PathMtu
from kubectl_ebpfnet.render.path.document import document
from tests.explain.path.changed import NATIVE, VXLAN, Change, changed, dropped_at, swap, without
from tests.explain.path.variants import edit, json_edit

LINKS, ROUTES = "ip -j -d link", "ip -j route show table all"
FAULT = Path(__file__).parents[2] / "faults/v27-mtu"


def ask(
    bundle: Bundle, to: str = "pod/web:8081", protocol: str = "tcp", size: int | None = None
) -> Answer:
    """The answer about one packet; nobody has sent anything to port 8081."""
    there = arguments.destination(to)
    number = arguments.protocol(protocol, there)
    request = arguments.request(arguments.source("client"), there, number, "default", "")
    return explain(replace(request, size=size), bundle)


def mtu(node: str, device: str, value: int) -> Change:
    """A device of a node has another MTU."""

    def edit(links: Any) -> None:
        (link,) = [each for each in links if each["ifname"] == device]
        link["mtu"] = value

    return json_edit(node, LINKS, edit)


def kind(node: str, device: str, name: str) -> Change:
    """A device of a node is of another kind."""

    def edit(links: Any) -> None:
        (link,) = [each for each in links if each["ifname"] == device]
        link["linkinfo"] = {"info_kind": name} if name else {}

    return json_edit(node, LINKS, edit)


def route_mtu(node: str, gateway: str, **metrics: int) -> Change:
    """A route of a node by a gateway has an MTU of its own."""

    def edit(routes: Any) -> None:
        for route in routes:
            if route.get("gateway") == gateway:
                route["metrics"] = [metrics]

    return json_edit(node, ROUTES, edit)


def titles(path: Answer, severity: str = "warning") -> list[str]:
    return [f.title for f in path.findings if f.severity == severity and " bytes " in f.title]


def of(path: Answer) -> PathMtu:
    assert path.mtu is not None
    return path.mtu


def summary(found: PathMtu) -> tuple[int | None, str, str, int | None, str]:
    return found.fits, found.limited_by, found.node, found.pod, str(found.larger)


def test_a_healthy_cluster_has_no_finding_and_tells_what_fits() -> None:
    path = ask(changed(VXLAN))
    assert summary(of(path)) == (1450, "eth0", "node2", 1450, "fragmented")
    back = of(path).back
    assert back is not None
    assert summary(back) == (1450, "eth0", "node1", 1450, "fragmented")
    assert not titles(path) + titles(path, "info")


def test_the_sender_of_a_native_packet_is_told_by_its_node() -> None:
    bundle = changed(NATIVE, mtu("node2", "eth0", 1300))
    path = ask(bundle)
    assert summary(of(path)) == (1300, "eth0", "node2", 1500, "told")
    assert titles(path, "info") == [
        "packets of more than 1300 bytes are dropped, and the sender is told: eth0 of node node2 "
        "(MTU 1300)"
    ]
    dropped = ask(bundle, size=1301)
    assert dropped_at(dropped).node == "node2"
    assert "node2 drops it and tells the sender by ICMP" in dropped.reason
    assert dropped.drop is not None
    assert dropped.drop.object == "eth0 of node node2"
    assert dropped.fix is not None
    assert dropped.fix.command == "ip link set eth0 mtu 1301"
    fits = ask(bundle, size=1300)
    assert fits.verdict == "reachable"
    assert "; 1300 bytes pass each MTU on the way" in fits.reason


def test_a_route_of_the_node_bounds_it_as_a_device_does() -> None:
    bundle = changed(NATIVE, route_mtu("node2", "172.30.0.11", mtu=1200))
    path = ask(bundle)
    assert of(path).fits == 1200
    assert of(path).limited_by == "the route to 10.244.0.0/24 by eth0"
    dropped = ask(bundle, size=1201)
    assert "the route to 10.244.0.0/24 by eth0 takes (MTU 1200)" in dropped.reason
    assert dropped.fix is not None
    assert dropped.fix.command == "ip route show table all | grep 'mtu 1200'"


def test_a_veth_that_receives_loses_what_is_larger_in_silence() -> None:
    bundle = changed(NATIVE, mtu("node1", "eth0", 1300))
    path = ask(bundle)
    assert summary(of(path)) == (1300, "eth0", "node1", 1500, "lost")
    assert titles(path) == [
        "packets of more than 1300 bytes are lost in silence: eth0 of node node1 (MTU 1300)",
        # node1 tells the far pod, over no wire, but on its way back
        "answers of more than 1300 bytes are dropped, and the sender is told: eth0 of node node1 "
        "(MTU 1300)",
    ]
    dropped = dropped_at(ask(bundle, size=1400))
    assert (dropped.node, dropped.kind) == ("node1", "link")
    assert "tells nobody" in dropped.summary


def test_what_a_card_does_with_larger_frames_is_not_known() -> None:
    bundle = changed(NATIVE, mtu("node1", "eth0", 1300), kind("node1", "eth0", ""))
    path = ask(bundle, size=1400)
    assert path.verdict == "unknown"
    assert "whether eth0 of node1 passes 1400 bytes is not known" in path.cause
    assert ask(bundle).verdict == "reachable"
    assert "may be lost in silence" in titles(ask(bundle))[0]


def test_an_answer_to_a_small_packet_proves_nothing_of_a_large_one() -> None:
    bundle = changed(NATIVE, mtu("node1", "eth0", 1300), kind("node1", "eth0", ""))
    assert ask(bundle, "pod/web:8080").verdict == "delivered"
    assert ask(bundle, "pod/web:8080", size=1400).verdict == "unknown"
    lost = ask(changed(NATIVE, mtu("node1", "eth0", 1300)), "pod/web:8080", size=1400)
    assert lost.verdict == "dropped"
    assert lost.contradictions == ()


def test_the_packet_of_a_tunnel_is_fragmented_by_its_sender() -> None:
    bundle = changed(VXLAN, mtu("node2", "eth0", 1400))
    path = ask(bundle, size=1450)
    assert path.verdict == "reachable"
    (hop,) = [hop for hop in path.hops if "fragments" in hop.summary]
    assert hop.summary.startswith("1500 bytes are more than eth0 takes (MTU 1400)")
    assert of(path).fits == 1350
    assert "packets of more than 1350 bytes travel in fragments" in titles(path)[0]


def test_fragments_that_the_receiver_does_not_take_are_lost() -> None:
    bundle = changed(VXLAN, mtu("node2", "eth0", 1400), mtu("node1", "eth0", 1300))
    path = ask(bundle, size=1450)
    assert dropped_at(path).summary.startswith("1400 bytes are more than eth0 takes (MTU 1300)")


def test_bpf_looks_at_no_mtu() -> None:
    """In vxlan-kpr what leaves the cluster passes the stack by: the driver decides."""
    bundle = changed(VXLAN, mtu("node2", "eth0", 1400))
    path = ask(bundle, "1.1.1.1:81", size=1450)
    assert path.verdict == "unknown"
    assert of(path).larger == "unknown"
    back = of(path).back
    assert back is not None
    assert back.pod is None  # what the world sends is not known
    assert ask(bundle, "1.1.1.1:81", size=1400).verdict == "leaves"


def test_the_pod_itself_does_not_send_more_than_its_route_takes() -> None:
    path = ask(changed(VXLAN), size=1451)
    hop = dropped_at(path)
    assert (hop.place, hop.kind) == ("pod", "route")
    assert "1451 bytes are more than the sender's route takes (MTU 1450)" in hop.summary
    assert of(path).pod == 1450


@pytest.mark.parametrize(
    ("at", "device", "value"),
    [("node1", "eth0", 9000), ("node2", "eth0", 9000), ("node2", "cilium_vxlan", 1280)],
)
def test_larger_frames_on_one_side_and_the_tunnels_own_mtu_harm_nobody(
    at: str, device: str, value: int
) -> None:
    path = ask(changed(VXLAN, mtu(at, device, value)), size=1450)
    assert path.verdict == "reachable"
    assert not titles(path) + titles(path, "info")


def test_what_the_far_pod_sends_counts_on_the_way_back_unless_tcp_bounds_it() -> None:
    """v27: Cilium has lowered the MTU of node2's pods since, and not that of node1's."""
    for way in ("agent", "pod"):
        bundle = open_bundle(FAULT / f"{way}.zip")
        path = ask(bundle, "10.44.0.183", "icmp")
        assert titles(path) == [
            "answers of more than 1250 bytes are lost in silence: eth0 of node node2 (MTU 1300, of "
            "which encapsulation takes 50)"
        ]
        assert of(path).fits == 1250
        back = of(path).back
        assert back is not None
        assert summary(back) == (1250, "eth0", "node2", 1450, "lost")
        assert not titles(ask(bundle, "10.44.0.183:80"))


def test_a_segment_size_that_the_far_pod_announces_bounds_the_sender() -> None:
    bundle = changed(NATIVE, mtu("node1", "eth0", 1300))
    assert titles(ask(bundle, protocol="udp", to="pod/web:8081"))
    announced = swap("web", "ip route", "mtu 1500", "mtu 1500 advmss 1200")
    small = changed(NATIVE, mtu("node1", "eth0", 1300), announced)
    assert not [title for title in titles(ask(small)) if title.startswith("packets")]


def test_a_rule_that_clamps_the_segment_size_is_told() -> None:
    rule = "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200\n"
    clamp = edit(
        "node2", "iptables-save -c", lambda text: text.replace("COMMIT", f"{rule}COMMIT", 1)
    )
    path = ask(changed(NATIVE, mtu("node1", "eth0", 1300), clamp))
    assert not titles(path)
    assert "A rule TCPMSS of node2" in next(f.detail for f in path.findings if " bytes " in f.title)


def test_what_was_not_read_is_named() -> None:
    back = of(ask(changed(NATIVE, without("web")))).back
    assert back is not None
    assert back.missing == ("what pod default/web sends",)
    # /proc/net/route tells no MTU
    path = ask(changed(NATIVE, without("client", "ip route")))
    assert of(path).pod is None
    assert of(path).missing == ("what pod default/client sends",)


def test_a_size_is_open_where_a_place_was_not_read() -> None:
    by_link = [without("node1", command) for command in (LINKS, "ip -j addr", "ip -d link")]
    path = ask(changed(NATIVE, *by_link), size=1400)
    assert path.verdict == "unknown"
    assert "the MTU of eth0 of node1 was not read" in path.reason
    assert ask(changed(NATIVE, *by_link)).verdict == "reachable"
    path = ask(changed(NATIVE, without("client", "ip route")), size=1400)
    assert path.verdict == "unknown"
    assert "how large a packet default/client sends as one was not read" in path.reason


def test_the_document_has_it() -> None:
    bundle = changed(VXLAN)
    shown = document(ask(bundle), bundle)["mtu"]
    assert json.loads(json.dumps(shown)) == {
        "fits": 1450, "limited_by": "eth0", "node": "node2", "pod": 1450, "larger": "fragmented",
        "missing": [], "back": {
            "fits": 1450, "limited_by": "eth0", "node": "node1", "pod": 1450,
            "larger": "fragmented", "missing": [], "back": None,
        },
    }  # fmt: skip


@pytest.mark.parametrize("word", ["27", "65536", "-1", "1e3", "1500B", "٣٠٠", "0x40", "9" * 30])
def test_a_size_that_no_packet_has_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="an IP packet with its headers has 28 to 65535 bytes"):
        arguments.size(word)


def test_sizes_that_packets_have_are_read() -> None:
    assert [arguments.size(word) for word in ("", "28", "1500", "65535")] == [None, 28, 1500, 65535]
