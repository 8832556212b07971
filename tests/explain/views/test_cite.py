"""Citations: of a fact's own object or lines, where another one looks like it.

Each record here holds, before the fact, something that a search by some of the fact's words finds
first: the citation that it was before spans.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from kubectl_ebpfnet.explain.lb import evidence as lb_evidence
from kubectl_ebpfnet.explain.path import services
from kubectl_ebpfnet.explain.path.stages.forward import endpoint_evidence
from kubectl_ebpfnet.explain.path.stages.link_state import link_evidence
from kubectl_ebpfnet.explain.programs.at_device import at_device
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    InMemory,
    Place,
    Record,
    Span,
    agent_place,
    bundle_of,
    node_place,
)
from kubectl_ebpfnet.model.matching import matching_lines, text_lines
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.protocol.questions import node_argv
from tests.explain.lb import lb_bundle
from tests.explain.path import changed

AGENT = agent_place("n1")


def said(command: str, stdout: Any, place: Place = AGENT) -> Record:
    """What a command printed: text, or JSON."""
    text = stdout if isinstance(stdout, str) else json.dumps(stdout)
    return Record(1, place, tuple(command.split()), 0, InMemory(text.encode()))


def view(*records: Record) -> NodeView:
    """The node with these records."""
    return ClusterView(bundle_of(records)).node("n1")


def quoted(evidence: tuple[Evidence, ...]) -> Any:
    """The one object of JSON that is quoted."""
    ((quote,),) = (item.excerpt for item in evidence)
    return json.loads(quote)


def test_a_route_is_quoted_of_its_own_table() -> None:
    """The review's fifth: table 2004's route has the words of main's."""
    same = {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "flags": []}
    node = view(said("ip -j route show table all", [same, {**same, "table": "2004"}]))
    (route,) = (one for one in node[q.ROUTES].facts if one.table == "2004")
    assert quoted(cite.of(node[q.ROUTES].record, route.span))["table"] == "2004"


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r", "\r\r"])
def test_only_a_newline_ends_a_line(end: str) -> None:
    """The review's fifth, too: str.splitlines knows a dozen ends of lines, parsers one."""
    comment = f'-A INPUT -m comment --comment "a{end}b" -j ACCEPT'
    text = f"*filter\n:INPUT DROP [0:0]\n{comment}\n-A INPUT -s 192.0.2.9/32 -j DROP\r\nCOMMIT\n"
    node = view(said("iptables-save -c", text))
    answer = node.ruleset(4)
    rule = answer.facts[0].rules[1]
    (cited,) = lb_evidence.rules(answer, rule)
    assert (cited.lines, cited.excerpt) == ((4,), (rule.text,))
    assert answer.record is not None
    streamed = [
        line.decode().removesuffix("\r") for _, line in matching_lines(answer.record.stdout, ())
    ]
    assert text_lines(text) == [*streamed, ""]


def frontend(protocol: str, scope: str = "external") -> dict[str, Any]:
    """A service as `service list -o json` has it."""
    address = {"ip": "10.96.0.10", "port": 53, "protocol": protocol, "scope": scope}
    realized = {"frontend-address": address, "id": 3, "flags": {"type": "ClusterIP"}}
    return {"spec": {**realized, "id": 4}, "status": {"realized": realized}}


@pytest.mark.parametrize("first", [frontend("UDP"), frontend("TCP"), frontend("TCP", "internal")])
@pytest.mark.parametrize("decides", [frontend("TCP", "internal")])
def test_a_frontend_is_quoted_of_its_own_protocol_and_scope(first: Any, decides: Any) -> None:
    cluster = ClusterView(bundle_of([said("cilium-dbg service list -o json", [first, decides])]))
    found = services.find(cluster, "n1", ip_address("10.96.0.10"), 53, TCP)
    assert found is not None
    assert quoted(found.evidence) == decides["spec"]["frontend-address"]


def endpoint(number: int, device: str, *addresses: str) -> dict[str, Any]:
    """An endpoint as `endpoint list -o json` has it."""
    pairs = [{"ipv6" if ":" in one else "ipv4": one} for one in addresses]
    networking = {"addressing": pairs, "interface-name": device, "mac": f"02:00:00:00:00:{number}"}
    return {"id": number, "status": {"networking": networking}}


@pytest.mark.parametrize("address", ["10.0.0.2", "fd00::2"])
def test_an_endpoint_is_quoted_though_another_has_its_device(address: str) -> None:
    """A former endpoint may still be listed with the device; IPv6 has no `ipv4`."""
    both = [endpoint(11, "lxc1"), endpoint(12, "lxc1", "10.0.0.2", "fd00::2")]
    node = view(said("cilium-dbg endpoint list -o json", both))
    found = node.local_endpoint(ip_address(address))
    assert found is not None
    assert quoted(endpoint_evidence(node, found))["mac"] == "02:00:00:00:00:12"


def test_an_endpoint_of_the_datapaths_map_is_not_quoted_of_the_agents_list() -> None:
    row = "IP ADDRESS   LOCAL ENDPOINT INFO\n10.0.0.9:0   id=9  flags=0x0000 ifindex=7 mac=02:00 \n"
    listed = said("cilium-dbg endpoint list -o json", [endpoint(11, "lxc1", "10.0.0.2")])
    links = said("ip -j -d link", [{"ifindex": 7, "ifname": "lxc1"}])
    node = view(said("cilium-dbg bpf endpoint list", row), listed, links)
    found = node.local_endpoint(ip_address("10.0.0.9"))
    assert found is not None
    assert found.interface == "lxc1"
    assert endpoint_evidence(node, found) == ()


def test_the_mode_of_masquerading_is_not_the_one_of_host_routing() -> None:
    status = {"host-routing": {"mode": "BPF"}, "masquerading": {"enabled": True, "mode": "BPF"}}
    node = view(said("cilium-dbg status -o json", status))
    assert node.config.masquerade == "bpf"
    assert quoted(cite.of(node.config_record, node.config.masquerading))["enabled"]


def test_a_program_is_quoted_of_its_own_hook() -> None:
    """One program may be attached at several hooks of a device."""
    tc = [
        {"devname": "eth0", "ifindex": 2, "kind": f"clsact/{side}", "name": "x", "id": 7}
        for side in ("ingress", "egress")
    ]
    xdp = [{"devname": "eth0", "ifindex": 2, "mode": "driver", "id": 7}]
    node = view(said("bpftool -j net show", [{"xdp": xdp, "tc": tc, "flow_dissector": []}]))
    (found,) = at_device(node, "eth0", "egress").programs
    assert quoted(found.evidence)["kind"] == "clsact/egress"


def test_a_device_of_an_excerpt_is_cited_without_its_neighbour() -> None:
    """`ip a | grep mtu` leaves first lines alone; the next line is another device's."""
    text = "2: eth0: <UP> mtu 1500\n3: eth1: <UP> mtu 1500\n    link/ether 02:00:00:00:00:03\n"
    node = view(said("ip -d link", text))
    eth0, eth1 = node[q.LINKS].facts
    assert (eth0.span.head(2), eth1.span.head(2)) == (Span(1), Span(2, 3))
    assert link_evidence(node, "eth1")[0].lines == (2,)


def test_a_neighbour_is_quoted_and_not_its_proxy_entry() -> None:
    proxy = '[{"dst":"172.30.0.200","dev":"eth0","proxy":null},{"dst":"172.30.0.200"'
    cluster = changed.changed(
        changed.VXLAN, changed.swap("node2", "ip -j neigh", '[{"dst":"172.30.0.200"', proxy)
    )
    (hop,) = (
        h for h in changed.ask(cluster, "client", "1.1.1.1:80").hops if "next hop" in h.summary
    )
    assert quoted(hop.evidence)["lladdr"] == "26:be:8c:fd:c9:3a"


def policy_hop(policies: str) -> tuple[Evidence, ...]:
    """The proof of a policy that allows, with other policy maps."""
    command = "cilium-dbg bpf policy get --all -o json"
    cluster = changed.changed(changed.VXLAN, changed.say("node2", command, policies))
    hops = changed.ask(cluster, "client", "1.1.1.1:80").hops
    (hop,) = (h for h in hops if h.kind == "policy")
    return hop.evidence[:1]  # behind it is what monitor showed


def maps_of_1174() -> list[dict[str, Any]]:
    """A map with two entries, of which the second decides."""
    key = {"Prefixlen": 40, "Identity": 99, "TrafficDirection": 1, "Nexthdr": 0}
    other = {"Key": key, "ProxyPortNetwork": 0, "Flags": 0}  # members in no version's order
    entry = {"ProxyPortNetwork": 0, "Flags": 0, "Key": {**key, "Identity": 0}}
    return [{"EndpointID": "1174", "Path": "/x", "Content": [other, entry]}]


def test_a_policy_entry_is_cited_by_its_own_lines() -> None:
    text = json.dumps(maps_of_1174(), indent=2)
    (cited,) = policy_hop(text)
    lines = text.split("\n")
    assert [lines[number - 1].strip() for number in cited.lines] == list(cited.excerpt)
    assert json.loads("".join(cited.excerpt))["Key"]["Identity"] == 0


def test_a_policy_entry_without_lines_is_quoted_alone() -> None:
    assert quoted(policy_hop(json.dumps(maps_of_1174())))["Key"]["Identity"] == 0


def test_the_endpoints_of_another_service_are_not_quoted() -> None:
    """Two Services may choose the same pods, and publish one that is not ready."""
    node, mine = lb_bundle.node("n1"), lb_bundle.slice_of(lb_bundle.endpoint("n1"))
    theirs = lb_bundle.slice_of(lb_bundle.endpoint("n1", ready=False))
    theirs["metadata"]["labels"] = {"kubernetes.io/service-name": "other"}
    cluster = ClusterView(
        bundle_of(
            [
                lb_bundle.api("nodes", node),
                lb_bundle.api("services", lb_bundle.service()),
                lb_bundle.api("endpointslices", theirs, mine),
            ]
        )
    )
    ends = [end for end in cluster.kube.endpoints if end.service == "web-lb"]
    proof = lb_evidence.ApiProof(cluster, cluster.kube.services[0])
    _, cited = proof.of(ends, "n1")
    assert [json.loads(quote)["conditions"]["ready"] for quote in cited.excerpt] == [True]


def test_a_second_endpoint_of_a_slice_is_quoted_as_itself() -> None:
    two = lb_bundle.slice_of(lb_bundle.endpoint("n1"), lb_bundle.endpoint("n2"))
    cluster = ClusterView(bundle_of([lb_bundle.api("endpointslices", two)]))
    first, second = cluster.kube.endpoints
    for end in (first, second):
        record = cluster.api_record_of(end)
        assert quoted(cite.of(record, end.span))["nodeName"] == end.node


def test_a_pod_is_quoted_of_the_record_that_has_it() -> None:
    records = [lb_bundle.api("pods", lb_bundle.pod(name)) for name in ("n1", "n2")]
    cluster = ClusterView(bundle_of(records))
    first, second = cluster.kube.pods
    for number, pod in ((1, first), (2, second)):
        evidence = cite.of(cluster.api_record_of(pod), pod.span.member("metadata"))
        assert (evidence[0].record, quoted(evidence)["name"]) == (number, pod.name)


def test_a_fact_of_the_node_side_is_cited_by_its_line() -> None:
    facts = '{"index":1,"name":"lo"}\n{"index":2,"name":"eth0"}\n{"index":3,"name":"eth1"}\n'
    record = Record(1, node_place("n1"), node_argv("links"), 0, InMemory(facts.encode()))
    node = view(record)
    (cited,) = link_evidence(node, "eth0")
    assert (cited.lines, cited.excerpt) == ((2,), ('{"index":2,"name":"eth0"}',))
    link = node.link("eth0")
    assert link is not None
    assert link.span.head(2).lines == range(2, 3)  # the line below is the next device's


def test_what_is_nowhere_is_cited_by_its_record_alone() -> None:
    record = said("ip -j neigh", [{}])
    for span in (Span(), Span(9), Span(path=(5,)), Span(path=("x",)), Span(path=(0, "x"))):
        assert cite.of(record, span) == (Evidence(1),)
    assert cite.of(said("ip -j neigh", "no JSON"), Span(path=(0,))) == (Evidence(1),)
    assert cite.of(None, Span(1)) == cite.block(None, Span(1)) == ()
