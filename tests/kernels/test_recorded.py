"""The same as test_kernels.py, on what a kernel told once; and as an agent would have told it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.encryption import XfrmPolicy
from kubectl_ebpfnet.model.path import Path, Verdict
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from tests.kernels import cluster, recorded
from tests.kernels.expected import EXPECTED, NATIVE, WIREGUARD


@cache
def told() -> dict[str, Any]:
    return recorded.told()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_path_says_what_traffic_showed(name: str) -> None:
    EXPECTED[name].check(told()[name])


def without(name: str, *questions: str, node: str = "") -> Path:
    """The path of a check where some questions of a node, or of both, were not asked."""
    records = {
        place: [
            asked
            for asked in listed
            if node not in ("", place) or not set(asked[0]) & set(questions)
        ]
        for place, listed in told()[name]["records"].items()
    }
    return EXPECTED[name].path({**told()[name], "records": records}, 4)


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.startswith("wireguard_")])
def test_without_peers_the_rules_for_the_usual_packet_decide(name: str) -> None:
    path = without(name, "wireguard-peers")
    if name in ("wireguard_input_blocked", "wireguard_output_blocked"):
        assert path.verdict is Verdict.DROPPED
    else:
        assert path.verdict is Verdict.REACHABLE, path.reason


def test_a_key_needs_both_ends() -> None:
    path = without("wireguard_wrong_key", "wireguard", node="node2")
    assert path.verdict is Verdict.UNKNOWN
    assert "got no handshake answered" in path.reason


@pytest.mark.parametrize(
    "name", ["ipsec_no_state_at_the_receiver", "ipsec_other_spi", "ipsec_other_key"]
)
def test_states_of_one_end_prove_nothing_of_the_other(name: str) -> None:
    path = without(name, "xfrm", node="node2")
    assert path.verdict is Verdict.REACHABLE
    assert any("IPsec of node2 has lost packets" in finding.title for finding in path.findings)


STRICT = {
    **NATIVE,
    "enable-wireguard": "true",
    "enable-encryption-strict-mode-egress": "true",
    "encryption-strict-egress-cidr": "10.244.0.0/16",
}


def test_strict_mode_drops_what_has_no_key() -> None:
    path = cluster.path(told()["wireguard_healthy"], STRICT, key=0)
    assert path.drop is not None
    assert "strict mode of encryption drops it: 10.244.2.20 has no key" in path.drop.by
    assert path.fix is not None
    assert path.fix.command == "cilium-dbg bpf ipcache get 10.244.2.20"


@pytest.mark.parametrize(
    ("changed", "key", "version"),
    [
        ({}, 255, 4),
        ({}, 0, 6),  # strict mode knows no IPv6
        ({"encryption-strict-egress-cidr": "10.245.0.0/16"}, 0, 4),
        ({"enable-encryption-strict-mode-egress": "false"}, 0, 4),
    ],
)
def test_strict_mode_lets_pass_the_rest(changed: dict[str, str], key: int, version: int) -> None:
    path = cluster.path(told()["wireguard_healthy"], {**STRICT, **changed}, version, key=key)
    assert path.verdict is Verdict.REACHABLE, path.reason


def test_the_old_words_of_strict_mode() -> None:
    old = {
        **NATIVE,
        "enable-ipsec": "true",
        "enable-encryption-strict-mode": "true",
        "encryption-strict-mode-cidr": "10.244.0.0/16",
    }
    assert cluster.path(told()["ipsec_healthy"], old, key=0).verdict is Verdict.DROPPED


def test_a_key_that_the_other_nodes_do_not_have_is_said_without_their_peers() -> None:
    records = {
        name: [asked for asked in listed if "wireguard-peers" not in asked[0]]
        for name, listed in told()["wireguard_healthy"]["records"].items()
    }
    settings, ipcache = WIREGUARD
    stale = cluster.path({"records": records}, settings, announced={"node2": "AAAA"}, **ipcache)
    assert stale.verdict is Verdict.UNKNOWN
    assert "CiliumNode node2 announces the WireGuard key AAAA" in stale.reason


def test_with_node_encryption_a_node_sends_its_own_encrypted() -> None:
    settings, ipcache = WIREGUARD
    check = told()["wireguard_healthy"]
    for said, encrypted in (("true", True), ("false", False)):
        path = cluster.path(check, {**settings, "encrypt-node": said}, host=True, **ipcache)
        assert any("encrypted by WireGuard" in hop.summary for hop in path.hops) is encrypted
        assert any("allows it from identity 6 (remote-node)" in hop.summary for hop in path.hops)


VXLAN = '{"index":99,"name":"cilium_vxlan","kind":"vxlan","mac":"02:00:00:00:00:99","mtu":1500}\n'


def edited(name: str, edits: dict[tuple[str, str], Callable[[str], str]]) -> dict[str, Any]:
    """What a check told, with other answers to some questions, by node and question."""
    records: dict[str, Any] = {}
    for place, listed in told()[name]["records"].items():
        records[place] = [
            [argv, code, edits.get((place, argv[-1]), str)(stdout), error]
            for argv, code, stdout, error in listed
        ]
    return {**told()[name], "records": records}


def test_a_peer_without_the_nodes_addresses_encrypts_without_a_tunnel() -> None:
    def without_node(text: str) -> str:
        return text.replace('"172.30.0.12/32",', "").replace('"172.30.0.11/32",', "")

    def with_vxlan(text: str) -> str:
        return text + VXLAN

    settings = {**NATIVE, "routing-mode": "tunnel", "enable-wireguard": "true"}
    nodes = ("node1", "node2")
    links = {(node, "links"): with_vxlan for node in nodes}
    new = cluster.path(edited("wireguard_healthy", {**links}), settings, key=255, tunnel=True)
    old = cluster.path(
        edited(
            "wireguard_healthy", {**links, **{(n, "wireguard-peers"): without_node for n in nodes}}
        ),
        settings,
        key=255,
        tunnel=True,
    )
    assert (new.verdict, old.verdict) == (Verdict.REACHABLE, Verdict.REACHABLE)
    assert any("decapsulated by cilium_vxlan" in hop.summary for hop in new.hops)
    assert not any("decapsulated by cilium_vxlan" in hop.summary for hop in old.hops)


@pytest.mark.parametrize("name", ["wireguard_wrong_key", "wireguard_wrong_port"])
def test_a_fresh_handshake_is_believed(name: str) -> None:
    def shaken(text: str) -> str:
        return text.replace('"port":', '"handshake_age":5,"port":')

    path = EXPECTED[name].path(edited(name, {("node1", "wireguard-peers"): shaken}), 4)
    assert path.hops[-1].packet.outer is None
    assert not any(hop.drops for hop in path.hops)


def test_an_idle_pair_with_an_old_handshake_is_no_fault() -> None:
    def old(text: str) -> str:
        return text.replace('"handshake_age":0', '"handshake_age":86400')

    path = EXPECTED["wireguard_healthy"].path(
        edited("wireguard_healthy", {("node1", "wireguard-peers"): old}), 4
    )
    assert path.verdict is Verdict.REACHABLE
    assert not any("no WireGuard handshake" in finding.title for finding in path.findings)


def test_the_encrypted_packet_passes_the_check_of_its_source() -> None:
    """rp_filter looks at what carries the packet, as it does at a tunnel's."""

    def strict(text: str) -> str:
        return text.replace('conf/eth0/rp_filter","value":0', 'conf/eth0/rp_filter","value":1')

    def elsewhere(text: str) -> str:
        return '{"destination":"172.30.0.11/32","gateway":null,"device":"lxc_web"}\n' + text

    healthy, edits = EXPECTED["wireguard_healthy"], {("node2", "sysctls"): strict}
    assert healthy.path(edited("wireguard_healthy", edits), 4).verdict is Verdict.REACHABLE
    path = healthy.path(edited("wireguard_healthy", {**edits, ("node2", "routes"): elsewhere}), 4)
    assert path.verdict is Verdict.DROPPED
    assert path.drop is not None
    assert (path.drop.node, "rp_filter" in path.reason) == ("node2", True)


def test_a_device_that_is_down_at_the_receiver() -> None:
    def down(text: str) -> str:
        return text.replace('"name":"cilium_wg0"', '"name":"cilium_wg0","up":false')

    path = EXPECTED["wireguard_healthy"].path(
        edited("wireguard_healthy", {("node2", "links"): down}), 4
    )
    assert path.drop is not None
    assert (path.drop.node, path.drop.by) == ("node2", "cilium_wg0 is down")


def test_a_state_to_an_address_of_nobody_leaves_open_which_one_encrypts() -> None:
    def of_others(text: str) -> str:
        return text.replace('"destination":"172.30.0.12"', '"destination":"10.244.2.99"')

    path = EXPECTED["ipsec_healthy"].path(
        edited("ipsec_healthy", {("node1", "xfrm"): of_others}), 4
    )
    assert path.verdict is Verdict.UNKNOWN
    assert "which state of node1 encrypts it is not known" in path.reason


# --- what carries it is a packet of its own at the device by which it leaves ---


def at_node(name: str, node: str, *records: tuple[tuple[str, ...], str]) -> Path:
    """The path of a check where a node told more."""
    told_here = told()[name]
    more = [[list(argv), 0, stdout, ""] for argv, stdout in records]
    listed = {**told_here["records"], node: [*told_here["records"][node], *more]}
    return EXPECTED[name].path({**told_here, "records": listed}, 4)


def egress_chain(name: str, expression: list[Any]) -> Path:
    chain = {"family": "netdev", "table": "t", "name": "out", "type": "filter", "hook": "egress",
             "prio": 0, "policy": "accept", "dev": "eth0"}  # fmt: skip
    rule = {"family": "netdev", "table": "t", "chain": "out", "handle": 2, "expr": expression}
    said = json.dumps({"nftables": [{"chain": chain}, {"rule": rule}]})
    return at_node(name, "node1", (("nft", "-j", "list", "ruleset"), said))


def dropped(field: str, value: int, protocol: str = "udp") -> list[Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return [{"match": {"op": "==", "left": left, "right": value}}, {"drop": None}]


MARKED = {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 0xE00}}


@pytest.mark.parametrize(
    "expression", [dropped("dport", 51871), dropped("dport", 53), [MARKED, {"drop": None}]]
)
def test_wireguard_passes_the_chains_at_the_device_twice(expression: list[Any]) -> None:
    path = egress_chain("wireguard_healthy", expression)
    assert path.verdict is Verdict.DROPPED, path.reason
    assert path.drop is not None
    assert path.drop.node == "node1"
    assert "(egress +0)" in path.drop.by


def test_esp_passes_the_chains_at_the_device_and_what_is_in_it_perhaps() -> None:
    path = egress_chain("ipsec_healthy", dropped("protocol", 50, "ip"))
    assert path.verdict is Verdict.DROPPED, path.reason
    path = egress_chain("ipsec_healthy", dropped("dport", 53))
    assert path.verdict is Verdict.UNKNOWN
    assert "whether it comes to eth0 before IPsec encrypts it is not known" in path.reason


def attached(*programs: tuple[str, str, str, str]) -> tuple[tuple[str, ...], str]:
    found = (
        Attachment(f"clsact/{direction}", device, name, number, protocol=protocol)
        for number, (device, direction, name, protocol) in enumerate(programs, 1)
    )
    return node_argv("attachments"), b"".join(map(codec.line_of, found)).decode()


CILIUMS = (
    ("lxc_client", "ingress", "cil_from_container", ""),
    ("lxc_client", "egress", "cil_to_container", ""),
    ("eth0", "ingress", "cil_from_netdev", ""),
    ("eth0", "egress", "cil_to_netdev", ""),
)


def test_a_foreign_program_at_the_device_sees_what_carries_it_too() -> None:
    path = at_node("wireguard_healthy_over_ipv6", "node1", attached(*CILIUMS))
    assert path.verdict is Verdict.REACHABLE, path.reason
    foreign = ("eth0", "egress", "guard", "ipv6")
    path = at_node("wireguard_healthy_over_ipv6", "node1", attached(foreign, *CILIUMS))
    assert path.verdict is Verdict.UNKNOWN
    assert "at eth0 does with the packet is not known" in path.reason
    (hop,) = (hop for hop in path.hops if hop.summary.startswith("guard"))
    assert hop.packet.outer is not None


def test_a_foreign_program_at_the_device_of_wireguard() -> None:
    foreign = ("cilium_wg0", "egress", "guard", "")
    path = at_node("wireguard_healthy", "node1", attached(foreign, *CILIUMS))
    assert path.verdict is Verdict.UNKNOWN
    assert "at cilium_wg0 does with the packet is not known" in path.reason


def test_without_its_program_at_the_device_nothing_gives_it_to_wireguard() -> None:
    path = at_node("wireguard_healthy", "node1", attached(*CILIUMS[:3]))
    assert not any("encrypted by WireGuard" in hop.summary for hop in path.hops)
    assert path.verdict is Verdict.UNKNOWN
    assert "no program at eth0 gives it to WireGuard" in path.reason
    assert any(
        "not given to WireGuard and so not encrypted" in finding.detail for finding in path.findings
    )


# --- policies of IPsec ---

ANY = ip_network("0.0.0.0/0")
OUT = XfrmPolicy(ANY, ip_network("10.244.2.0/24"), "out", ends=(ip_address("172.30.0.12"),),
                 mark=0x3E00, mark_mask=0xFF00)  # fmt: skip
BLOCK = XfrmPolicy(ANY, ANY, "out", "block", priority=100, mark=0xE00, mark_mask=0xF00)


BACK = replace(OUT, source=OUT.destination, destination=ANY, ends=(ip_address("172.30.0.11"),))
TAKEN = (replace(OUT, destination=ANY, direction="fwd", ends=(), mark=0, mark_mask=0),)


def by_policies(*policies: XfrmPolicy, node: str = "node1") -> Path:
    """The path by IPsec where a node has these policies, and those that answers need."""
    both = [*policies, *(TAKEN if node == "node1" else (BACK,))]
    said = b"".join(map(codec.line_of, both)).decode()
    records = {
        name: [asked for asked in listed if name != node or "xfrm-policies" not in asked[0]]
        for name, listed in told()["ipsec_healthy"]["records"].items()
    }
    records[node].append([list(node_argv("xfrm-policies")), 0, said, ""])
    return EXPECTED["ipsec_healthy"].path({**told()["ipsec_healthy"], "records": records}, 4)


@pytest.mark.parametrize(
    "policies",
    [
        (OUT,),
        (OUT, BLOCK),
        (BLOCK, OUT),
        (replace(OUT, ends=()), BLOCK),
        (replace(OUT, mark_mask=0),),
    ],
)
def test_policies_as_cilium_has_them_encrypt(policies: tuple[XfrmPolicy, ...]) -> None:
    path = by_policies(*policies)
    assert path.verdict is Verdict.REACHABLE, path.reason
    assert any("encrypted by IPsec" in hop.summary for hop in path.hops)


@pytest.mark.parametrize(
    ("policies", "verdict", "words"),
    [
        ((BLOCK,), Verdict.DROPPED, "0.0.0.0/0 → 0.0.0.0/0 (out) blocks it"),
        ((replace(BLOCK, priority=0), replace(OUT, priority=1)), Verdict.DROPPED, "blocks it"),
        ((replace(BLOCK, mark=5, mark_mask=7),), Verdict.UNKNOWN, "which blocks, takes the packet"),
        ((replace(BLOCK, narrowed=True),), Verdict.UNKNOWN, "which blocks, takes the packet"),
        ((replace(OUT, ends=(ip_address("172.30.0.99"),)),), Verdict.UNKNOWN, "to 172.30.0.99"),
        ((replace(OUT, direction="in"),), Verdict.UNKNOWN, "it leaves unencrypted"),
        ((), Verdict.UNKNOWN, "it leaves unencrypted"),
    ],
)
def test_policies_that_lose_it_or_do_not_take_it(
    policies: tuple[XfrmPolicy, ...], verdict: Verdict, words: str
) -> None:
    path = by_policies(*policies)
    assert path.verdict is verdict, path.reason
    assert words in f"{path.cause} {path.reason}"


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ((replace(OUT, direction="fwd", ends=()),), ""),
        ((replace(OUT, direction="in"), replace(BLOCK, direction="fwd")), ""),
        ((replace(BLOCK, direction="fwd"),), "XfrmInPolBlock"),
        ((OUT,), "XfrmInNoPols"),
    ],
)
def test_what_was_decrypted_has_to_be_taken(policies: tuple[XfrmPolicy, ...], words: str) -> None:
    path = by_policies(*policies, node="node2")
    assert path.verdict is (Verdict.UNKNOWN if words else Verdict.REACHABLE), path.reason
    assert words in path.reason
