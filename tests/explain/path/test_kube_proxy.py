"""kube-proxy's chains on a pod's way to a Service: followed by what their rules say.

The rules are Kubernetes 1.36's (pkg/proxy/iptables/proxier.go), cut to one Service, in the recorded
cluster without kube-proxy replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import HopKind, State
from kubectl_ebpfnet.model.path import Path as Answer
from tests.explain.path.changed import (
    NATIVE,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    opened,
    say,
)
from tests.explain.path.test_services import CT, LB, SERVICES, untracked
from tests.explain.path.variants import edit, host_network

KPR_OFF = Path(__file__).parents[2] / "features/kpr-off-iptables/pod.zip"
VIP, LOCAL_END, OTHER_END = "10.96.71.229", "10.244.1.40:8080", "10.244.0.251:8080"
CHAINS = f""":KUBE-EXT-A - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SVL-A - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SEP-A -s 10.244.0.251/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination {OTHER_END}
-A KUBE-SEP-B -s 10.244.1.40/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination {LOCAL_END}
"""
ENTRY = f"-A KUBE-SERVICES -d {VIP}/32 -p tcp -m tcp --dport 80 -j "
ONE = "-A KUBE-SVC-A -j KUBE-SEP-A\n"
TWO = "-A KUBE-SVC-A -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-B\n" + ONE
AFFINITY = (
    "-A KUBE-SVC-A -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-B --mask "
    "255.255.255.255 --rsource -j KUBE-SEP-B\n" + TWO
)
EXTERNAL = (
    "-A KUBE-EXT-A -s 10.244.0.0/16 -j KUBE-SVC-A\n"
    "-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ\n"
    "-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-SVC-A\n"
    "-A KUBE-EXT-A -j KUBE-SVL-A\n"
)


def with_rules(*lines: str) -> Callable[[str], str]:
    """The recorded rules with kube-proxy's chains, and these rules."""

    def change(text: str) -> str:
        before, found, after = text.partition(":CILIUM_OUTPUT_nat - [0:0]\n")
        assert found
        return before + found + CHAINS + "".join(lines) + after

    return change


def path_by(*lines: str, more: tuple[Change, ...] = ()) -> Answer:
    """The path of the recorded client to svc/web, which kube-proxy alone balances."""
    changes = [
        say("node2", SERVICES, "[]"),
        say("node2", LB, ""),
        edit("node2", CT, untracked),
        edit("node2", "iptables-save -c", with_rules(*lines)),
        *more,
    ]
    return ask(changed(NATIVE, *changes), "client", "svc/web:80")


def balancing(path: Answer) -> tuple[str, str, str]:
    """State, destination and words of the hop that balances."""
    (hop,) = [hop for hop in path.hops if hop.kind is HopKind.LOAD_BALANCING]
    flow = hop.packet.flow
    return str(hop.state), f"{flow.destination}:{flow.destination_port}", hop.summary


@pytest.mark.parametrize(
    ("lines", "to", "words"),
    [
        ((ENTRY + "KUBE-SVC-A\n", ONE), OTHER_END, "(KUBE-SVC-A)"),
        ((ENTRY + "KUBE-SVL-A\n", "-A KUBE-SVL-A -j KUBE-SEP-A\n", TWO), OTHER_END, "(KUBE-SVL-A)"),
        ((ENTRY + "KUBE-SVC-A\n", TWO), LOCAL_END, "one of 2 backends"),
        ((ENTRY + "KUBE-SVC-A\n", AFFINITY), LOCAL_END, "one of 2 backends"),
    ],
)
def test_the_chain_names_the_backend(lines: tuple[str, ...], to: str, words: str) -> None:
    path = path_by(*lines)
    state, destination, summary = balancing(path)
    assert (state, destination) == ("derived", to)
    assert words in summary
    assert "by netfilter's rules of kube-proxy" in summary


def test_an_empty_chain_translates_nothing_whatever_an_old_entry_says() -> None:
    line = (
        f"ipv4     2 tcp      6 97 TIME_WAIT src=10.244.1.53 dst={VIP} sport=38511 dport=80 "
        "src=10.244.0.251 dst=10.244.1.53 sport=8080 dport=38511 [ASSURED] mark=0 zone=0 use=2\n"
    )
    old = edit("node2", "cat /proc/net/nf_conntrack", lambda text: line + text)
    path = path_by(ENTRY + "KUBE-SVC-A\n", more=(old,))
    assert path.verdict == "unknown"
    assert "KUBE-SERVICES rule 1 leads to KUBE-SVC-A, which has no rule" in path.reason
    assert finding(path, "kube-proxy's rules on node2 do not translate").severity == "error"
    assert str(path.hops[-1].packet.flow.destination) == VIP


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "no rule of KUBE-SERVICES is for it"),
        ((ENTRY + "KUBE-SVC-B\n",), "what target KUBE-SVC-B does is not known"),
        ((ENTRY + "KUBE-SVC-A\n", "-A KUBE-SVC-A -p udp -j KUBE-SEP-A\n"), "none of whose rules"),
    ],
)
def test_rules_that_lead_nowhere(lines: tuple[str, ...], words: str) -> None:
    path = path_by(*lines)
    assert path.verdict == "unknown"
    assert words in path.reason


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("-A PREROUTING ", "-A UNUSED ", "no rule of PREROUTING leads to KUBE-SERVICES"),
        (
            "-A PREROUTING ",
            f"-A PREROUTING -d {VIP} -j ACCEPT\n-A PREROUTING ",
            "it does not come to PREROUTING rule 2, which leads to KUBE-SERVICES",
        ),
    ],
)
def test_the_chain_that_would_translate_is_not_blamed(old: str, new: str, words: str) -> None:
    def change(text: str) -> str:
        at = text.index("*nat")
        end = text.index("COMMIT", at)
        nat = "\n".join(line for line in text[at:end].split("\n") if "CILIUM_PRE" not in line)
        return text[:at] + nat.replace(old, new) + text[end:]

    path = path_by(ENTRY + "KUBE-SVC-A\n", ONE, more=(edit("node2", "iptables-save -c", change),))
    assert path.verdict == "unknown"
    assert words in path.reason
    assert "none of whose rules" not in path.reason
    assert finding(path, "kube-proxy's rules on node2 do not translate").severity == "error"


def test_an_unknown_rule_before_the_backend_is_no_dice() -> None:
    unknown = "-A KUBE-SVC-A -m set --match-set some src -j KUBE-SEP-B\n"
    path = path_by(ENTRY + "KUBE-SVC-A\n", unknown + ONE)
    assert path.verdict == "unknown"
    assert balancing(path)[0] == "unknown"
    assert "-m set" in path.reason


def test_a_pod_reaches_a_local_load_balancer_without_masquerading() -> None:
    path = path_by(ENTRY + "KUBE-EXT-A\n", EXTERNAL, ONE, "-A KUBE-SVL-A -j KUBE-SEP-A\n")
    assert path.verdict == "reachable"
    assert not [one for one in path.findings if one.severity == "error"]
    assert not [hop for hop in path.hops if hop.kind is HopKind.NAT]
    assert balancing(path)[1] == OTHER_END
    assert str(path.hops[-1].packet.flow.source) == "10.244.1.53"


def test_the_masquerading_mark_goes_to_postrouting() -> None:
    marked = "-A KUBE-EXT-A -j KUBE-MARK-MASQ\n-A KUBE-EXT-A -j KUBE-SVC-A\n"
    path = path_by(ENTRY + "KUBE-EXT-A\n", marked, ONE)
    (nat,) = [hop for hop in path.hops if hop.kind is HopKind.NAT and hop.node == "node2"]
    assert "masquerades the source to 172.30.0.12 by KUBE-POSTROUTING rule 3" in nat.summary
    assert nat.state is State.DERIVED
    # Whether it is marked is not known, nor then its source.
    doubtful = marked.replace("-j KUBE-MARK", "-m frob -j KUBE-MARK")
    path = path_by(ENTRY + "KUBE-EXT-A\n", doubtful, ONE)
    assert path.verdict == "unknown"
    assert "the packet's mark is not known, at which KUBE-POSTROUTING rule 1" in path.reason
    assert "KUBE-MARK-MASQ rule 1" in path.reason


def test_a_service_without_endpoints_is_rejected() -> None:
    def reject(text: str) -> str:
        before, found, after = text.partition("*filter\n")
        rule = f'-A FORWARD -d {VIP}/32 -p tcp -m comment --comment "default/web:http has no '
        rule += 'endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\n'
        body, commit, rest = after.partition("COMMIT\n")
        lines = [line for line in body.splitlines(keepends=True) if "-A FORWARD" not in line]
        return before + found + "".join(lines) + rule + commit + rest

    path = path_by(more=(edit("node2", "iptables-save -c", reject),))
    hop = dropped_at(path)
    assert "rejects it by FORWARD rule 1 “default/web:http has no endpoints”" in hop.summary


def test_what_to_do_about_a_rule_of_kube_proxy_is_the_services() -> None:
    def refuse(text: str) -> str:
        rule = '-A KUBE-EXTERNAL-SERVICES -m comment --comment "default/web:http has no local '
        rule += 'endpoints" -j DROP\n-A FORWARD -j KUBE-EXTERNAL-SERVICES\n'
        before, found, after = text.partition("*filter\n")
        body, commit, rest = after.partition("COMMIT\n")
        lines = [line for line in body.splitlines(keepends=True) if "-A FORWARD" not in line]
        return before + found + "".join(lines) + rule + commit + rest

    path = path_by(more=(edit("node2", "iptables-save -c", refuse),))
    assert dropped_at(path).kind is HopKind.RULE
    # The Service's policy is Cluster now: kube-proxy has not seen that.
    assert "are behind svc default/web: its internalTrafficPolicy is Cluster" in path.cause
    assert path.drop is not None
    assert path.drop.object == "kube-proxy on node2"
    assert path.fix is not None
    assert "-l k8s-app=kube-proxy --field-selector spec.nodeName=node2" in path.fix.command


def test_a_packet_of_the_node_is_balanced_in_output() -> None:
    path = path_by(ENTRY + "KUBE-SVC-A\n", ONE, more=(host_network("10.244.1.53"),))
    assert balancing(path)[1] == OTHER_END


def test_where_one_of_two_backends_loses_the_packet_the_choice_decides() -> None:
    path = path_by(ENTRY + "KUBE-SVC-A\n", TWO)
    assert path.verdict == "unknown"
    assert "1 of 2 backends" in path.reason
    assert LOCAL_END in path.reason
    assert finding(path, "1 of 2 backends").severity == "error"


def test_rules_for_others_do_not_make_kube_proxy_broken() -> None:
    """An external address is translated for what comes from outside alone."""
    external = ENTRY.replace(" -j ", " -m addrtype --src-type LOCAL -j ")
    masquerade = ENTRY + "KUBE-MARK-MASQ\n"
    path = path_by(masquerade, external + "KUBE-SVC-A\n", ONE)
    assert "KUBE-SERVICES rule 2 is for it, but not from 10.244.1.53" in balancing(path)[2]
    assert not [one for one in path.findings if "do not translate" in one.title]


RANGES = (
    ":KUBE-FW-A - [0:0]\n:KUBE-MARK-DROP - [0:0]\n",
    "-A KUBE-FW-A -s 192.0.2.0/24 -j KUBE-SVC-A\n-A KUBE-FW-A -j KUBE-MARK-DROP\n",
    "-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000\n",
)
"""As kube-proxy up to 1.24 writes them: only a mark, which FORWARD does not look at."""


def test_an_address_that_is_left_alone_has_no_neighbour_and_that_is_not_the_cause() -> None:
    on_link = f'[{{"dst":"{VIP}","dev":"eth0","scope":"link","flags":[]}},'
    failed = f'[{{"dst":"{VIP}","dev":"eth0","state":["FAILED"]}},'
    tables = (
        edit("node2", "ip -j route show table all", lambda text: text.replace("[", on_link, 1)),
        edit("node2", "ip -j neigh", lambda text: text.replace("[", failed, 1)),
    )
    path = path_by(*RANGES, ENTRY + "KUBE-FW-A\n", ONE, more=tables)
    hop = dropped_at(path)
    assert hop.summary == f"next hop {VIP} on eth0 is FAILED"
    assert path.cause.startswith("svc default/web does not let 10.244.1.53 in")
    assert path.fix is not None
    assert "loadBalancerSourceRanges" in path.fix.text
    error = finding(path, f"neighbour {VIP} on eth0 of node2 is FAILED")
    assert "keeps the address of svc default/web" in error.detail


def test_source_ranges_that_leave_it_alone_are_the_cause() -> None:
    path = path_by(*RANGES, ENTRY + "KUBE-FW-A\n", ONE)
    assert path.verdict == "unknown"
    assert path.reason.startswith("svc default/web does not let 10.244.1.53 in")
    assert path.fix is not None
    assert "loadBalancerSourceRanges" in path.fix.text
    assert not [one for one in path.findings if "do not translate" in one.title]


def test_endpoints_that_the_slices_lack() -> None:
    gone = "-A KUBE-SEP-C -p tcp -m tcp -j DNAT --to-destination 10.244.0.99:8080\n"
    lines = (":KUBE-SEP-C - [0:0]\n", "-A KUBE-SVC-A -j KUBE-SEP-C\n", gone)
    path = path_by(lines[0], ENTRY + "KUBE-SVC-A\n", *lines[1:])
    assert not path.verdict.let_through
    error = finding(path, "kube-proxy's rules on node2 are behind svc default/web")
    assert error.severity == "error"
    assert "they send to 10.244.0.99:8080, which no EndpointSlice names" in error.detail
    assert path.fix is not None
    assert "k8s-app=kube-proxy" in path.fix.command


@pytest.mark.parametrize(
    ("source", "address", "past", "node"),
    [
        ("client1", "172.31.7.12:31692", "node2", "node2"),
        ("client", "172.31.7.242:80", "netfilter of node2", "node2"),
        ("client1", "172.31.7.242:80", "netfilter of node1", "node1"),
    ],
)
def test_an_answer_past_the_node_that_translated_is_lost(
    source: str, address: str, past: str, node: str
) -> None:
    """Nobody masquerades: the answer comes straight from a backend of the sender's own node, or by
    Cilium's programs, which hand it to the sender past the conntrack that translated."""
    path = ask(opened(KPR_OFF), source, address)
    assert path.verdict.let_through, path.reason

    lost = ask(not_masqueraded(), source, address)
    assert f"past {past}, which translated the packet" in lost.reason, lost.reason
    assert lost.verdict == "dropped"
    assert lost.fix is not None
    assert f"Let {node} masquerade what it translates" in lost.fix.text


def test_a_connected_socket_takes_no_answer_of_udp_past_the_node_that_translated() -> None:
    path = ask(opened(KPR_OFF), "client", "172.31.7.240:90", "udp")
    assert path.verdict.let_through, path.reason
    path = ask(not_masqueraded(), "client", "172.31.7.240:90", "udp")
    assert path.verdict == "unknown"
    assert "past netfilter of node2, which translated the packet: a connected" in path.reason


def not_masqueraded() -> Bundle:
    """Without rules of POSTROUTING on both nodes, and without what was seen before."""
    records = [_no_post(record) for record in opened(KPR_OFF).records]
    return bundle_of(untracked_now(records), "kpr-off")


def _no_post(record: Record) -> Record:
    if record.argv[0] != "iptables-save":
        return record
    kept = [
        line
        for line in record.stdout.read().decode().splitlines(keepends=True)
        if not line.startswith(("[", "-A")) or "POSTROUTING" not in line.partition("-A ")[2][:16]
    ]
    text = "".join(line for line in kept if "-A CILIUM_POST_nat" not in line)
    return replace(record, stdout=InMemory(text.encode()))


def untracked_now(records: list[Record]) -> list[Record]:
    """Without the flows that were seen while it worked."""
    tables = ("ct", "conntrack")
    return [
        replace(record, stdout=InMemory())
        if record.argv[0] == "ebpfnet-node" and record.argv[1] in tables
        else record
        for record in records
    ]


def test_ipvs_is_undecided_and_names_its_table() -> None:
    ipvs = (
        ":KUBE-LOAD-BALANCER - [0:0]\n:KUBE-NODE-PORT - [0:0]\n",
        "-A KUBE-SERVICES -m comment --comment cluster -m set --match-set KUBE-CLUSTER-IP dst,dst "
        "-j KUBE-MARK-MASQ\n",
        "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT\n",
    )
    path = path_by(*ipvs)
    assert path.verdict == "unknown"
    assert "IPVS may, and the kernel's IPVS table of node2 was not read" in path.reason
    assert path.fix is not None
    assert path.fix.command == "ipvsadm -Ln"
    assert not [one for one in path.findings if one.severity == "error"]


def test_a_node_port_that_nothing_translates_is_kube_proxys_fault() -> None:
    def without(record: Record) -> Record:
        if record.argv[0] != "iptables-save" or record.place.node != "node2":
            return record
        lines = record.stdout.read().decode().splitlines(keepends=True)
        text = "".join(line for line in lines if "-A PREROUTING" not in line)
        return replace(record, stdout=InMemory(text.encode()))

    records = untracked_now([without(record) for record in opened(KPR_OFF).records])
    path = ask(bundle_of(records, "kpr-off"), "client1", "172.31.7.12:31692")
    assert path.verdict == "unknown"
    assert "kube-proxy's rules on node2 do not translate NodePort" in path.cause
    assert "no rule of PREROUTING leads to KUBE-SERVICES" in path.cause
    assert path.fix is not None
    assert "--field-selector spec.nodeName=node2" in path.fix.command


def test_what_a_masquerade_at_a_pods_device_may_give_is_said_once() -> None:
    """The device to a pod has no address: the kernel takes one of the node's."""
    lines = (ENTRY + "KUBE-MARK-MASQ\n", ENTRY + "KUBE-SVC-A\n", "-A KUBE-SVC-A -j KUBE-SEP-B\n")
    to_pod = '[{"dst":"10.244.1.40","dev":"lxc00f235fb673a","scope":"link","flags":[]},'
    changes = [
        say("node2", SERVICES, "[]"),
        say("node2", LB, ""),
        edit("node2", CT, untracked),
        edit("node2", "iptables-save -c", with_rules(*lines)),
        edit("node2", "ip -j route show table all", lambda text: text.replace("[", to_pod, 1)),
    ]
    path = ask(changed(NATIVE, *changes), "node/node2", "svc/web:80")
    (hop,) = [hop for hop in path.hops if "masquerades the source to one of" in hop.summary]
    assert "KUBE-POSTROUTING rule 3" in hop.summary
    assert hop.reason == "which of them is not known"


N12 = "../faults/n12-fwmark-blackhole/agent.zip"


def test_a_host_port_of_the_nodes_own_process_needs_no_rule() -> None:
    """A hostNetwork pod's: Cilium's map leads the port to itself."""
    path = ask(changed(N12), "client", "172.31.7.12:9963")
    assert path.verdict == "reachable"
    assert not [f.title for f in path.findings if f.severity == "error"]
