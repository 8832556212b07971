"""Other versions, settings and faults, each told on a recorded cluster by what would be printed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from changed import (
    NATIVE,
    POLICY,
    SCENARIOS,
    VXLAN,
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
from variants import as_cilium, edit, everywhere, json_edit

from kubectl_ebpfnet.collect.bundle_file import open_bundle
from kubectl_ebpfnet.model.evidence import Bundle, bundle_of
from kubectl_ebpfnet.model.path import Evidence, Hop, Path
from kubectl_ebpfnet.render.formats import render
from kubectl_ebpfnet.render.view import View

# ruff: noqa: E501 -- what programs print in one line stays in one line here


def told(hop: Hop) -> tuple[object, ...]:
    """What a hop says; where the proof stands differs between versions."""
    return (hop.place, hop.where, hop.node, hop.kind, hop.summary, hop.state, hop.packet, hop.drops)


def shown(path: Path, kind: str, node: str = "") -> list[str]:
    """Summaries of the hops of a kind, of one node or of all."""
    return [hop.summary for hop in path.hops if hop.kind == kind and node in ("", hop.node)]


def says(bundle: Bundle, evidence: tuple[Evidence, ...], words: str) -> bool:
    """Whether one of the lines pointed at has these words, in the record and in the excerpt."""
    for piece in evidence:
        text = bundle.numbered(piece.record).stdout.read().decode()
        lines = text.splitlines()
        pointed = [lines[number - 1] for number in piece.lines] or [text]
        if any(words in line for line in pointed) and any(words in said for said in piece.excerpt):
            return True
    return False


@pytest.mark.parametrize("version", ["1.10", "1.14"])
@pytest.mark.parametrize(
    ("scenario", "destination"),
    [
        (VXLAN, "1.1.1.1:80"),
        (VXLAN, "9.9.9.9:80"),
        (VXLAN, "pod/web:8080"),
        (VXLAN, "svc/web:80"),
        (VXLAN, "172.30.0.12:32479"),
        (POLICY, "1.1.1.1:443"),
        (NATIVE, "1.1.1.1:80"),
        (NATIVE, "svc/web"),
    ],
)
def test_older_forms_of_the_same_facts_give_the_same_hops(
    version: str, scenario: str, destination: str
) -> None:
    """Every table of the agent in the text of that version, by the name `cilium`."""
    now = ask(changed(scenario), "client", destination)
    then = ask(as_cilium(version, scenario), "client", destination)
    assert [told(hop) for hop in then.hops] == [told(hop) for hop in now.hops]
    assert (then.verdict, then.reason) == (now.verdict, now.reason)
    assert [f.title for f in then.findings] == [f.title for f in now.findings]


# --- egress gateway -------------------------------------------------------------------------------
EGRESS = "cilium-dbg bpf egress list"
EGRESS_HEADER = "Source IP      Destination CIDR   Egress IP     Gateway IP\n"


def egress_policy(node: str, egress: str, gateway: str, more: str = "") -> Change:
    """A row of the client's on a node whose list was empty (its columns: cilium-facts 2.7)."""
    row = f"10.244.1.160   0.0.0.0/0          {egress:<11}   {gateway}\n"
    return say(node, EGRESS, EGRESS_HEADER + row + more)


def test_an_egress_gateway_on_another_node_gives_the_packet_its_address() -> None:
    bundle = changed(
        VXLAN,
        egress_policy("node2", "0.0.0.0", "172.30.0.11"),
        egress_policy("node1", "172.30.0.11", "172.30.0.11"),
    )
    path = ask(bundle, "client", "9.9.9.9:80")
    assert path.verdict == "delivered"
    assert "seen outside as 172.30.0.11" in path.reason
    assert "leaves by 172.30.0.11 (node1)" in shown(path, "route", "node2")[1]
    assert any("node1 is the egress gateway" in words for words in shown(path, "route", "node1"))
    (nat,) = [hop for hop in path.hops if hop.kind == "nat"]
    assert (nat.node, nat.state) == ("node1", "derived")
    assert says(bundle, nat.evidence, "10.244.1.160   0.0.0.0/0          172.30.0.11")


def test_the_gateways_nat_entry_is_what_was_seen() -> None:
    entry = "TCP OUT 10.244.1.160:50000 -> 9.9.9.9:80 XLATE_SRC 172.30.0.11:50001 Created=1sec ago NeedsCT=0\n"
    bundle = changed(
        VXLAN,
        egress_policy("node2", "0.0.0.0", "172.30.0.11"),
        egress_policy("node1", "172.30.0.11", "172.30.0.11"),
        say("node1", "cilium-dbg bpf nat list", entry),
    )
    (nat,) = [hop for hop in ask(bundle, "client", "9.9.9.9:80").hops if hop.kind == "nat"]
    assert nat.state == "observed"
    assert "172.30.0.11:50001" in nat.summary
    assert says(bundle, nat.evidence, "XLATE_SRC 172.30.0.11:50001")


def test_an_egress_gateway_is_not_for_what_stays_in_the_cluster() -> None:
    bundle = changed(VXLAN, egress_policy("node2", "0.0.0.0", "172.30.0.11"))
    plain = ask(changed(VXLAN), "client", "pod/web:8080")
    assert [told(h) for h in ask(bundle, "client", "pod/web:8080").hops] == [
        told(h) for h in plain.hops
    ]


def test_a_gateway_here_whose_address_nobody_has() -> None:
    bundle = changed(VXLAN, egress_policy("node2", "172.30.0.77", "172.30.0.12"))
    path = ask(bundle, "client", "9.9.9.9:80")
    assert str(path.hops[-1].packet.flow.source) == "172.30.0.77"
    found = finding(path, "172.30.0.77 is not on gateway node2")
    assert found.severity == "error"
    assert says(bundle, found.evidence, "172.30.0.77")


def test_a_gateway_without_an_egress_address_drops() -> None:
    path = ask(
        changed(VXLAN, egress_policy("node2", "0.0.0.0", "172.30.0.12")), "client", "9.9.9.9:80"
    )
    assert "No Egress IP configured" in dropped_at(path).summary
    assert finding(path, "no egress address").severity == "error"


def test_no_gateway_is_found() -> None:
    bundle = changed(VXLAN, egress_policy("node2", "0.0.0.0", "Not Found"))
    path = ask(bundle, "client", "9.9.9.9:80")
    hop = dropped_at(path)
    assert "No egress gateway found" in hop.summary
    assert says(bundle, hop.evidence, "Not Found")
    assert finding(path, "has no gateway node").severity == "error"


def test_an_excluded_prefix_leaves_as_if_there_were_no_gateway() -> None:
    more = "10.244.1.160   9.9.9.0/24         0.0.0.0       Excluded CIDR\n"
    bundle = changed(VXLAN, egress_policy("node2", "0.0.0.0", "172.30.0.11", more))
    excluded = ask(bundle, "client", "9.9.9.9:80")
    plain = ask(changed(VXLAN), "client", "9.9.9.9:80")
    assert [told(hop) for hop in excluded.hops] == [told(hop) for hop in plain.hops]
    assert shown(ask(bundle, "client", "8.8.8.8:80"), "tunnel")


# --- how programs are attached --------------------------------------------------------------------
def by_clsact(text: str) -> str:
    """bpftool's form of a legacy filter: another kind and id, the device in the name."""
    value = json.loads(text)
    for row in value[0]["tc"]:
        row["kind"] = row["kind"].replace("tcx", "clsact")
        row["name"] += f"-{row['devname']}"
        row["id"] = row.pop("prog_id")
        for name in ("link_id", "link_flags", "prog_flags"):
            del row[name]
    return json.dumps(value)


def test_programs_attached_by_clsact() -> None:
    bundle = changed(
        VXLAN,
        edit("node2", "bpftool -j net show", by_clsact),
        edit("node2", "bpftool -j link show", lambda text: "[]"),
        without("node2", "ls -R /sys/fs/bpf"),
    )
    programs = shown(ask(bundle, "client", "1.1.1.1:80"), "program")
    assert "cil_from_container-lxcca1c984e26ef (clsact/ingress, id 2205, tag" in programs[0]
    assert "what leaves the pod" in programs[0]
    assert "cil_to_netdev-eth0 (clsact/egress" in programs[1]


def test_programs_attached_by_netkit() -> None:
    """What leaves the pod is at the peer hook of the host side device (cilium-facts 4.1)."""
    row = '"devname":"lxcca1c984e26ef","ifindex":13,"kind":"tcx/ingress"'
    bundle = changed(
        VXLAN, swap("node2", "bpftool -j net show", row, row.replace("tcx/ingress", "netkit/peer"))
    )
    path = ask(bundle, "client", "9.9.9.9:80")
    (hop,) = [hop for hop in path.hops if hop.where == "lxcca1c984e26ef" and hop.kind == "program"]
    assert "cil_from_container (netkit/peer, id 2205" in hop.summary
    assert says(bundle, hop.evidence, "netkit/peer")


def test_endpoint_routes_lead_past_cilium_host() -> None:
    """enable-endpoint-routes: a route to the pod's own device, and a program at its egress."""

    def on(value: dict[str, dict[str, str]]) -> None:
        value["data"]["enable-endpoint-routes"] = "true"

    def route(routes: list[dict[str, object]]) -> None:
        routes.insert(0, {"dst": "10.244.0.251", "dev": "lxc454044f1d690", "scope": "link"})

    def program(value: list[dict[str, list[dict[str, object]]]]) -> None:
        value[0]["tc"].append(
            {"devname": "lxc454044f1d690", "ifindex": 12, "kind": "tcx/egress",
             "name": "cil_to_container", "prog_id": 2999, "link_id": 300}
        )  # fmt: skip

    bundle = changed(
        NATIVE,
        json_edit("api", "get cilium-config", on),
        json_edit("node1", "ip -j route show table all", route),
        json_edit("node1", "bpftool -j net show", program),
    )
    path = ask(bundle, "client", "pod/web:8080")
    assert path.verdict == "delivered"
    assert shown(path, "route", "node1") == ["10.244.0.251/32 dev lxc454044f1d690"]
    assert "cil_to_container (tcx/egress" in shown(path, "program", "node1")[-1]
    assert not any(hop.where == "cilium_host" for hop in path.hops)


# --- services -------------------------------------------------------------------------------------
SERVICES, LB = "cilium-dbg service list -o json", "cilium-dbg bpf lb list"
CT = "cilium-dbg bpf ct list global -d"


def untracked(text: str) -> str:
    """Conntrack without the flows that were load-balanced."""
    return "".join(line for line in text.splitlines(True) if "RevNAT=2" not in line)


def no_backends(value: object) -> None:
    """The agent's list of a service that nothing is behind: `backend-addresses` is null."""
    if isinstance(value, dict):
        if "backend-addresses" in value:
            value["backend-addresses"] = None
        for below in value.values():
            no_backends(below)
    elif isinstance(value, list):
        for below in value:
            no_backends(below)


def unmapped(text: str) -> str:
    """The map without the slots of pod web."""
    return "".join(line for line in text.splitlines(True) if "10.244.0.135" not in line)


def test_a_service_that_nothing_is_behind() -> None:
    bundle = changed(VXLAN, json_edit("node2", SERVICES, no_backends), edit("node2", LB, unmapped))
    path = ask(bundle, "client", "svc/web:80")
    hop = dropped_at(path)
    assert (hop.kind, hop.number) == ("load-balancing", 1)
    assert says(bundle, hop.evidence, "0.0.0.0:0 (2) (0) [ClusterIP, non-routable]")
    assert "No pod matches it" in finding(path, "svc default/web has no ready backend").detail


def test_a_map_that_lacks_what_the_agent_lists() -> None:
    """New connections go by the map, whatever `service list` says."""
    path = ask(changed(VXLAN, edit("node2", LB, unmapped)), "client", "svc/web:80")
    assert dropped_at(path).kind == "load-balancing"
    assert finding(path, "the datapath of node2 lacks a backend").severity == "error"


def test_a_backend_that_kubernetes_no_longer_has() -> None:
    old = [
        edit("node2", command, lambda text: text.replace("10.244.0.251", "10.244.0.252"))
        for command in (SERVICES, LB)
    ]
    path = ask(changed(NATIVE, *old, edit("node2", CT, untracked)), "client", "svc/web")
    found = finding(path, "still has a backend that no EndpointSlice names: 10.244.0.252:8080")
    assert found.severity == "error"
    assert "no endpoint has 10.244.0.252 on node1" in dropped_at(path).summary


def test_a_flow_stays_with_a_backend_that_is_gone() -> None:
    """The recorded SVC and OUT entries lead to pod web; the service has moved to another pod."""
    moved = [
        edit(at, command, lambda text: text.replace("10.244.0.251", "10.244.0.252"))
        for at, command in (("node2", SERVICES), ("node2", LB), ("api", "get endpointslices"))
    ]
    bundle = changed(NATIVE, *moved)
    path = ask(bundle, "client", "svc/web")
    found = finding(path, "goes to 10.244.0.251:8080, no longer a backend")
    assert found.severity == "warning"
    assert says(bundle, found.evidence, "TCP SVC 10.244.1.53:38510 -> 10.96.71.229:80")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert (hop.state, hop.packet.flow.destination_port) == ("observed", 8080)
    assert "this backend is no longer in the service" in hop.summary
    assert path.verdict == "delivered"


def test_kube_proxys_translation_seen_in_nf_conntrack_alone() -> None:
    """Cilium knows neither the service nor the flow; netfilter translated it."""
    line = ("ipv4     2 tcp      6 97 TIME_WAIT src=10.244.1.53 dst=10.96.71.229 sport=38511 dport=80 "
            "src=10.244.0.251 dst=10.244.1.53 sport=8080 dport=38511 [ASSURED] mark=0 zone=0 use=2\n")  # fmt: skip
    bundle = changed(
        NATIVE,
        say("node2", SERVICES, "[]"),
        say("node2", LB, ""),
        edit("node2", CT, untracked),
        edit("node2", "cat /proc/net/nf_conntrack", lambda text: line + text),
    )  # fmt: skip
    path = ask(bundle, "client", "svc/web")
    (hop,) = [hop for hop in path.hops if hop.kind == "load-balancing"]
    assert (hop.place, hop.state) == ("node", "observed")
    assert "10.244.0.251:8080 by netfilter's rules of kube-proxy" in hop.summary
    assert says(bundle, hop.evidence, "dst=10.96.71.229 sport=38511")
    assert path.hops[-1].where == "default/web"


def test_a_cluster_address_that_nothing_translates_is_not_delivered() -> None:
    """Without kube-proxy and kube-proxy replacement, a hostNetwork pod has no services."""
    path = ask(changed(NATIVE, host_network("10.244.1.53"), without("client")), "client", "svc/web")
    assert path.verdict == "unknown"
    assert "without having become a backend's address" in path.reason
    assert finding(path, "nothing on node2 load-balances ClusterIP").severity == "error"


# --- pods -----------------------------------------------------------------------------------------
def host_network(address: str) -> Change:
    """The client's Pod object with hostNetwork, which has its node's address."""

    def change(text: str) -> str:
        own = '"nodeName": "node2", "serviceAccountName": "default"'
        assert own in text
        shared = own.replace(", ", ', "hostNetwork": true, ', 1)
        return text.replace(own, shared).replace(f'"{address}"', '"172.30.0.12"')

    return edit("api", "get pods", change)


@pytest.mark.parametrize(
    ("scenario", "address"), [(VXLAN, "10.244.1.160"), (NATIVE, "10.244.1.53")]
)
def test_a_host_network_pod_sends_as_its_node(scenario: str, address: str) -> None:
    bundle = changed(scenario, host_network(address), without("client"))
    path = ask(bundle, "client", "pod/web:8080")
    assert path.verdict == "delivered"
    assert "hostNetwork pod" in path.hops[0].summary
    assert not any(hop.place == "pod" for hop in path.hops[:-1])
    (policy,) = [hop for hop in path.hops if hop.kind == "policy"]
    # The node itself is identity 1; to other nodes it is a remote node (bpf/lib/encap.h).
    assert "from identity 6 (remote-node)" in policy.summary
    outside = ask(bundle, "client", "1.1.1.1:80")
    assert str(outside.hops[-1].packet.flow.source) == "172.30.0.12"


@pytest.mark.parametrize(("role", "name"), [("source", "client"), ("destination", "web")])
def test_a_pending_pod_is_named_with_its_reason(role: str, name: str) -> None:
    def pend(value: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        for pod in value["items"]:
            if pod["metadata"]["name"] == name:
                pod["spec"].pop("nodeName")
                pod["status"] = {
                    "phase": "Pending",
                    "conditions": [
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                         "message": "0/2 nodes are available"}
                    ],
                }  # fmt: skip

    path = ask(changed(VXLAN, json_edit("api", "get pods", pend)), "client", "pod/web:8080")
    assert path.verdict == "unknown"
    assert path.hops == ()
    found = finding(path, f"{role} pod default/{name} is Pending")
    assert "0/2 nodes are available" in found.title
    assert f"kubectl describe pod -n default {name}" in found.detail


def beside_the_client() -> list[Change]:
    """Pod web on the client's node: its Pod object, endpoint, policy map, device and ipcache."""

    def move(value: dict[str, list[dict[str, dict[str, object]]]]) -> None:
        (web,) = [pod for pod in value["items"] if pod["metadata"]["name"] == "web"]
        web["spec"]["nodeName"] = "node2"
        web["status"].update({"podIP": "10.244.1.200", "podIPs": [{"ip": "10.244.1.200"}]})

    def policy(value: list[dict[str, object]]) -> None:
        value.append({**value[0], "EndpointID": "1200"})

    def link(value: list[dict[str, object]]) -> None:
        value.append(
            {"ifindex": 15, "link_index": 14, "ifname": "lxcweb", "address": "ca:f7:8c:79:e1:5c",
             "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500, "operstate": "UP"}
        )  # fmt: skip

    endpoint = ("10.244.1.200:0   id=1200  sec_id=1395  flags=0x0000 ifindex=15  "
                "mac=1A:71:FF:C7:49:AA nodemac=CA:F7:8C:79:E1:5C parent_ifindex=0     \n")  # fmt: skip
    entry = "10.244.1.200/32     identity=1395 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>\n"
    return [
        json_edit("api", "get pods", move),
        json_edit("node2", "cilium-dbg bpf policy get --all -o json", policy),
        json_edit("node2", "ip -j -d link", link),
        edit("node2", "cilium-dbg bpf endpoint list", lambda t: t.rstrip("\n") + "\n" + endpoint),
        edit("node2", "cilium-dbg bpf ipcache list", lambda t: t.rstrip("\n") + "\n" + entry),
    ]


def test_two_pods_on_one_node_meet_no_stack() -> None:
    bundle = changed(VXLAN, *beside_the_client())
    path = ask(bundle, "client", "pod/web:8080")
    assert path.verdict == "delivered"
    assert {hop.node for hop in path.hops} == {"node2"}
    assert [hop.kind for hop in path.hops[3:]] == [
        "program", "policy", "route", "policy", "link", "delivery",
    ]  # fmt: skip
    handed = path.hops[5]
    assert "is endpoint 1200 on this node" in handed.summary
    assert says(bundle, handed.evidence, "10.244.1.200:0   id=1200")
    assert "ingress policy of endpoint 1200" in path.hops[6].summary


def test_ingress_policy_on_the_same_node_drops() -> None:
    def closed(value: list[dict[str, list[dict[str, dict[str, int]]]]]) -> None:
        for block in value:
            if block["EndpointID"] == "1200":
                entries = block["Content"]
                block["Content"] = [e for e in entries if e["Key"]["TrafficDirection"] == 1]

    close = json_edit("node2", "cilium-dbg bpf policy get --all -o json", closed)
    path = ask(changed(VXLAN, *beside_the_client(), close), "client", "pod/web:8080")
    assert "ingress policy of endpoint 1200 denies" in dropped_at(path).summary


@pytest.mark.parametrize("destination", ["pod/client:8080", "127.0.0.1:80", "10.244.1.160:1"])
def test_what_a_pod_sends_to_itself_stays_in_it(destination: str) -> None:
    path = ask(changed(VXLAN), "client", destination)
    assert path.verdict == "delivered"
    (hop,) = path.hops
    assert (hop.kind, hop.place) == ("delivery", "pod")


def test_an_address_of_a_pod_that_is_gone() -> None:
    """No endpoint of node1 has it; the ipcache knows only the node's prefix."""
    path = ask(changed(VXLAN), "client", "10.244.0.77:8080")
    hop = dropped_at(path)
    assert (hop.node, hop.where) == ("node1", "cilium_host")
    assert "no endpoint has 10.244.0.77 on node1: Stale or unroutable IP" in hop.summary
    assert finding(path, "10.244.0.77 is in node1's pod CIDR").severity == "error"


def test_a_port_that_the_service_does_not_serve() -> None:
    path = ask(changed(VXLAN), "client", "10.96.51.4:81")
    assert path.verdict == "unknown"
    found = finding(path, "svc default/web does not serve port 81/TCP")
    assert "It serves 80/TCP" in found.detail


# --- policy ---------------------------------------------------------------------------------------
POLICY_MAPS = "cilium-dbg bpf policy get --all -o json"


def egress_entry(
    identity: int, protocol: int, port: int, *, deny: int = 0, proxy: int = 0
) -> dict[str, object]:
    """An entry as `bpf policy get -o json` has it before 1.19: no precedence, ports swapped."""

    def swapped(number: int) -> int:
        return int.from_bytes(number.to_bytes(2, "big"), "little")

    length = 64 if port else 48 if protocol else 40
    return {
        "ProxyPortNetwork": swapped(proxy), "Flags": deny, "AuthRequirement": 0, "Packets": 0,
        "Bytes": 0,
        "Key": {"Prefixlen": length, "Identity": identity, "TrafficDirection": 1,
                "Nexthdr": protocol, "DestPortNetwork": swapped(port)},
    }  # fmt: skip


def client_policy(*entries: dict[str, object]) -> Change:
    """The policy map of the client's endpoint."""

    def replaced(value: list[dict[str, object]]) -> None:
        for block in value:
            if block["EndpointID"] == "1174":
                block["Content"] = list(entries)

    return json_edit("node2", POLICY_MAPS, replaced)


@pytest.mark.parametrize(
    ("entry", "verdict"),
    [
        (egress_entry(0, 1, 8), "delivered"),
        (egress_entry(0, 1, 0), "delivered"),
        (egress_entry(0, 1, 3), "dropped"),
        (egress_entry(0, 6, 8), "dropped"),
    ],
    ids=["echo request", "any type", "unreachable", "TCP"],
)
def test_icmp_goes_by_its_type(entry: dict[str, object], verdict: str) -> None:
    path = ask(changed(VXLAN, client_policy(entry)), "client", "9.9.9.9", "icmp")
    assert path.verdict == verdict


def test_an_old_deny_wins_over_a_narrower_allow() -> None:
    bundle = changed(VXLAN, client_policy(egress_entry(2, 6, 80), egress_entry(0, 0, 0, deny=1)))
    path = ask(bundle, "client", "9.9.9.9:80")
    hop = dropped_at(path)
    assert "Policy denied by denylist" in hop.summary
    assert says(bundle, hop.evidence, '"Flags": 1')
    found = finding(path, "policy drops the packet: endpoint 1174, egress, identity 2 (world)")
    assert "its entry “deny egress to any identity at any port” matches" in found.detail


def test_an_identity_of_a_cidr_rule() -> None:
    row = "9.9.9.0/24          identity=16777218 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>\n"
    ipcache = edit("node2", "cilium-dbg bpf ipcache list", lambda t: t.rstrip("\n") + "\n" + row)
    bundle = changed(VXLAN, client_policy(egress_entry(16777218, 6, 80)), ipcache)
    assert ask(bundle, "client", "9.9.9.9:80").verdict == "delivered"
    assert "denies to identity 2" in dropped_at(ask(bundle, "client", "9.9.8.9:80")).summary


def test_a_proxy_decides_after_the_map() -> None:
    bundle = changed(VXLAN, client_policy(egress_entry(0, 6, 80, proxy=10000)))
    path = ask(bundle, "client", "9.9.9.9:80")
    assert "through the L7 proxy at port 10000" in shown(path, "policy")[0]
    assert path.verdict == "unknown"
    assert "the L7 proxy on node2 (port 10000) decides" in path.reason
    assert finding(path, "the L7 proxy on node2 decides").severity == "info"


# --- IPv6 -----------------------------------------------------------------------------------------
TO_IPV6 = (
    ("10.244.1.53/32", "fd00:10:1::35/128"), ("10.244.0.251/32", "fd00:10::fb/128"),
    ("10.244.1.114/32", "fd00:10:1::72/128"), ("10.244.0.180/32", "fd00:10::b4/128"),
    ("10.244.1.53", "fd00:10:1::35"), ("10.244.0.251", "fd00:10::fb"),
    ("10.244.1.114", "fd00:10:1::72"), ("10.244.0.180", "fd00:10::b4"),
    ("10.244.0.0/24", "fd00:10::/64"), ("10.244.1.0/24", "fd00:10:1::/64"),
    ("10.244.0.0/16", "fd00:10::/32"), ("172.30.0.11", "fd00:30::b"),
    ("172.30.0.12", "fd00:30::c"), ('"ipv4":', '"ipv6":'), ('"family":"inet"', '"family":"inet6"'),
    ("    inet ", "    inet6 "), ('"prefixlen":32', '"prefixlen":128'),
)  # fmt: skip


def in_ipv6() -> Bundle:
    """The native cluster with IPv6 addresses in place of its own."""
    records = []
    for record in open_bundle(SCENARIOS / NATIVE).records:
        if record.command in ("ip6tables-save", "cat /proc/net/ipv6_route"):
            continue
        forms = {"ip route": ("ip", "-6", "route"), "iptables-save -c": ("ip6tables-save", "-c")}
        here = everywhere(*TO_IPV6)(record)
        assert here is not None
        if record.place.pod or record.command != "ip route":
            here = replace(here, argv=forms.get(record.command, record.argv))
        records.append(here)
    return bundle_of(records, NATIVE)


def test_two_pods_that_speak_ipv6() -> None:
    path = ask(in_ipv6(), "client", "pod/web:8080")
    plain = ask(changed(NATIVE), "client", "pod/web:8080")
    assert [(h.kind, h.node, h.state) for h in path.hops] == [
        (h.kind, h.node, h.state) for h in plain.hops
    ]
    assert "gateway fd00:10:1::72 (cilium_host of node2)" in path.hops[0].summary
    assert shown(path, "route", "node2")[1] == "fd00:10::/64 via fd00:30::b dev eth0"
    assert str(path.hops[-1].packet.flow) == "TCP [fd00:10:1::35]:53954 → [fd00:10::fb]:8080"


# --- what other people wrote ----------------------------------------------------------------------
HOSTILE = "\x1b]0;x\x07\u202e$(reboot)`'\"\\<b>|\u0000\r"


def test_hostile_words_in_what_the_cluster_says_are_words() -> None:
    """In labels, comments of rules, reasons and what stderr says; every form shows them escaped."""
    word = json.dumps(HOSTILE)[1:-1]
    bundle = changed(
        NATIVE,
        edit("node2", "iptables-save -c", lambda t: t.replace("cilium masquerade", HOSTILE.replace('"', ""))),
        edit("api", "get pods", lambda t: t.replace('"app": "web"', f'"app": "{word}"')),
        edit("node2", "cilium-dbg identity list -o json", lambda t: t.replace("k8s:app=web", f"k8s:app={word}")),
        edit("api", "get ciliumidentities", lambda t: t.replace('"web"', f'"{word}"')),
        fail("client", "ip route", HOSTILE),
    )  # fmt: skip
    for destination in ("1.1.1.1:80", "9.9.9.9:1", "pod/web:8080", "svc/web"):
        path = ask(bundle, "client", destination)
        for form in ("table", "wide", "tree", "mermaid", "dot"):
            text = render(path, bundle, form, View(width=0, color=False, evidence=True))
            assert not {"\x1b", "\x07", "\u202e", "\u0000", "\r"} & set(text), form
        assert json.loads(render(path, bundle, "json", View()))["verdict"] == path.verdict
