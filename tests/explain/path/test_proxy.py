"""L7 proxies and names of toFQDNs: captures of a real cluster (tests/features) with one thing
changed: what the agent's tables would have said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_ebpfnet.explain.path.fqdn import fits_any
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import EndpointState
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place, node_place, pod_place
from kubectl_ebpfnet.model.path import Path, Return, Severity
from kubectl_ebpfnet.model.protocol.codec import line_of
from tests.explain.path.changed import (
    NATIVE,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    swap,
)
from tests.explain.path.variants import edit, json_edit

FQDN, L7 = "../features/fqdn/agent.zip", "../features/l7-no-envoy/agent.zip"
ENDPOINTS = "cilium-dbg endpoint list -o json"
CT = "cilium-dbg bpf ct list global -d"
LISTEN = "   0: 0100007F:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0"
HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"


def cache(*entries: tuple[str, str, str, str]) -> Record:
    """What node2's agent says of names: (name, address, looked up at, expires at)."""
    said = [
        {"endpoint-id": 461, "fqdn": name, "ips": [address], "ttl": 60, "source": "lookup",
         "lookup-time": f"2026-11-30T04:{at}Z", "expiration-time": f"2026-11-30T04:{until}Z"}
        for name, address, at, until in entries
    ]  # fmt: skip
    return record("node2", q.FQDN_CACHE.forms[0], json.dumps(said))


def record(node: str, argv: tuple[str, ...], text: str) -> Record:
    """A record of an agent."""
    at = "2026-11-30T04:47:55Z"
    return Record(0, agent_place(node), argv, 0, started=at, stdout=InMemory(text.encode()))


def listeners(node: str, *ports: int) -> Record:
    """TCP sockets of a node that listen on loopback."""
    lines = [f"/proc/net/tcp:{HEADING}", *(f"/proc/net/tcp:{LISTEN.format(port=p)}" for p in ports)]
    return record(node, q.TCP_LISTENERS.forms[0], "\n".join((*lines, f"/proc/net/tcp6:{HEADING}")))


OK = ("ok.example.test.", "1.1.1.1", "47:41.135", "48:41.135")


def fqdn(destination: str, *entries: tuple[str, str, str, str]) -> Path:
    return ask(changed(FQDN, more=(cache(*entries),)), "pod/dnsclient", destination)


def test_a_cache_that_was_read_in_part_is_not_said_to_lack_a_name() -> None:
    """A node pod could not read what the agent wrote down of an endpoint."""
    gap = b"what the agent wrote down of endpoint 461 was not read"
    said = Record(0, node_place("node2"), q.FQDN_CACHE.node_argv, 0, stderr=gap)
    path = ask(changed(FQDN, more=(said,)), "pod/dnsclient", "1.1.3.1:80")
    assert path.verdict == "dropped"  # the map decides
    assert gap.decode() in path.cause
    assert "no name in the FQDN cache has" not in path.cause
    assert path.fix is not None
    assert "Let the pod look the name up again" not in path.fix.text


@pytest.mark.parametrize(("protocol", "named"), [("tcp", True), ("udp", False)])
def test_names_of_another_protocols_rule_are_not_asked(protocol: str, named: bool) -> None:
    path = ask(changed(FQDN, more=(cache(OK),)), "pod/dnsclient", "1.1.3.1:80", protocol)
    assert path.verdict == "dropped"
    assert ("toFQDNs allows" in path.cause) is named


def test_an_allowed_name_that_was_not_looked_up() -> None:
    path = fqdn("1.1.3.1:80", OK)
    assert dropped_at(path).kind == "policy"
    assert "no name in the FQDN cache has 1.1.3.1: it has ok.example.test → 1.1.1.1" in path.cause
    assert "(looked up 14 s before, expires in 46 s)" in path.cause
    assert path.fix is not None
    assert "look the name up again" in path.fix.text
    assert path.fix.command.endswith(" -- cilium-dbg fqdn cache list -e 461")


def test_an_address_that_is_of_a_name_which_no_rule_has() -> None:
    path = fqdn("1.1.2.1:80", OK, ("Other.example.test.", "1.1.2.1", "47:50", "48:50"))
    dropped_at(path)
    assert "1.1.2.1 is other.example.test → 1.1.2.1" in path.cause
    assert "which none of them is" in path.cause
    assert path.fix is not None
    assert "Name other.example.test in toFQDNs" in path.fix.text


def test_an_address_that_the_map_lacks_although_the_cache_has_it() -> None:
    path = fqdn("1.1.3.1:80", ("late.example.test.", "1.1.3.1", "47:00", "47:30"))
    dropped_at(path)
    assert "expired 25 s before" in path.cause
    assert "which its tables do not follow" in path.cause
    assert path.fix is not None
    assert "look the name up again" in path.fix.text


def no_entry(text: str) -> str:
    """An ipcache without the address of the name."""
    return "".join(row for row in text.splitlines(True) if not row.startswith("1.1.1.1/"))


@pytest.mark.parametrize(
    ("cached", "cause", "fix"),
    [
        ((OK,), "which its tables do not follow: the ipcache of node2 has no entry of 1.1.1.1",
         "The rules are right: see why the agent on node2 does not follow its own cache"),
        ((), "the ipcache of node2 has no entry of 1.1.1.1, so it is world (which names the pod",
         "See whether the pod looked up a name that has 1.1.1.1."),
    ],
)  # fmt: skip
def test_an_address_of_a_name_that_the_ipcache_lost(
    cached: tuple[tuple[str, str, str, str], ...], cause: str, fix: str
) -> None:
    lost = edit("node2", "cilium-dbg bpf ipcache list", no_entry)
    more = (cache(*cached),) if cached else ()
    path = ask(changed(FQDN, lost, more=more), "pod/dnsclient", "1.1.1.1:80")
    dropped_at(path)
    assert cause in path.cause
    assert "the nearest is egress[1]" in path.cause  # that of the names, not that of port 53
    assert path.fix is not None
    assert path.fix.text.startswith(fix)
    assert path.fix.command.endswith(" -- cilium-dbg fqdn cache list -e 461")


def test_the_name_that_allows_an_address_is_told() -> None:
    path = fqdn("1.1.1.1:80", OK)
    policy = next(hop for hop in path.hops if hop.kind == "policy")
    assert "it is ok.example.test → 1.1.1.1 (looked up 14 s before" in policy.summary


def test_a_name_is_its_address_in_the_fqdn_cache_where_no_look_up_is_recorded() -> None:
    path = fqdn("late.example.test:80", ("late.example.test.", "1.1.3.1", "47:00", "47:30"))
    assert path.destination.address is not None
    assert str(path.destination.address) == "1.1.3.1"
    assert "to the agent of its node, by its FQDN cache" in path.destination.note


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("a.example.test.", "a.example.test", True),
        ("A.example.test", "*.example.test", True),
        ("a.b.example.test", "*.example.test", False),
        ("example.test", "*.example.test", False),
        ("a.b.example.test", "**.example.test", True),
        ("sub-1x.example.test", "sub*x.example.test", True),
        ("axexample.test", "a.example.test", False),
        ("anything.at.all", "*", True),
        ("anything.at.all", "**", True),
        ("anything.at.all", "*.", True),
        ("a.b.example.test", "***.example.test", True),
        ("example.test", "***.example.test", False),
        ("aab.c.test", "*a*b.c*", False),
        ("aab.cx.test", "*a*b.c*.test", True),
        ("abcab.test", "a*b.test", True),
        ("a" * 120, "*a" * 20 + "*b", False),
        ("a" * 120 + "b", "*a" * 20 + "*b", True),
    ],
)
def test_patterns_of_names(name: str, pattern: str, fits: bool) -> None:
    assert fits_any(name, [pattern]) is fits


def test_a_query_goes_to_the_proxy_and_its_answer_comes_back_by_it() -> None:
    path = ask(changed(FQDN), "pod/dnsclient", "1.1.1.1:53", "udp")
    assert path.answer is not None
    assert path.answer.state is Return.RETURNS
    words = [hop.summary for hop in path.answer.hops]
    assert any("takes the answer, and answers its client as 1.1.1.1:53" in each for each in words)
    assert words[-1] == "pod default/dnsclient receives the answer of 1.1.1.1:53"


def test_no_dns_proxy() -> None:
    nobody = record(
        "node2", q.UDP_SOCKETS.forms[0], f"/proc/net/udp:{HEADING}\n/proc/net/udp6:{HEADING}"
    )
    path = ask(changed(FQDN, more=(nobody,)), "pod/dnsclient", "1.1.1.1:53", "udp")
    assert dropped_at(path).kind == "socket"
    assert "nothing listens at 127.0.0.1:42583/UDP" in path.cause


# --- Envoy ----------------------------------------------------------------------------------------


def by_envoy(value: Any) -> None:
    """The policy map of web's endpoint redirects 8080/TCP to port 18113."""
    (own,) = [each for each in value if each["EndpointID"] == "605"]
    entry = json.loads(json.dumps(own["Content"][0]))
    entry["Key"] |= {"Prefixlen": 64, "Nexthdr": 6, "DestPortNetwork": 0x901F,
                     "TrafficDirection": 0, "Identity": 32404}  # fmt: skip
    entry["ProxyPortNetwork"] = 0xC146
    own["Content"] = [entry, *(e for e in own["Content"] if e["Key"]["TrafficDirection"] == 1)]


def realized(value: Any) -> None:
    """What the agent wants is realized."""
    for one in value:
        policy = one["status"]["policy"]
        if one["id"] == 605:
            one["status"]["state"] = "ready"
            policy["realized"] = policy["spec"] | {"policy-enabled": "ingress"}


RULE_OF_DNS = "[0:0] -A CILIUM_PRE_mangle -p tcp -m mark --mark"
RULE = (
    f'{RULE_OF_DNS} 0xc1460200 -m comment --comment "cilium: TPROXY to host cilium-http-ingress '
    'proxy" -j TPROXY --on-port 18113 --on-ip 127.0.0.1 --tproxy-mark 0x200/0xffffffff\n'
)
REDIRECTED: tuple[Change, ...] = (
    json_edit("node1", "cilium-dbg bpf policy get --all -o json", by_envoy),
    json_edit("node1", ENDPOINTS, realized),
    edit(
        "node1", "iptables-save -c", lambda text: text.replace(RULE_OF_DNS, RULE + RULE_OF_DNS, 1)
    ),
)
TO_PROXY = swap(
    "node1", CT, "[ RxClosing TxClosing SeenNonSyn From", "[ ProxyRedirect RxClosing From"
)


def l7(*more: Record, also: tuple[Change, ...] = ()) -> Path:
    return ask(changed(L7, *REDIRECTED, *also, more=more), "pod/client", "10.44.0.5:8080")


def test_an_l7_policy_without_envoy_drops() -> None:
    path = l7(listeners("node1", 10250))
    where = dropped_at(path)
    assert (where.kind, where.node) == ("socket", "node1")
    assert "nothing listens at 127.0.0.1:18113/TCP" in path.cause
    assert path.fix is not None
    assert "cilium-envoy" in path.fix.command


def test_envoy_lets_requests_pass_by_its_rules() -> None:
    path = l7(listeners("node1", 10250, 18113))
    assert path.verdict == "delivered"
    said = finding(path, "Envoy of node1 decides about each request of endpoint 605")
    assert "lets GET /clientip pass" in said.detail
    assert "CiliumNetworkPolicy default/l7" in said.detail
    assert any("listens at 127.0.0.1:18113" in hop.summary for hop in path.hops)
    assert not [each for each in path.findings if each.severity is not Severity.INFO]


def test_an_answer_of_envoy_alone_is_none_of_the_destination() -> None:
    path = l7(listeners("node1", 18113), also=(TO_PROXY,))
    assert path.verdict == "reachable"
    assert "through the L7 proxy Envoy, which lets GET /clientip pass" in path.reason
    assert path.answer is not None
    assert path.answer.state is Return.RETURNS
    assert any("Envoy takes the answer" in hop.summary for hop in path.answer.hops)


def test_sockets_that_were_not_read_are_presumed_and_asked_for() -> None:
    path = l7(also=(TO_PROXY,))
    assert path.verdict == "reachable"
    assert any("that the L7 proxy Envoy listens at port 18113" in each for each in path.presumed)


def test_an_endpoint_that_is_behind_its_node() -> None:
    def older(value: Any) -> None:
        for one in value:
            if one["id"] == 605:
                one["status"] |= {"state": "ready"}
                one["status"]["policy"]["spec"]["policy-revision"] = 3

    path = ask(changed(L7, json_edit("node1", ENDPOINTS, older)), "pod/client", "10.44.0.5:8080")
    said = finding(path, "endpoint 605 on node1 is ready, with the policy of revision 3")
    assert said.severity is Severity.WARNING


@pytest.mark.parametrize("state", ["waiting-for-identity", "not-ready", "restoring", "invalid"])
def test_states_in_which_the_map_is_not_that_of_the_policy(state: str) -> None:
    edit = swap("node1", ENDPOINTS, '"state": "regenerating"', f'"state": "{state}"')
    path = ask(changed(L7, edit), "pod/client", "10.44.0.5:8080")
    assert finding(path, f"endpoint 605 on node1 is {state}").severity is Severity.WARNING


# --- both ends in the cluster ---------------------------------------------------------------------


def all_egress(value: Any) -> None:
    """Everything that node2's endpoints send is redirected to port 18113."""
    for each in value:
        for entry in each["Content"] or []:
            if entry["Key"]["TrafficDirection"] == 1:
                entry["ProxyPortNetwork"] = 0xC146


def ruled_by(parser: str) -> Change:
    """L7 rules of every endpoint on node2."""
    l7 = {"dns": [{"matchName": "a.b"}]} if parser == "dns" else {"http": [{"method": "GET"}]}
    rule = {"port": 0, "protocol": "ANY", "l7-rules": [{"any": l7}]}

    def change(value: Any) -> None:
        for one in value:
            one["status"]["policy"]["realized"]["l4"]["egress"] = [{"rule": json.dumps(rule)}]

    return json_edit("node2", ENDPOINTS, change)


@pytest.mark.parametrize("parser", ["dns", "http"])
@pytest.mark.parametrize("scenario", [VXLAN, NATIVE])
def test_a_service_behind_a_proxy_and_its_answer(scenario: str, parser: str) -> None:
    redirects = json_edit("node2", "cilium-dbg bpf policy get --all -o json", all_egress)
    path = ask(changed(scenario, redirects, ruled_by(parser)), "pod/client", "svc/web:80")
    sent = path.hops[-1].packet.flow
    assert sent.destination_port == 8080
    client = path.source.address
    # The DNS proxy asks from its node's address, Envoy with its client's.
    assert (sent.source == client) is (parser == "http")
    assert not [h for h in path.hops if h.kind == "nat" and h.packet.flow.source_port is not None]
    assert path.answer is not None
    assert path.answer.state is Return.RETURNS, path.answer.reason
    last = path.answer.hops[-1].packet.flow
    assert (last.destination, last.source_port) == (client, 8080 if scenario == VXLAN else 80)
    assert not [each for each in path.findings if each.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (EndpointState(605, building=400), "is being regenerated, for 400 s"),
        (EndpointState(605, building=2), "is being regenerated"),
        (EndpointState(605, failed=30), "could not be regenerated 30 s ago"),
    ],
)
def test_a_node_pod_tells_it_by_the_folders_of_a_regeneration(
    state: EndpointState, words: str
) -> None:
    argv = q.ENDPOINT_STATES.node_argv
    told = Record(0, node_place("node1"), argv, 0, stdout=InMemory(line_of(state)))
    path = ask(
        changed("../features/l7-no-envoy/pod.zip", more=(told,)), "pod/client", "10.44.0.5:8080"
    )
    assert finding(path, f"endpoint 605 on node1 {words}").severity is Severity.WARNING


REFUSED = "Server:\t\t1.1.1.1\nAddress:\t1.1.1.1:53\n\n** server can't find {}: {}\n"


@pytest.mark.parametrize("code", ["REFUSED", "NXDOMAIN"])
def test_a_name_that_the_dns_proxy_refuses_is_the_cause_of_the_error(code: str) -> None:
    name = "other.example.test"
    argv = q.NSLOOKUP.about(name).forms[0]
    said = REFUSED.format(name, code).encode()
    told = Record(0, pod_place("default", "dnsclient"), argv, 1, stdout=InMemory(said))
    path = ask(changed(FQDN, more=(told,)), "pod/dnsclient", f"{name}:80")
    assert path.verdict == "dropped", path.reason
    assert f"refuses queries for {name}" in path.cause
    assert path.drop is not None
    assert path.drop.object == "CiliumNetworkPolicy default/fqdn"


def test_an_error_of_a_nameserver_for_an_allowed_name_is_its_own() -> None:
    argv = q.NSLOOKUP.about("late.example.test").forms[0]
    said = REFUSED.format("late.example.test", "NXDOMAIN").encode()
    told = Record(0, pod_place("default", "dnsclient"), argv, 1, stdout=InMemory(said))
    path = ask(changed(FQDN, more=(told,)), "pod/dnsclient", "late.example.test:80")
    assert path.verdict == "unknown"
    assert "refuses" not in path.reason
