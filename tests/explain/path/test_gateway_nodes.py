"""A gateway that is broken, unread or of another version: captures of a real egress gateway (Cilium
1.18, the sender on node2, the gateway node1), with one thing changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.stages import to_gateway
from kubectl_ebpfnet.explain.path.walk import explained
from kubectl_ebpfnet.model.evidence import API, Bundle, InMemory, Record
from tests.explain.path.changed import (
    Change,
    ask,
    changed,
    dropped_at,
    fail,
    finding,
    say,
    swap,
    without,
)

HEALTHY = "../features/egress-gateway-healthy/agent.zip"
NO_GATEWAY = "../features/egress-gateway-no-gateway/agent.zip"
EGRESS = "cilium-dbg bpf egress list"
NAT = "cilium-dbg bpf nat list"
CT = "cilium-dbg bpf ct list global -d"
HEADER = "Source IP     Destination CIDR   Egress IP      Gateway IP\n"
ROW = "10.44.1.144   1.1.1.0/24         172.31.7.111   172.31.7.11\n"
ADDRESSES = "ip -j addr"
PINS = "ls -R /sys/fs/bpf"
WORLD = "1.1.1.1:80"
BPF, LEGACY = '"intra-host-routing-mode": "BPF"', '"intra-host-routing-mode": "Legacy"'


def old_pins(node: str) -> Change:
    """A Cilium before 1.18: none of the maps that came with it."""
    said = "/sys/fs/bpf:\ntc\n\n/sys/fs/bpf/tc:\nglobals\n\n/sys/fs/bpf/tc/globals:\n"
    return say(node, PINS, said + "cilium_egress_gw_policy_v4\ncilium_ipcache\ncilium_lxc\n")


def unseen(*nodes: str) -> list[Change]:
    """Nothing was sent before: no entry of the flow."""
    return [say(node, table, "") for node in nodes for table in (NAT, CT)]


def unread(bundle: Bundle) -> tuple[str, ...]:
    there = arguments.destination(WORLD)
    number = arguments.protocol("tcp", there)
    asked = arguments.request(arguments.source("pod/client"), there, number, "default", "")
    return explained(asked, bundle).further.nodes


def drop_forward(node: str) -> Change:
    return swap(node, "iptables-save -c", ":FORWARD ACCEPT", ":FORWARD DROP")


def test_a_gateway_whose_map_lacks_the_egress_address_drops_as_it_leaves_the_tunnel() -> None:
    path = ask(
        changed(HEALTHY, swap("node1", EGRESS, "172.31.7.111", "0.0.0.0     ")), "client", WORLD
    )
    hop = dropped_at(path)
    assert (hop.node, hop.where) == ("node1", "cilium_vxlan")
    assert "No Egress IP configured" in hop.summary
    assert path.drop is not None
    assert path.drop.how == "derived"
    assert path.contradictions  # it was answered before


def test_a_gateway_whose_map_names_another_is_not_told_to_have_the_address() -> None:
    another = HEADER + ROW.replace("172.31.7.111", "0.0.0.0     ").replace("7.11\n", "7.12\n")
    path = ask(changed(HEALTHY, say("node1", EGRESS, another)), "client", WORLD)
    assert "by its map the gateway is node2" in dropped_at(path).summary
    assert path.fix is not None
    assert "and that of node1 names node2: the agent of one of them is behind" in path.fix.text


def test_a_gateway_that_did_not_take_the_policy_in() -> None:
    path = ask(
        changed(HEALTHY, say("node1", EGRESS, ""), *unseen("node1", "node2")), "client", WORLD
    )
    assert finding(path, "its own map has no such row").severity == "error"
    assert path.verdict == "unknown"  # it leaves with the pod's address


def test_a_gateway_whose_map_was_not_read_is_named() -> None:
    unread = fail("node1", EGRESS, "Error: unable to open map")
    path = ask(changed(HEALTHY, unread, *unseen("node1", "node2")), "client", WORLD)
    assert path.verdict == "unknown"
    assert "policy map of node1 could not be read" in path.reason
    assert path.fix is not None
    assert "bpf egress list" in path.fix.command


def test_a_gateway_that_was_not_asked_is_named_and_wanted() -> None:
    bundle = changed(HEALTHY, without("node1"), *unseen("node2"))
    path = ask(bundle, "client", WORLD)
    assert path.verdict == "unknown"
    assert "nothing is known of node1" in path.reason
    assert unread(bundle) == ("node1",)
    assert unread(changed(HEALTHY, *unseen("node2"))) == ()


def test_a_gateway_that_is_no_node_is_said() -> None:
    stale = swap("node2", EGRESS, "172.31.7.11", "172.31.7.99")
    path = ask(changed(HEALTHY, stale, *unseen("node1", "node2")), "client", WORLD)
    assert path.verdict == "unknown"
    assert "172.31.7.99 is no node of the cluster" in path.reason
    assert finding(path, "172.31.7.99 is no node").severity == "error"


def test_a_gateway_that_is_not_ready_is_said() -> None:
    def unready(record: Record) -> Record:
        if record.command != "get nodes":
            return record
        value = json.loads(record.stdout.read())
        for node in value["items"]:
            for condition in node["status"]["conditions"]:
                if node["metadata"]["name"] == "node1" and condition["type"] == "Ready":
                    condition |= {"status": "Unknown", "message": "Kubelet stopped posting"}
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    changes = [unready, without("node1"), *unseen("node2")]
    path = ask(changed(HEALTHY, *changes), "client", WORLD)
    assert path.verdict == "unknown"
    assert "nothing is known of node1" in path.reason
    assert finding(path, "egress gateway node1 is not Ready: Kubelet stopped").severity == "warning"


def left_out(node: str, *rows: str) -> Change:
    """A live run brought home the rows of these addresses alone."""

    def change(record: Record) -> Record:
        mine = (record.place.node, record.command) == (node, EGRESS)
        return replace(record, line_filter=rows, left_out=9000) if mine else record

    return change


def test_rows_of_the_packets_pod_are_all_that_its_way_needs() -> None:
    bundle = changed(HEALTHY, left_out("node2", "10.44.1.144"), *unseen("node1", "node2"))
    assert ask(bundle, "client", WORLD).verdict == "leaves"
    there = arguments.destination(WORLD)
    asked = arguments.request(
        arguments.source("pod/client"), there, arguments.protocol("tcp", there), "default", ""
    )
    assert explained(asked, bundle).further.tables == ()


def test_rows_of_other_pods_are_wanted_where_the_packets_own_were_left_out() -> None:
    bundle = changed(HEALTHY, left_out("node2", "10.44.9.9"), *unseen("node1", "node2"))
    there = arguments.destination(WORLD)
    asked = arguments.request(
        arguments.source("pod/client"), there, arguments.protocol("tcp", there), "default", ""
    )
    assert ("node2", "cilium-egress-gateway") in explained(asked, bundle).further.tables
    assert ask(bundle, "client", WORLD).verdict == "unknown"
    empty = changed(
        HEALTHY, left_out("node2", "10.44.9.9"), say("node2", EGRESS, HEADER),
        *unseen("node1", "node2"), more=(policies(SPEC),),
    )  # fmt: skip
    path = ask(empty, "client", WORLD)
    assert path.verdict == "unknown"
    assert not any("has no row of it" in found.title for found in path.findings)


def moved_to(node: str | None) -> list[Change]:
    """The egress address is no more on node1, but on another node, or on none."""

    def moves(at: str, adds: bool) -> Change:
        def change(record):  # type: ignore[no-untyped-def]
            if (record.place.node, record.command) != (at, ADDRESSES):
                return record
            links = json.loads(record.stdout.read())
            for link in links:
                kept = [a for a in link["addr_info"] if a.get("local") != "172.31.7.111"]
                if adds and link["ifname"] == "eth0":
                    kept.append({**kept[0], "local": "172.31.7.111"})
                link["addr_info"] = kept
            return say(at, ADDRESSES, json.dumps(links))(record)

        return change

    routes = "ip -j route show table all"
    local = '"dst":"172.31.7.111"'
    gone = swap("node1", routes, local, '"dst":"172.31.7.110"')
    return [moves("node1", False), gone, *([moves(node, True)] if node else [])]


def test_an_egress_address_that_no_device_has_brings_no_answer_back() -> None:
    path = ask(changed(HEALTHY, *moved_to(None), *unseen("node1", "node2")), "client", WORLD)
    assert finding(path, "172.31.7.111 is not on gateway node1").severity == "error"
    assert path.verdict == "unknown"
    assert "no device of gateway node1 has the egress address 172.31.7.111" in path.reason


def test_an_egress_address_of_another_node_sends_the_answer_there() -> None:
    path = ask(changed(HEALTHY, *moved_to("node2"), *unseen("node1", "node2")), "client", WORLD)
    assert path.verdict == "dropped", path.reason
    assert path.drop is not None
    assert (path.drop.direction, path.drop.node) == ("answer", "node2")
    assert "node2 has 172.31.7.111" in path.reason


def test_of_several_gateways_any_may_be_taken() -> None:
    several = HEADER + ROW.replace("172.31.7.11\n", "0 => 172.31.7.11\n")
    several += " " * 48 + "1 => 172.31.7.12\n"
    path = ask(
        changed(HEALTHY, say("node2", EGRESS, several), *unseen("node1", "node2")), "client", WORLD
    )
    assert path.verdict == "unknown"
    assert "which of the gateways 172.31.7.11 (node1), 172.31.7.12 (node2)" in path.reason


def test_an_address_that_the_policy_had_before_is_no_more_taken() -> None:
    before = swap("node1", NAT, "XLATE_SRC 172.31.7.111", "XLATE_SRC 172.31.7.99")
    path = ask(changed(HEALTHY, before), "client", WORLD)
    assert str(path.hops[-1].packet.flow.source) == "172.31.7.111"


# --- netfilter, by version ------------------------------------------------------------------------


def test_the_gateways_forward_chain_is_passed_by_since_1_15() -> None:
    path = ask(changed(HEALTHY, drop_forward("node1"), *unseen("node1", "node2")), "client", WORLD)
    assert path.verdict == "leaves", path.reason


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_a_forward_chain_that_may_be_passed_by_leaves_it_open(node: str) -> None:
    """Which version it is nothing tells: lost on one way, and not on the other."""
    legacy = swap("node2", "cilium-dbg status -o json", BPF, LEGACY)
    changes = [drop_forward(node), old_pins(node), legacy, *unseen("node1", "node2")]
    path = ask(changed(HEALTHY, *changes), "client", WORLD)
    assert path.verdict == "unknown", path.reason
    assert "FORWARD" in path.reason
    assert "nothing that was read tells" in path.reason


def test_versions_that_differ_in_nothing_that_matters_are_no_doubt() -> None:
    changes = [old_pins("node1"), old_pins("node2"), *unseen("node1", "node2")]
    path = ask(changed(HEALTHY, *changes), "client", WORLD)
    assert path.verdict == "leaves", path.reason
    assert "as 172.31.7.111" in path.reason


# --- nobody answers -------------------------------------------------------------------------------


def silent(nat: str) -> Bundle:
    """An attempt of 6 s before without an answer, and what the gateway's NAT map has."""
    rows = [say("node1", EGRESS, HEADER + ROW)]
    rows.append(say("node2", EGRESS, HEADER + ROW.replace("172.31.7.111", "0.0.0.0     ")))
    return changed(NO_GATEWAY, *rows, say("node1", NAT, nat))


def translated(port: int) -> str:
    ends = f"10.44.1.144:{port} -> 1.1.1.1:80 XLATE_SRC 172.31.7.111:{port}"
    return f"TCP OUT {ends} Created=6sec ago NeedsCT=1\n"


def test_a_flow_that_the_gateway_sent_out_left() -> None:
    path = ask(silent(translated(60388)), "client", WORLD)
    assert path.verdict == "leaves", path.reason
    assert "as 172.31.7.111:60388" in path.reason


def test_a_flow_that_the_gateway_never_sent_out_was_lost_before() -> None:
    path = ask(silent(translated(50001)), "client", WORLD)
    assert path.verdict == "unknown", path.reason
    assert "the NAT map of node1, by which it leaves" in path.reason
    assert "lost on node2" not in path.reason


# --- the policy by its name -----------------------------------------------------------------------

SPEC = {
    "destinationCIDRs": ["1.1.1.0/24"],
    "egressGateway": {
        "egressIP": "172.31.7.111",
        "nodeSelector": {"matchLabels": {"egress": "yes"}},
    },
    "selectors": [
        {"podSelector": {"matchLabels": {
            "app": "client", "io.kubernetes.pod.namespace": "default",
        }}}
    ],
}  # fmt: skip
"""As it was on the recorded clusters."""
LIST = ("get", "ciliumegressgatewaypolicies")


def policies(*specs: dict[str, Any], names: str = "egw other") -> Record:
    items = [
        {
            "apiVersion": "cilium.io/v2", "kind": "CiliumEgressGatewayPolicy",
            "metadata": {"name": name}, "spec": spec,
        }
        for name, spec in zip(names.split(), specs, strict=False)
    ]  # fmt: skip
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    return Record(0, API, LIST, 0, InMemory(text.encode()))


def test_the_policy_is_named_that_selects_the_pod_and_has_the_cidr() -> None:
    other = {**SPEC, "selectors": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    path = ask(changed(HEALTHY, more=(policies(SPEC, other),)), "client", WORLD)
    assert any(hop.summary.startswith("egress gateway policy egw: ") for hop in path.hops)
    assert not [f for f in path.findings if f.severity != "info"]


def test_a_policy_without_a_gateway_says_what_to_label() -> None:
    path = ask(changed(NO_GATEWAY, more=(policies(SPEC),)), "client", WORLD)
    assert dropped_at(path).where == "eth0"
    assert path.drop is not None
    assert path.drop.object == "CiliumEgressGatewayPolicy egw"
    assert "CiliumEgressGatewayPolicy egw for 10.44.1.144 → 1.1.1.0/24" in path.cause
    assert path.fix is not None
    assert "nodeSelector (egress=yes) selects no node" in path.fix.text
    assert path.fix.command == "kubectl label node NODE egress=yes"


def test_a_rule_that_may_lead_the_egress_address_elsewhere_leaves_it_open() -> None:
    """The pod's own route is decided; that of the address which its gateway gives it is not."""
    last = '{"priority":32766'
    odd = f'{{"priority":100,"src":"172.31.7.111","action":"weird"}},{last}'
    changes = swap("node1", "ip -j rule", last, odd), *unseen("node1")
    path = ask(changed("../features/egress-gateway-local/agent.zip", *changes), "client1", WORLD)
    assert path.verdict == "unknown"
    assert "by which device the egress address 172.31.7.111 leaves is not known" in path.cause


@pytest.mark.parametrize("version", [False, True])
def test_a_gateway_of_its_own_whose_device_was_not_read_leaves_it_open(
    version: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its routes, or since 1.19 by the number of a device that nobody knows."""
    why = "the node's routes could not be read: exit code 1"
    monkeypatch.setattr(to_gateway, "node_tables", lambda *_: why)
    if version:
        row = to_gateway.egress.row_of
        monkeypatch.setattr(
            to_gateway.egress, "row_of",
            lambda *of: replace(found, device=77) if (found := row(*of)) else None,
        )  # fmt: skip
        why = "node1 has no device 77"
    bundle = changed("../features/egress-gateway-local/agent.zip", *unseen("node1"))
    path = ask(bundle, "client1", WORLD)
    assert path.verdict == "unknown"
    assert f"by which device the egress address 172.31.7.111 leaves is not known: {why}" in (
        path.cause
    )


def test_nodes_that_nobody_listed_are_not_said_to_lack_a_label() -> None:
    unlisted = fail("", "get nodes", "forbidden")
    path = ask(changed(NO_GATEWAY, unlisted, more=(policies(SPEC),)), "client", WORLD)
    assert path.fix is not None
    assert "selects is not known" in path.fix.text


def test_a_row_is_not_stale_by_a_list_that_nobody_could_read() -> None:
    denied = Record(0, API, LIST, None, error="forbidden", denied="list " + LIST[1])
    old = replace(policies(), argv=("get", "ciliumegressnatpolicies"))
    path = ask(changed(HEALTHY, more=(denied, old)), "client", WORLD)
    assert not [f for f in path.findings if f.severity != "info"]


def test_a_user_who_may_not_list_policies_is_told_the_verb() -> None:
    denied = Record(0, API, LIST, None, error="forbidden", denied="list " + LIST[1])
    path = ask(changed(NO_GATEWAY, more=(denied,)), "client", WORLD)
    assert path.verdict == "dropped"
    assert path.drop is not None
    assert path.drop.object == ""
    assert path.fix is not None
    assert "this user may not list ciliumegressgatewaypolicies" in path.fix.text


def test_a_name_that_may_not_be_read_is_not_what_an_unknown_verdict_lacks() -> None:
    denied = Record(0, API, LIST, None, error="forbidden", denied="list " + LIST[1])
    path = ask(
        changed(HEALTHY, without("node1"), *unseen("node2"), more=(denied,)), "client", WORLD
    )
    assert path.verdict == "unknown"
    assert path.fix is not None
    assert "permission" not in path.fix.text


def test_a_gateway_without_the_egress_ip_names_the_policy_and_the_address() -> None:
    gone = swap("node1", EGRESS, "172.31.7.111", "0.0.0.0     ")
    path = ask(changed(HEALTHY, gone, more=(policies(SPEC),)), "client", WORLD)
    assert dropped_at(path).node == "node1"
    assert path.drop is not None
    assert path.drop.object == "CiliumEgressGatewayPolicy egw"
    assert path.fix is not None
    assert "egressIP 172.31.7.111 is on no device of node1" in path.fix.text


@pytest.mark.parametrize("off", [False, True])
def test_a_policy_that_the_map_lacks_is_said(off: bool) -> None:
    changes = [say(node, EGRESS, "") for node in ("node1", "node2")]
    if off:
        setting = '"enable-ipv4-egress-gateway": "true"'
        changes.append(swap("", "get configmaps -n kube-system cilium-config", setting,
                            setting.replace("true", "false")))  # fmt: skip
    path = ask(changed(HEALTHY, *changes, more=(policies(SPEC),)), "client", WORLD)
    said = finding(path, "CiliumEgressGatewayPolicy egw selects the pod and 1.1.1.1")
    assert said.severity == "warning"
    assert ("is switched off" if off else "has no row of it") in said.title


@pytest.mark.parametrize(
    "spec",
    [
        {**SPEC, "destinationCIDRs": ["9.9.9.0/24"]},
        {**SPEC, "excludedCIDRs": ["1.1.1.1/32"]},
        {**SPEC, "selectors": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
        {**SPEC, "selectors": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]},
        {**SPEC, "selectors": [{**SPEC["selectors"][0],  # type: ignore[index,dict-item]
                                "nodeSelector": {"matchLabels": {"egress": "yes"}}}]},
    ],
    ids=["another CIDR", "excluded", "other pods", "another namespace", "pods of another node"],
)  # fmt: skip
def test_a_policy_for_others_says_nothing_of_this_packet(spec: dict[str, Any]) -> None:
    changes = [say(node, EGRESS, "") for node in ("node1", "node2")]
    path = ask(changed(HEALTHY, *changes, more=(policies(spec),)), "client", WORLD)
    assert not [f for f in path.findings if "CiliumEgressGatewayPolicy" in f.title]


ELSEWHERE = {**SPEC, "destinationCIDRs": ["9.9.9.0/24"]}


@pytest.mark.parametrize("changes", [(), (old_pins("node1"), old_pins("node2"))])
def test_a_row_that_no_policy_asks_for_is_said(changes: tuple[Change, ...]) -> None:
    path = ask(changed(HEALTHY, *changes, more=(policies(ELSEWHERE),)), "client", WORLD)
    found = finding(path, "the map of node2 leads 10.44.1.144 → 1.1.1.0/24 to an egress gateway")
    assert "and no CiliumEgressGatewayPolicy does" in found.title
    assert found.severity == "warning"
    assert ("CiliumEgressNATPolicy" in found.detail) is bool(changes)


def gateway(**spec: Any) -> dict[str, Any]:
    """The recorded policy with another gateway."""
    return {**SPEC, "egressGateway": {**SPEC["egressGateway"], **spec}}  # type: ignore[dict-item]


def labelled(**labels: str) -> dict[str, Any]:
    return {"matchLabels": {key.replace("_", "/"): value for key, value in labels.items()}}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (gateway(egressIP="172.31.7.112"), "has egressIP 172.31.7.112, and the map 172.31.7.111"),
        (
            gateway(nodeSelector=labelled(**{"kubernetes.io_hostname": "node2"})),
            "(kubernetes.io/hostname=node2) selects node2, and the map leads to node1",
        ),
        (gateway(nodeSelector=labelled(no="where")), "selects no node, and the map leads to node1"),
    ],
)
def test_a_row_that_its_policy_would_make_otherwise_is_said(
    spec: dict[str, Any], said: str
) -> None:
    path = ask(changed(HEALTHY, more=(policies(spec),)), "client", WORLD)
    found = finding(path, "does not follow CiliumEgressGatewayPolicy egw")
    assert said in found.title
    assert found.severity == "warning"


def test_a_row_of_which_one_of_two_policies_may_be_the_maker_is_right() -> None:
    both = policies(gateway(egressIP="172.31.7.112"), SPEC)
    path = ask(changed(HEALTHY, more=(both,)), "client", WORLD)
    assert not [f for f in path.findings if f.severity != "info"]


@pytest.mark.parametrize("excluded", [True, False])
def test_a_row_that_excludes_what_no_policy_excludes_is_said(excluded: bool) -> None:
    spec = {**SPEC, "destinationCIDRs": ["1.1.0.0/16"]}
    if excluded:
        spec["excludedCIDRs"] = ["1.1.1.0/24"]
    capture = "../features/egress-gateway-excluded/agent.zip"
    path = ask(changed(capture, more=(policies(spec),)), "client", WORLD)
    said = [f for f in path.findings if "from its egress gateway (excludedCIDRs)" in f.title]
    assert [f.severity for f in said] == ([] if excluded else ["warning"])


def test_a_row_without_a_gateway_says_what_is_dropped_and_what_selects_nothing() -> None:
    hop = dropped_at(ask(changed(NO_GATEWAY, more=(policies(SPEC),)), "client", WORLD))
    assert hop.summary == (
        "egress gateway policy egw for 10.44.1.144 → 1.1.1.0/24 has no gateway node (its "
        "nodeSelector egress=yes selects no node): dropped (No egress gateway found)"
    )


def test_a_row_without_a_gateway_that_no_policy_makes_is_the_agents() -> None:
    path = ask(changed(NO_GATEWAY, more=(policies(ELSEWHERE),)), "client", WORLD)
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")
    assert path.fix is not None
    assert path.fix.text.startswith("See why Cilium's agent on node2 is behind")
