"""nftables' own tables on a packet's way: recorded clusters, with what a node pod would have read.

The rulesets are in nft's own JSON (tests/parse/samples/nftables-1.0.6 has real ones; the kernel
holds what they mean: tests/node/netlink/test_nft_kernel.py).
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path as Folder
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.explain.kernel.context import Context
from kubectl_ebpfnet.explain.kernel.nft_matches import holds
from kubectl_ebpfnet.explain.path.stages.hook_tables import HookTables
from kubectl_ebpfnet.explain.path.stages.passage import Native
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    InMemory,
    Place,
    Record,
    agent_place,
    bundle_of,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.nft import NftChain
from kubectl_ebpfnet.model.path import HopKind, State, Verdict
from kubectl_ebpfnet.model.path import Path as Answer
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import node_argv
from kubectl_ebpfnet.parse import nft
from tests.explain.path.changed import (
    NATIVE,
    VXLAN,
    ask,
    changed,
    dropped_at,
    finding,
    swap,
)
from tests.explain.path.test_netfilter import TO, rules
from tests.parse.parse_samples import sample

FAULTS = Folder(__file__).parents[2] / "faults"
LIST = ("nft", "-j", "list", "ruleset")
CLIENT, WEB = pod_place("default", "client"), pod_place("default", "web")
DROP = {"drop": None}
Chain = dict[str, Any]


def match(protocol: str, field: str, right: Any) -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": right}}


def state(*words: str) -> dict[str, Any]:
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": list(words)}}


def chain(hook: str, priority: int, *rules: list[Any], **more: Any) -> Chain:
    """A base chain and its rules."""
    base = {"family": "inet", "table": "guard", "name": "c", "type": "filter", "policy": "accept"}
    return {**base, "hook": hook, "prio": priority, "rules": rules, **more}


def ruleset(place: Place, *chains: Chain) -> Record:
    """`nft -j list ruleset` of a place."""
    objects: list[Any] = [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}]
    for each in chains:
        where = {"family": each["family"], "table": each["table"]}
        objects.append({"chain": {k: v for k, v in each.items() if k != "rules"}})
        objects += (
            {"rule": {**where, "chain": each["name"], "handle": handle, "expr": statements}}
            for handle, statements in enumerate(each["rules"], 5)
        )
    return Record(0, place, LIST, 0, InMemory(json.dumps({"nftables": objects}).encode()))


def listed(place: Place, *chains: NftChain) -> Record:
    """`ebpfnet-node nft-chains` of a place."""
    stdout = b"".join(map(codec.line_of, chains))
    return Record(0, place, node_argv("nft-chains"), 0, InMemory(stdout))


def on_node(*chains: Chain, node: str = "node2", to: str = f"{TO}:80") -> Answer:
    """The path of the recorded client, whose node, or another, has these chains."""
    return ask(changed(NATIVE, more=(ruleset(agent_place(node), *chains),)), "client", to)


# --- in the node's hooks --------------------------------------------------------------------------


def test_a_drop_in_a_table_of_nftables_own_names_it_with_its_handle() -> None:
    counted = [match("tcp", "dport", 80), {"counter": {"packets": 7, "bytes": 420}}, DROP]
    path = on_node(chain("prerouting", -450, counted))
    hop = dropped_at(path)
    assert hop.kind is HopKind.RULE
    assert hop.summary == (
        "netfilter drops it by nft inet guard c (prerouting -450) rule 1 tcp dport 80 drop"
    )
    assert path.drop is not None
    assert (path.drop.object, path.drop.node) == ("nft chain inet guard c", "node2")
    assert path.fix is not None
    assert path.fix.command == "nft delete rule inet guard c handle 5"
    assert "It counts 7 packets" in finding(path, "netfilter on node2 drops").detail
    assert '"handle": 5' in hop.evidence[0].excerpt[0]


@pytest.mark.parametrize(
    ("hook", "priority"),
    [("prerouting", -250), ("prerouting", -170), ("prerouting", 0), ("forward", -200),
     ("forward", 300), ("postrouting", 0), ("postrouting", 200)],
)  # fmt: skip
def test_every_place_of_a_forwarded_packet_is_asked(hook: str, priority: int) -> None:
    assert "nft inet guard c" in dropped_at(on_node(chain(hook, priority, [DROP]))).summary


@pytest.mark.parametrize(
    "chains",
    [
        # What firewalld and others have on healthy nodes.
        [
            chain("input", 10, [state("established", "related"), {"accept": None}], policy="drop"),
            chain("forward", 10, [state("new", "established"), {"accept": None}], name="f",
                  policy="drop"),
            chain("prerouting", -140, [{"match": {
                "op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "mark"]}},
                "right": False}}, DROP], name="rp"),
        ],
        [chain("forward", 0, [DROP], family="ip6")],
        [chain("forward", 0, [state("invalid"), DROP])],
        [chain("output", 0, [DROP]), chain("input", 0, [DROP], name="i")],
        [chain("ingress", 0, [DROP], family="netdev", dev="eth9")],
        [chain("forward", 0, [DROP], family="bridge")],
        [],
    ],
)  # fmt: skip
def test_unusual_but_healthy_tables_change_nothing(chains: list[Chain]) -> None:
    path = on_node(*chains)
    without = on_node()
    assert (path.verdict, path.findings) == (Verdict.LEAVES, without.findings)
    assert [(hop.kind, hop.state) for hop in path.hops] == [
        (hop.kind, hop.state) for hop in without.hops
    ]


def test_what_is_not_understood_is_said_and_is_no_drop() -> None:
    limited = [{"limit": {"rate": 5, "per": "second", "inv": True}}, DROP]
    path = on_node(chain("forward", 0, limited))
    assert path.verdict is Verdict.UNKNOWN
    assert "limit of nft inet guard c rule 1 limit rate over 5/second drop" in path.reason
    assert path.fix is not None
    assert path.fix.command == "nft list table inet guard"


def test_chains_that_nobody_could_read_are_undecided_and_none_is_certain() -> None:
    place = agent_place("node2")
    failed = Record(0, place, LIST, 1, InMemory(), b"the node has no nft")
    one = NftChain("inet", "guard", "c", "forward", "filter", 0)
    path = ask(changed(NATIVE, more=(failed, listed(place, one))), "client", f"{TO}:80")
    assert path.verdict is Verdict.UNKNOWN
    assert "chain nft inet guard c at forward could not be read: exit code 1: the" in path.reason
    for harmless in (
        (),
        (NftChain("inet", "guard", "c", "forward", "filter", 0, dormant=True),),
        (NftChain("ip", "filter", "FORWARD", "forward", "filter", 0),),  # iptables' own
        (NftChain("arp", "guard", "c", "input", "filter", 0),),
    ):
        bundle = changed(NATIVE, more=(failed, listed(place, *harmless)))
        assert ask(bundle, "client", f"{TO}:80").verdict is Verdict.LEAVES


GARBLED = [b"", b"{", b'{"nftables": 5}', b'{"nftables": [{"chain": {"hook": "forward"}}]}']


@pytest.mark.parametrize("place", [agent_place("node2"), agent_place("node1"), CLIENT, WEB])
@pytest.mark.parametrize("stdout", GARBLED)
def test_tables_that_were_printed_and_cannot_be_parsed_are_not_presumed(
    stdout: bytes, place: Place
) -> None:
    """Nor did the kernel tell of the chains, which a node pod lists."""
    garbled = Record(0, place, LIST, 0, InMemory(stdout))
    path = ask(changed(NATIVE, more=(garbled,)), "client", "pod/web:8081")
    assert path.verdict is Verdict.UNKNOWN
    assert "nftables' own tables could not be read: " in path.reason


def test_tables_that_nobody_printed_are_presumed() -> None:
    failed = Record(0, agent_place("node2"), LIST, 127, InMemory(), b"nft: not found")
    assert ask(changed(NATIVE, more=(failed,)), "client", "pod/web:8081").verdict == "reachable"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1, Verdict.UNKNOWN), ({"&": []}, Verdict.UNKNOWN), (64, Verdict.LEAVES)],
)
def test_a_hop_limit_that_may_end_on_the_way(value: Any, verdict: Verdict) -> None:
    key = {"payload": {"protocol": "ip", "field": "ttl"}}
    path = on_node(chain("postrouting", -150, [{"mangle": {"key": key, "value": value}}]))
    assert path.verdict is verdict, path.reason
    assert ("the hop limit that it gives it" in path.reason) == (verdict is Verdict.UNKNOWN)


def test_a_dormant_table_drops_nothing() -> None:
    place = agent_place("node2")
    read = ruleset(place, chain("forward", 0, [DROP]))
    dormant = NftChain("inet", "guard", "c", "forward", "filter", 0, dormant=True)
    path = ask(changed(NATIVE, more=(read, listed(place, dormant))), "client", f"{TO}:80")
    assert path.verdict is Verdict.LEAVES


def test_a_policy_that_drops_is_mended_at_the_chain() -> None:
    path = on_node(chain("forward", 0, policy="drop"))
    assert "policy of inet guard c" in dropped_at(path).summary
    assert path.fix is not None
    assert path.fix.command == "nft chain inet guard c '{ policy accept; }'"


def test_marks_go_between_iptables_and_nftables() -> None:
    mark = {"meta": {"key": "mark"}}
    fives = [{"match": {"op": "==", "left": {"&": [mark, 0xF0]}, "right": 0x50}}, DROP]
    more = (ruleset(agent_place("node2"), chain("forward", -100, fives)),)
    marked = rules("mangle PREROUTING -j MARK --set-xmark 0x50/0xf0")
    assert (
        "nft" in dropped_at(ask(changed(NATIVE, *marked, more=more), "client", f"{TO}:80")).summary
    )
    assert ask(changed(NATIVE, more=more), "client", f"{TO}:80").verdict is Verdict.LEAVES


def test_a_table_that_iptables_could_not_print_is_followed_by_nft() -> None:
    incompatible = swap(
        "node2",
        "iptables-save -c",
        "*filter",
        "# Table `filter' is incompatible, use 'nft' tool.\n*x",
    )
    place = agent_place("node2")
    accepts = chain("forward", 0, [DROP], family="ip", table="filter", name="FORWARD")
    path = ask(changed(NATIVE, incompatible, more=(ruleset(place, accepts),)), "client", f"{TO}:80")
    assert "nft ip filter FORWARD" in dropped_at(path).summary
    unread = ask(changed(NATIVE, incompatible), "client", f"{TO}:80")
    assert unread.verdict is Verdict.UNKNOWN


def test_a_nat_table_that_nobody_printed_translates_nothing() -> None:
    save = "# Table `nat' is incompatible, use 'nft' tool.\n*y"
    incompatible = swap("node2", "iptables-save -c", "*nat", save)
    elsewhere = chain("input", 100, family="ip", table="nat", type="nat")
    more = (ruleset(agent_place("node2"), elsewhere),)
    path = ask(changed(NATIVE, incompatible, more=more), "client", f"{TO}:80")
    assert "nothing masquerades" in nat_of(path)


def test_notrack_leaves_the_packet_as_it_is_for_nat() -> None:
    assert "netfilter masquerades" in nat_of(on_node())
    path = on_node(chain("prerouting", -300, [{"notrack": None}]))
    assert "nothing masquerades pod address" in nat_of(path)
    why = finding(path, "leaves the cluster without masquerading").detail
    assert "nft inet guard c rule 1 notrack leaves it untracked, so nat passes over it" in why


def nat_of(path: Answer) -> str:
    (hop,) = [hop for hop in path.hops if hop.kind is HopKind.NAT]
    return hop.summary


def test_security_of_iptables_is_asked() -> None:
    text = "*security\n:FORWARD ACCEPT [0:0]\n[0:0] -A FORWARD -p tcp -j DROP\nCOMMIT\n*filter"
    path = ask(
        changed(NATIVE, swap("node2", "iptables-save -c", "*filter", text)), "client", f"{TO}:80"
    )
    assert "security FORWARD" in dropped_at(path).summary


def test_a_chain_with_nats_own_priority_may_stand_before_it_or_behind() -> None:
    drops = chain("prerouting", -100, [match("ip", "daddr", "10.44.1.193"), DROP])
    read = nft.ruleset(ruleset(agent_place("n"), drops).stdout.read())
    rules = HookTables((), "", None, Native(read.chains, read, None))
    service = Flow(TCP, ip_address("10.44.0.7"), 1, ip_address("10.97.126.8"), 80)
    backend = service.with_destination(ip_address("10.44.1.193"), 8080)
    translated = Context(backend, original=service, translated=True)
    (passage,) = rules.traverse("filter", "PREROUTING", translated)
    assert passage.outcome.is_lost is None
    assert "stands before nat" in passage.outcome.doubt
    (passage,) = rules.traverse("filter", "PREROUTING", Context(backend))
    assert passage.outcome.is_lost is True


# --- at devices -----------------------------------------------------------------------------------


def device_of_client() -> str:
    path = on_node()
    hop = next(hop for hop in path.hops if hop.kind is HopKind.LINK)
    return hop.summary.partition("↔ ")[2].partition(" ")[0]


@pytest.mark.parametrize(("hook", "device"), [("ingress", ""), ("egress", "eth0")])
def test_a_chain_at_a_device_of_the_way(hook: str, device: str) -> None:
    at = chain(hook, -500, [match("tcp", "dport", 80), DROP], family="netdev",
               dev=device or device_of_client())  # fmt: skip
    assert f"({hook} -500)" in dropped_at(on_node(at)).summary


def test_a_chain_whose_device_is_not_known_is_undecided() -> None:
    path = on_node(chain("egress", 0, [DROP], family="netdev"))
    assert path.verdict is Verdict.UNKNOWN
    assert "nft did not print at which device netdev guard c is" in path.reason


# --- a tunnel's outer packet ----------------------------------------------------------------------

OUTER = [match("udp", "dport", 8472), DROP]


@pytest.mark.parametrize(
    ("node", "hook"),
    [("node1", "prerouting"), ("node1", "input"), ("node2", "output"), ("node2", "postrouting")],
)
def test_the_outer_packet_passes_both_nodes(node: str, hook: str) -> None:
    more = (ruleset(agent_place(node), chain(hook, -200 if hook == "prerouting" else 0, OUTER)),)
    path = ask(changed(VXLAN, more=more), "client", "svc/web")
    hop = dropped_at(path)
    assert (hop.node, hop.packet.outer is not None) == (node, True)
    assert "udp dport 8472 drop" in hop.summary


def test_the_outer_packet_at_the_devices() -> None:
    for node, hook in (("node1", "ingress"), ("node2", "egress")):
        at = chain(hook, 0, OUTER, family="netdev", dev="eth0")
        path = ask(changed(VXLAN, more=(ruleset(agent_place(node), at),)), "client", "svc/web")
        assert dropped_at(path).node == node


def test_what_bpf_host_routing_skips_is_not_asked() -> None:
    more = (ruleset(agent_place("node2"), chain("forward", 0, [DROP])),)
    assert ask(changed(VXLAN, more=more), "client", f"{TO}:80").verdict is Verdict.LEAVES


def test_a_capture_of_the_real_fault_with_the_record_that_it_lacks() -> None:
    drops = chain("prerouting", -200, OUTER, table="f23", name="pre")
    fault = open_bundle(FAULTS / "v23-udp8472-nft" / "pod.zip")
    bundle = bundle_of([*fault.records, ruleset(node_place("node1"), drops)], "v23")
    path = ask(bundle, "client", "svc/web")
    assert dropped_at(path).node == "node1"
    assert path.drop is not None
    assert path.drop.object == "nft chain inet f23 pre"
    assert ask(fault, "client", "svc/web").verdict is Verdict.UNKNOWN


# --- in the pods' own namespaces ------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["output", "postrouting"])
def test_a_rule_in_the_sending_pod(hook: str) -> None:
    path = ask(
        changed(NATIVE, more=(ruleset(CLIENT, chain(hook, 0, [DROP])),)), "client", f"{TO}:80"
    )
    hop = dropped_at(path)
    assert (hop.place, hop.where) == ("pod", "default/client")
    finding(path, "netfilter on pod default/client drops the packet")


@pytest.mark.parametrize("hook", ["prerouting", "input"])
def test_a_rule_in_the_receiving_pod(hook: str) -> None:
    path = ask(
        changed(NATIVE, more=(ruleset(WEB, chain(hook, 0, [DROP])),)), "client", "pod/web:8080"
    )
    hop = dropped_at(path)
    assert (hop.place, hop.where, hop.node) == ("pod", "default/web", "node1")


def test_iptables_in_the_pod_too() -> None:
    text = b"*filter\n:OUTPUT ACCEPT [0:0]\n[3:180] -A OUTPUT -p tcp -j REJECT\nCOMMIT\n"
    saved = Record(0, CLIENT, ("iptables-save", "-c"), 0, InMemory(text))
    path = ask(changed(NATIVE, more=(saved,)), "client", f"{TO}:80")
    assert "netfilter rejects it by OUTPUT rule 1" in dropped_at(path).summary
    assert path.fix is not None
    assert path.fix.command == "iptables -t filter -D OUTPUT 1"


MESH = b"""*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -p tcp -j REDIRECT --to-ports 15006
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -j REDIRECT --to-ports 15001
COMMIT
"""


def test_a_sidecar_takes_the_packet_and_what_it_does_is_not_known() -> None:
    saved = Record(0, CLIENT, ("iptables-save", "-c"), 0, InMemory(MESH))
    path = ask(changed(NATIVE, more=(saved,)), "client", f"{TO}:80")
    assert path.verdict is Verdict.UNKNOWN
    (hop,) = [hop for hop in path.hops if (hop.place, hop.kind) == ("pod", HopKind.NAT)]
    assert (hop.state, "may translate it to port 15001" in hop.summary) == (State.UNKNOWN, True)
    assert "-m owner" in hop.reason


def test_a_sidecar_that_receives_is_still_the_pod() -> None:
    saved = Record(0, WEB, ("iptables-save", "-c"), 0, InMemory(MESH))
    path = ask(changed(NATIVE, more=(saved,)), "client", "pod/web:8080")
    assert path.verdict.let_through
    (hop,) = [hop for hop in path.hops if (hop.where, hop.kind) == ("default/web", HopKind.NAT)]
    assert (hop.state, "to port 15006 of the pod" in hop.summary) == (State.DERIVED, True)


# --- kube-proxy in its nftables mode --------------------------------------------------------------

KUBE_PROXY = Folder(__file__).parent / "captures" / "kube-proxy-nftables.zip"
"""Cilium 1.18 beside kube-proxy 1.36, read by node pods that did not ask nft."""


def with_its_table() -> Bundle:
    text = sample("nftables-1.0.6/kube-proxy/nft-j-list-ruleset")
    table = Record(0, node_place("node1"), LIST, 0, InMemory(text))
    return bundle_of([*open_bundle(KUBE_PROXY).records, table], "kube-proxy")


def test_its_maps_lead_a_nodes_packet_to_the_backend() -> None:
    unread = ask(open_bundle(KUBE_PROXY), "hostnet", "svc/web")
    assert (
        "kube-proxy in its nftables mode may, and `nft -j list ruleset` of node1 was not read"
        in unread.reason
    )
    path = ask(with_its_table(), "hostnet", "svc/web")
    assert path.verdict is Verdict.REACHABLE, path.reason
    (hop,) = [hop for hop in path.hops if hop.kind is HopKind.LOAD_BALANCING]
    chain = "service-SUSTUHLJ-default/web/tcp/http"
    assert f"→ 10.44.1.193:8080 by netfilter's rules of kube-proxy ({chain})" in hop.summary


def test_a_service_without_endpoints_is_rejected_and_it_is_to_be_mended() -> None:
    path = ask(with_its_table(), "hostnet", "svc/nobackend")
    assert "netfilter rejects it in nft ip kube-proxy filter-output" in dropped_at(path).summary
    assert path.drop is not None
    assert path.drop.object == "Service default/nobackend"
    assert "svc default/nobackend has no endpoint: no pod in namespace default" in path.cause
    assert "map no-endpoint-services has 10.97.44.220:80" in path.hops[-3].summary


@pytest.mark.parametrize("to", ["svc/web", "svc/web-np", "1.1.1.1:80", "172.31.7.242:80"])
def test_what_passes_is_not_called_a_drop(to: str) -> None:
    path = ask(with_its_table(), "client1", to)
    assert path.verdict.let_through, path.reason
    assert path.findings == ()


def test_notrack_leaves_a_service_without_a_backend() -> None:
    untracked = ruleset(node_place("node1"), chain("output", -300, [{"notrack": None}]))
    bundle = bundle_of([*open_bundle(KUBE_PROXY).records, untracked], "kube-proxy")
    path = ask(bundle, "hostnet", "svc/web")
    (hop,) = [hop for hop in path.hops if hop.kind is HopKind.LOAD_BALANCING]
    assert "is not translated: nft inet guard c rule 1 notrack leaves it untracked" in hop.summary
    assert path.verdict is Verdict.UNKNOWN
    assert "leaves node1 for the Service's own address" in path.reason


def test_what_a_program_redirects_meets_no_egress_chain() -> None:
    at = chain("egress", 0, [match("tcp", "dport", 80), DROP], family="netdev", dev="eth0")
    path = ask(changed(VXLAN, more=(ruleset(agent_place("node2"), at),)), "client", f"{TO}:80")
    assert path.verdict is Verdict.LEAVES, path.reason


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ({"range": ["172.30.0.12", "172.30.0.13"]}, "of which node2 has 1"),
        ({"prefix": {"addr": "192.0.2.0", "len": 24}}, "gives it is not known"),
    ],
)
def test_a_source_that_is_one_of_several(address: dict[str, Any], words: str) -> None:
    at = chain("postrouting", 90, [{"snat": {"family": "ip", "addr": address}}], type="nat")
    path = ask(changed(NATIVE, more=(ruleset(agent_place("node2"), at),)), "client", f"{TO}:80")
    assert path.verdict is Verdict.UNKNOWN
    assert words in path.reason


# --- chains that branch ---------------------------------------------------------------------------

UNREAD = {"match": {"op": "==", "left": {"meta": {"key": "cgroup"}}, "right": 7}}


def set_bit(number: int) -> dict[str, Any]:
    mark = {"meta": {"key": "mark"}}
    return {"mangle": {"key": mark, "value": {"^": [mark, (number * 2654435761) & 0xFFFFFFFF]}}}


@pytest.mark.parametrize("first", [[], [UNREAD], [set_bit]])
def test_chains_that_branch_at_every_rule_end_soon(
    first: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 40 chains jumps twice to the next: 2^40 ways, as a hostile node may have them."""
    asked = []

    def counted(*of: Any) -> Any:
        asked.append(1)
        return holds(*of)

    monkeypatch.setattr("kubectl_ebpfnet.explain.kernel.nft.holds", counted)

    def jumps(at: int) -> list[list[Any]]:
        before = [[each(2 * at + n) if callable(each) else each for each in first] for n in (0, 1)]
        return [[*each, {"jump": {"target": f"c{at + 1}"}}] for each in before]

    last = {"family": "inet", "table": "guard", "name": "c40",
            "rules": [[match("tcp", "dport", 81 if first == [set_bit] else 80), DROP]]}  # fmt: skip
    below = [{**last, "name": f"c{at}", "rules": jumps(at)} for at in range(1, 40)]
    path = on_node(chain("forward", 0, *jumps(0), name="c0"), *below, last)
    assert len(asked) < 30_000
    if first == [set_bit]:
        assert path.verdict is Verdict.UNKNOWN
        assert "the chains are too many to be followed" in path.reason
    elif first:
        assert "meta cgroup of nft inet guard c0 rule 1" in path.reason
    else:
        assert dropped_at(path).summary.endswith("rule 1 tcp dport 80 drop")
