"""netfilter on a packet's way: the recorded native-iptables cluster with rules changed.

What cannot be evaluated makes a verdict unknown; it never makes a packet dropped, nor delivered.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place
from kubectl_ebpfnet.model.path import HopKind, State, Verdict
from kubectl_ebpfnet.model.path import Path as Answer
from tests.explain.path.changed import (
    NATIVE,
    VXLAN,
    Change,
    ask,
    changed,
    dropped_at,
    finding,
    say,
    swap,
    without,
)
from tests.explain.path.test_services import CT, LB, SERVICES, untracked
from tests.explain.path.variants import edit, host_network

SAVE = "iptables-save -c"
UNKNOWN = "-m set --match-set blocked src"
TO = "198.51.100.9"
"""A destination outside, of which the recorded cluster knows no flow."""


def rules(*lines: str, node: str = "node2") -> list[Change]:
    """The node's rules with more of them: `mangle PREROUTING -j MARK …` comes first in its chain,
    and `:filter FORWARD DROP` is a policy."""
    changes = []
    for line in reversed(lines):
        table, chain, words = line.removeprefix(":").split(" ", 2)
        changes.append(_first(node, table, chain, words, policy=line.startswith(":")))
    return changes


def _first(node: str, table: str, chain: str, words: str, *, policy: bool) -> Change:
    def change(record: Record) -> Record:
        if record.place.node != node or record.command != SAVE:
            return record
        said = record.stdout.read().decode()
        before, start, after = said.partition(f"*{table}\n")
        assert start, f"no table {table}"
        body, commit, rest = after.partition("COMMIT\n")
        if policy:
            body = body.replace(f":{chain} ACCEPT", f":{chain} {words}", 1)
        else:
            declared, _, ruled = body.rpartition(" [0:0]\n") if "-A " not in body else _cut(body)
            body = f"{declared}[0:0] -A {chain} {words}\n{ruled}"
            if f":{chain} " not in body:
                body = f":{chain} - [0:0]\n{body}"
        return replace(record, stdout=InMemory((before + start + body + commit + rest).encode()))

    return change


def _cut(body: str) -> tuple[str, str, str]:
    """The declarations of a table, and its rules."""
    lines = body.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if "-A " in line)
    return "".join(lines[:at]), "", "".join(lines[at:])


def path_with(*lines: str, to: str = f"{TO}:80", more: tuple[Record, ...] = ()) -> Answer:
    """The path of the recorded client with more rules on its node."""
    return ask(changed(NATIVE, *rules(*lines), more=more), "client", to)


def rule_hops(path: Answer) -> list[str]:
    """What the hops of netfilter on the client's node say."""
    return [hop.summary for hop in path.hops if (hop.kind, hop.node) == (HopKind.RULE, "node2")]


OPEN = "filter CILIUM_FORWARD -i lxc+ -j RETURN"
"""Takes Cilium's own rule, which accepts what comes from pods, out of the way."""


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        # code-review.md, "False certainty", 1 to 3.
        ((OPEN, f"filter FORWARD {UNKNOWN} -j ACCEPT", ":filter FORWARD DROP"), "unknown"),
        ((OPEN, f"filter FORWARD {UNKNOWN} -j RETURN", "filter FORWARD -j DROP"), "unknown"),
        ((OPEN, "filter FORWARD -j MARK --set-xmark 0x1/0x1",
          "filter FORWARD -m mark --mark 0x1/0x1 -j ACCEPT", "filter FORWARD -j DROP"), "leaves"),
        ((OPEN, f"filter FORWARD {UNKNOWN} -j MARK --set-xmark 0x1/0x1",
          "filter FORWARD -m mark --mark 0x1/0x1 -j ACCEPT", "filter FORWARD -j DROP"), "unknown"),
        # Every hook on the way.
        (("raw PREROUTING -d 198.51.100.9 -j DROP",), "dropped"),
        (("mangle PREROUTING -i lxc+ -j DROP",), "dropped"),
        (("mangle FORWARD -o eth0 -j DROP",), "dropped"),
        (("filter FORWARD -i lxc+ -p tcp -m tcp --dport 80 -j REJECT",), "dropped"),
        (("mangle POSTROUTING -o eth0 -j DROP",), "dropped"),
        ((f"raw PREROUTING {UNKNOWN} -j DROP",), "unknown"),
        ((f"mangle POSTROUTING {UNKNOWN} -j DROP",), "unknown"),
        ((":filter FORWARD DROP", OPEN), "dropped"),
        # A mark goes with the packet from hook to hook.
        (("raw PREROUTING -j MARK --or-mark 0x8000",
          "filter FORWARD -m mark --mark 0x8000/0x8000 -j DROP"), "dropped"),
        (("nat PREROUTING -j MARK --or-mark 0x8000",
          "mangle POSTROUTING -m mark --mark 0x8000/0x8000 -j DROP"), "dropped"),
        (("mangle PREROUTING -j CONNMARK --set-xmark 0x8000/0x8000",
          "filter FORWARD -m connmark --mark 0x8000/0x8000 -j DROP"), "dropped"),
        # Not for this packet.
        (("raw PREROUTING -d 198.51.100.8 -j DROP", "filter FORWARD -p udp -j DROP",
          "mangle FORWARD -m conntrack --ctstate INVALID -j DROP",
          "filter INPUT -j DROP", "filter OUTPUT -j DROP",
          "filter FORWARD -i eth1 -j DROP", "filter FORWARD -m owner --uid-owner 0 -j DROP",
          "filter FORWARD -m mark --mark 0x8000/0x8000 -j DROP"), "leaves"),
        # As firewalld, Docker and fail2ban write them: undecided where it does not matter.
        ((f"filter FORWARD {UNKNOWN} -j ACCEPT", "filter FORWARD -m limit --limit 5/min -j LOG",
          "filter FORWARD -m recent --set --name ssh", "filter DOCKER-USER -j RETURN",
          "filter FORWARD -j DOCKER-USER", "filter FORWARD -m hashlimit --hashlimit-upto 9/sec "
          "-j DOCKER-USER", "filter INPUT -m recent --update --name ssh -j DROP"), "leaves"),
        # Targets that are not known, chains that are not there, lines that cannot be read.
        (("filter FORWARD -j NFQUEUE --queue-num 0",), "unknown"),
        (("filter FORWARD -j NO_SUCH_CHAIN",), "unknown"),
        (("filter FORWARD -s nonsense -j DROP",), "unknown"),
        (("mangle FORWARD -s nonsense -j LOG",), "unknown"),
        # What nat does not see is not translated.
        (("raw PREROUTING -j CT --notrack",), "unknown"),
    ],
)  # fmt: skip
def test_the_verdict_of_rules(lines: tuple[str, ...], verdict: str) -> None:
    path = path_with(*lines)
    assert path.verdict == verdict, path.reason
    if verdict == "dropped":
        hop = dropped_at(path)
        assert (hop.kind, hop.node) == ("rule", "node2")
        assert finding(path, "netfilter on node2").severity == "error"
        assert path.fix is not None
        assert path.fix.command.startswith("iptables -t ")
        assert hop.evidence[0].lines
    if verdict == "leaves":
        assert not [one for one in path.findings if one.severity == "error"]
    if verdict == "unknown":
        assert not any(hop.drops for hop in path.hops)
        assert path.cause


def test_an_undecided_rule_is_named_with_what_cannot_be_evaluated() -> None:
    path = path_with(OPEN, f"filter FORWARD {UNKNOWN} -j ACCEPT", ":filter FORWARD DROP")
    (hop,) = [hop for hop in path.hops if hop.state is State.UNKNOWN]
    assert "policy of FORWARD may drop it" in hop.summary
    assert hop.reason.startswith("-m set of FORWARD rule 1")
    assert path.reason.startswith(f"unknown at hop {hop.number}: -m set of FORWARD rule 1")
    assert any("match-set blocked" in line for piece in hop.evidence for line in piece.excerpt)


def test_a_rule_that_looks_at_a_port_asks_for_it() -> None:
    path = path_with("filter FORWARD -p tcp -m tcp --dport 81 -j DROP", to=TO)
    assert path.verdict is Verdict.UNKNOWN
    assert "--dport 81 -j DROP looks at the port: give one" in path.reason
    assert path.fix is not None
    assert path.fix.text.startswith("Name the port")
    named = path_with("filter FORWARD -p tcp -m tcp --dport 81 -j DROP", to=f"{TO}:80")
    assert named.verdict is Verdict.LEAVES


def test_a_rule_that_a_port_alone_does_not_settle_says_the_rest() -> None:
    rule = f"filter FORWARD -p tcp -m tcp --dport 81 {UNKNOWN} -j DROP"
    path = path_with(OPEN, rule, to=TO)
    assert "looks at the port: give one" in path.reason
    assert "-m set of FORWARD rule 1" in path.reason
    assert "-m tcp of" not in path.reason
    named = path_with(OPEN, rule, to=f"{TO}:81")
    assert "looks at the port" not in named.reason
    assert "-m set of FORWARD rule 1" in named.reason


def test_a_drop_in_raw_prerouting() -> None:
    path = path_with(f"raw PREROUTING -d {TO} -j DROP")
    hop = dropped_at(path)
    assert hop.summary.startswith("netfilter drops it by raw PREROUTING rule 1")
    assert path.drop is not None
    assert path.drop.how == "derived"
    assert [hop.where for hop in path.hops if hop.kind is HopKind.ROUTE] == ["default/client"]


def ip_rules(line: str) -> list[Change]:
    """The node's routing rules with one more, and table 77 with a blackhole."""
    hole = '{"type":"blackhole","dst":"default","table":"77","metric":0,"flags":[]}'
    return [_member("ip -j rule", line), _member("ip -j route show table all", hole)]


def _member(command: str, member: str) -> Change:
    def change(record: Record) -> Record:
        if (record.place.node, record.command) != ("node2", command):
            return record
        said = record.stdout.read().decode().lstrip().removeprefix("[")
        return replace(record, stdout=InMemory(f"[{member},{said}".encode()))

    return change


MARKED = '{"priority":60,"src":"all","fwmark":"0x77","table":"77"}'


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        (("mangle PREROUTING -j MARK --set-xmark 0x77/0xffffffff",), "dropped"),
        (("nat PREROUTING -j MARK --set-xmark 0x77/0xffffffff",), "dropped"),
        (("mangle PREROUTING -j CONNMARK --set-xmark 0x77/0xffffffff",
          "mangle PREROUTING -j CONNMARK --restore-mark"), "dropped"),
        (("mangle PREROUTING -p udp -j MARK --set-xmark 0x77/0xffffffff",), "leaves"),
        (("mangle FORWARD -j MARK --set-xmark 0x77/0xffffffff",), "leaves"),
        (("mangle PREROUTING -j CONNMARK --restore-mark",), "leaves"),  # a new connection has none
        ((f"mangle PREROUTING {UNKNOWN} -j MARK --set-xmark 0x77/0xffffffff",), "unknown"),
    ],
)  # fmt: skip
def test_marks_before_the_routing_decision(lines: tuple[str, ...], verdict: str) -> None:
    path = ask(changed(NATIVE, *rules(*lines), *ip_rules(MARKED)), "client", f"{TO}:80")
    assert path.verdict == verdict, path.reason
    if verdict == "dropped":
        assert any("0x77" in summary for summary in rule_hops(path))
        assert dropped_at(path).kind is HopKind.ROUTE


@pytest.mark.parametrize(
    ("line", "verdict", "words"),
    [
        (f"nat POSTROUTING -d {TO} -j SNAT --to-source 172.30.0.99", "unknown", "172.30.0.99"),
        (f"nat POSTROUTING -d {TO} -j SNAT --to-source 192.0.2.99", "unknown", "192.0.2.99"),
        (f"nat POSTROUTING -d {TO} -j SNAT --to-source 172.30.0.11", "unknown", "node1"),
        (f"nat POSTROUTING -d {TO} -j SNAT --to-source 172.30.0.12:1024-2000", "leaves", ""),
        (f"nat POSTROUTING -d {TO} -j SNAT --to-source 172.30.0.12-172.30.0.12", "leaves", ""),
        (
            f"nat POSTROUTING -d {TO} -j SNAT --to-source 172.30.0.12-172.30.0.13",
            "unknown",
            "172.30.0.12 to 172.30.0.13, of which node2 has 1",
        ),
        (
            f"nat POSTROUTING -d {TO} -j SNAT --to-source 192.0.2.1-192.0.2.9",
            "unknown",
            "of which node2 has none",
        ),
        (
            f"nat POSTROUTING -d {TO} -j SNAT --to-source 9.0.0.0-11.255.255.255:1024-2000",
            "unknown",
            "of which node2 has 1",
        ),
        (f"nat POSTROUTING -d {TO} -j NETMAP --to 192.0.2.0/24", "unknown", "192.0.2.53"),
        (f"nat POSTROUTING -d {TO} -j NETMAP --to 172.30.0.12/32", "leaves", ""),
        (f"nat POSTROUTING {UNKNOWN} -j SNAT --to-source 172.30.0.99", "unknown", "-m set"),
        (f"nat POSTROUTING {UNKNOWN} -j ACCEPT", "unknown", "-m set"),
        (f"nat POSTROUTING {UNKNOWN} -j MASQUERADE", "leaves", ""),  # as the next rule does
    ],
)
def test_the_source_that_a_rule_gives(line: str, verdict: str, words: str) -> None:
    path = path_with(line)
    assert path.verdict == verdict, path.reason
    assert words in path.reason


def test_answers_to_nobodys_address_are_an_error() -> None:
    path = path_with(f"nat POSTROUTING -d {TO} -j SNAT --to-source 172.30.0.99")
    found = finding(path, "netfilter translates to 172.30.0.99, which node2 does not have")
    assert found.severity == "error"
    assert "no node has it" in found.detail


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (f"nat PREROUTING -d {TO} -p tcp -j DNAT --to-destination 10.244.0.251:8080", "reachable"),
        (f"nat PREROUTING -d {TO} -p udp -j DNAT --to-destination 10.244.0.251:8080", "leaves"),
        (f"nat PREROUTING {UNKNOWN} -j DNAT --to-destination 10.244.0.251", "unknown"),
        (f"nat PREROUTING -d {TO} -j DNAT --to-destination 10.0.0.1-10.0.0.9", "unknown"),
        (f"nat PREROUTING -d {TO} -p tcp -j REDIRECT --to-ports 8080", "unknown"),
    ],
)
def test_the_destination_that_a_rule_gives(line: str, verdict: str) -> None:
    path = path_with(line)
    assert path.verdict == verdict, path.reason


def legacy(text: str, node: str = "node2") -> Record:
    """What iptables-legacy-save printed."""
    return Record(
        0, agent_place(node), ("iptables-legacy-save", "-c"), 0, stdout=InMemory(text.encode())
    )


WARNED = swap("node2", SAVE, "*raw\n", "# Warning: iptables-legacy tables present, use "
              "iptables-legacy-save to see them\n*raw\n")  # fmt: skip
CLOSED = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


@pytest.mark.parametrize(
    ("changes", "more", "verdict", "words"),
    [
        ([WARNED], (legacy(CLOSED),), "dropped", "policy of FORWARD"),
        ([WARNED], (legacy(CLOSED.replace("DROP", "ACCEPT")),), "leaves", ""),
        ([WARNED], (legacy(""),), "leaves", ""),
        ([WARNED], (), "unknown", "iptables-legacy has tables as well"),
        ([WARNED], (legacy(CLOSED.removesuffix("COMMIT\n")),), "unknown", "was cut short"),
        ([], (legacy(CLOSED),), "dropped", "policy of FORWARD"),
        ([], (), "leaves", ""),
    ],
)
def test_the_other_back_end_of_iptables(
    changes: list[Change], more: tuple[Record, ...], verdict: str, words: str
) -> None:
    path = ask(changed(NATIVE, *changes, more=more), "client", f"{TO}:80")
    assert path.verdict == verdict, path.reason
    assert words in path.reason


def test_nf_tables_stand_beside_a_legacy_iptables_save() -> None:
    old = swap("node2", SAVE, "*raw\n", "# Generated by iptables-save v1.8.4 on Mon\n*raw\n")
    nft = replace(legacy(CLOSED), argv=("iptables-nft-save", "-c"))
    path = ask(changed(NATIVE, _without_header, old, more=(nft,)), "client", f"{TO}:80")
    assert path.verdict == "dropped"
    assert path.fix is not None
    assert path.fix.command == "iptables-nft -t filter -P FORWARD ACCEPT"


def _without_header(record: Record) -> Record:
    if (record.place.node, record.command) != ("node2", SAVE):
        return record
    lines = record.stdout.read().decode().splitlines(keepends=True)
    kept = "".join(line for line in lines if not line.startswith("# Generated"))
    return replace(record, stdout=InMemory(kept.encode()))


def test_the_warning_may_stand_on_stderr() -> None:
    def warn(record: Record) -> Record:
        said = b"# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
        here = (record.place.node, record.command) == ("node2", SAVE)
        return replace(record, stderr=said) if here else record

    assert ask(changed(NATIVE, warn), "client", f"{TO}:80").verdict == "unknown"


@pytest.mark.variants
def test_one_rule_after_the_other_may_be_unknown() -> None:
    """Whatever rule of the client's node is not understood: the verdict stays, or is unknown."""
    plain = {to: ask(changed(NATIVE), "client", to).verdict for to in (f"{TO}:80", "pod/web:8081")}
    (record,) = [r for r in changed(NATIVE).records if (r.place.node, r.command) == ("node2", SAVE)]
    lines = record.stdout.read().decode().splitlines()
    for number, line in enumerate(lines):
        before, found, target = line.partition(" -j ")
        if not found:
            continue
        what = "-m frob --frob 1" if number % 2 else "-s nonsense"
        said = "\n".join([*lines[:number], f"{before} {what} -j {target}", *lines[number + 1 :]])
        bundle = changed(NATIVE, swap("node2", SAVE, "\n".join(lines), said))
        for to, verdict in plain.items():
            assert ask(bundle, "client", to).verdict in (verdict, Verdict.UNKNOWN), line


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("raw OUTPUT -p tcp -m tcp --dport 80 -j DROP", "dropped"),
        ("mangle OUTPUT -o eth0 -j DROP", "dropped"),
        ("nat OUTPUT -p udp -j DNAT --to-destination 10.244.0.251:8080", "leaves"),
        ("nat OUTPUT -p tcp -j DNAT --to-destination 10.244.0.251:8080", "reachable"),
        ("filter OUTPUT -o eth0 -j DROP", "dropped"),
        ("filter OUTPUT -m owner --uid-owner 1000 -j DROP", "unknown"),
        ("filter FORWARD -j DROP", "leaves"),
        ("raw PREROUTING -p udp -j DROP", "leaves"),
        ("raw PREROUTING -j DROP", "dropped"),  # the answer
    ],
)
def test_a_packet_of_the_node_passes_output(line: str, verdict: str) -> None:
    changes = [host_network("10.244.1.53"), without("client"), *rules(line)]
    path = ask(changed(NATIVE, *changes), "client", f"{TO}:80")
    assert path.verdict == verdict, path.reason


@pytest.mark.parametrize(
    ("line", "node", "verdict"),
    [
        ("filter INPUT -p udp -m udp --dport 8472 -j DROP", "node1", "dropped"),
        ("raw PREROUTING -s 172.30.0.12 -p udp -j DROP", "node1", "dropped"),
        ("filter OUTPUT -p udp -m udp --dport 8472 -j DROP", "node2", "dropped"),
        ("mangle POSTROUTING -o eth0 -d 172.30.0.11 -j DROP", "node2", "dropped"),
        (f"filter INPUT {UNKNOWN} -p udp -j DROP", "node1", "unknown"),
        ("filter INPUT -p udp -m udp --dport 4789 -j DROP", "node1", "reachable"),
        ("filter OUTPUT -m mark --mark 0x8000/0x8000 -j DROP", "node2", "reachable"),
        ("filter FORWARD -p udp -j DROP", "node1", "reachable"),
    ],
)
def test_a_tunnels_outer_packet(line: str, node: str, verdict: str) -> None:
    path = ask(changed(VXLAN, *rules(line, node=node)), "client", "pod/web:8081")
    assert path.verdict == verdict, path.reason
    if verdict == "dropped":
        assert dropped_at(path).node == node


@pytest.mark.parametrize(
    ("line", "to", "node", "verdict"),
    [
        (f"filter FORWARD -s {TO} -j DROP", f"{TO}:80", "node2", "dropped"),
        ("filter FORWARD -i eth0 -m conntrack --ctstate ESTABLISHED -j DROP", f"{TO}:80", "node2",
         "dropped"),
        ("filter FORWARD -i eth0 -m conntrack --ctstate NEW -j DROP", f"{TO}:80", "node2",
         "leaves"),
        (f"filter FORWARD -s {TO} -o eth0 -j DROP", f"{TO}:80", "node2", "leaves"),
        ("filter FORWARD -p tcp -m tcp --dport 8080 -j DROP", f"{TO}:80", "node2", "leaves"),
        ("filter FORWARD -p tcp -m tcp --dport 40000:50000 -j DROP", f"{TO}:80", "node2",
         "unknown"),  # of a client's ports
        ("filter FORWARD -p tcp -m tcp --dport 1024:65535 -j DROP", f"{TO}:80", "node2",
         "dropped"),
        (f"raw PREROUTING -s {TO} -d 172.30.0.12 -j DROP", f"{TO}:80", "node2", "dropped"),
        (f"raw PREROUTING -s {TO} -d 10.244.1.53 -j DROP", f"{TO}:80", "node2", "leaves"),
        (f"mangle PREROUTING -i eth0 -s {TO} -j DROP", f"{TO}:80", "node2", "dropped"),
        ("raw PREROUTING -i lxc+ -s 10.244.0.251 -j DROP", "pod/web:8081", "node1", "dropped"),
        ("raw PREROUTING -i eth0 -s 10.244.0.251 -j DROP", "pod/web:8081", "node1", "reachable"),
        ("raw PREROUTING -i eth0 -s 10.244.0.251 -j DROP", "pod/web:8081", "node2", "dropped"),
        (f"filter FORWARD -s {TO} {UNKNOWN} -j DROP", f"{TO}:80", "node2", "unknown"),
        ("mangle FORWARD -s 10.244.0.251 -j DROP", "pod/web:8081", "node1", "dropped"),
        ("mangle POSTROUTING -s 10.244.0.251 -j DROP", "pod/web:8081", "node2", "dropped"),
        ("filter OUTPUT -d 10.244.1.53 -j DROP", "node/node1:22", "node1", "dropped"),
        ("filter OUTPUT -d 172.30.0.12 -j DROP", "node/node1:22", "node1", "reachable"),
    ],
)  # fmt: skip
def test_a_rule_that_drops_the_answer(line: str, to: str, node: str, verdict: str) -> None:
    path = ask(changed(NATIVE, *rules(line, node=node)), "client", to)
    assert path.verdict == verdict, path.reason
    assert path.answer is not None
    if verdict == "dropped":
        assert "of the way back" in path.reason
        assert path.drop is not None
        assert (path.drop.direction, path.drop.node) == ("answer", node)
        hop = path.answer.hops[path.drop.hop - 1]
        assert hop.drops
        assert "iptables -t" in path.drop.object
        assert path.answer.state == "lost"
        assert finding(path, f"way back: netfilter on {node} drops").severity == "error"
    elif verdict == "unknown":
        assert "of the way back" in path.reason
        assert path.answer.state == "unknown"
    else:
        assert path.answer.state == "returns"


def test_an_answer_that_was_seen_contradicts_a_rule_that_drops_it() -> None:
    line = "filter FORWARD -s 1.1.1.1 -j DROP"
    path = ask(changed(NATIVE, *rules(line)), "client", "1.1.1.1:80")
    assert path.verdict == "dropped"  # as a drop of the packet itself
    (contradiction,) = path.contradictions
    assert "was answered" in contradiction.text  # 20 s ago
    assert contradiction.evidence


def test_node_local_dns_is_no_error() -> None:
    """NOTRACK, and an interface of the node that has the Service's address."""
    own = swap("node2", "ip -j addr", '"local":"172.30.0.12"', '"local":"10.96.71.229"')
    lines = (
        "raw PREROUTING -d 10.96.71.229/32 -p tcp -m tcp --dport 80 -j CT --notrack",
        "filter INPUT -d 10.96.71.229/32 -j ACCEPT",
    )
    untouched = (say("node2", SERVICES, "[]"), say("node2", LB, ""), edit("node2", CT, untracked))
    path = ask(changed(NATIVE, own, *untouched, *rules(*lines)), "client", "svc/web:80")
    assert not [one for one in path.findings if one.severity == "error"]
    assert path.hops[-1].node == "node2"


def test_rpfilter_is_the_kernels() -> None:
    """firewalld's rule: the way back to a pod leads by cilium_host, and not by its own device."""
    loose = "raw PREROUTING -m rpfilter --loose --invert -j DROP"
    assert path_with(loose).verdict == "leaves"
    strict = "raw PREROUTING -i eth0 -m rpfilter --validmark --invert -j DROP"
    assert path_with(strict).verdict == "leaves"
    assert path_with("raw PREROUTING -m rpfilter --invert -j DROP").verdict == "dropped"


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("mangle PREROUTING -j TTL --ttl-set 1", "unknown"),  # node2 does not forward it
        ("mangle POSTROUTING -j TTL --ttl-dec 60", "unknown"),
        ("mangle PREROUTING -j TTL --ttl-set 65", "leaves"),
        ("mangle POSTROUTING -j TTL --ttl-dec 1", "leaves"),
        ("mangle POSTROUTING -j TTL --ttl-inc 1", "leaves"),
        ("mangle PREROUTING -d 9.9.9.9 -j TTL --ttl-set 1", "leaves"),
    ],
)
def test_a_hop_limit_that_may_end_on_the_way(line: str, verdict: str) -> None:
    path = path_with(line)
    assert path.verdict == verdict, path.reason
    assert ("the hop limit that it gives it" in path.reason) == (verdict == "unknown")


def test_a_rule_that_sends_it_to_nobodys_address_is_named() -> None:
    """No pod ever had the address: the rule is to mend, not a pod that is gone."""
    line = "nat PREROUTING -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.244.0.99:1"
    path = ask(changed(NATIVE, *rules(line)), "client", "pod/web:8081")
    assert dropped_at(path).node == "node1"
    assert path.fix is not None
    assert "on node2 sends the packet there: " in path.fix.text
    assert "PREROUTING rule 1" in path.fix.text


UNDECIDED = "../features/services/agent.zip"
"""VXLAN with BPF host routing by the agent's word: without its conntrack nothing else tells it."""


@pytest.mark.parametrize(
    ("rule", "to"),
    [
        ("INPUT -p tcp -m tcp --dport 10250 -j DROP", "node/node2:10250"),
        ("OUTPUT -p tcp -m tcp --sport 10250 -j DROP", "node/node2:10250"),
        ("INPUT -p udp -m udp --dport 8472 -j DROP", "svc/web"),  # what carries the answer
    ],
)
def test_what_is_the_stacks_own_passes_it_however_the_node_forwards(rule: str, to: str) -> None:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    path = ask(changed(UNDECIDED, *unseen, *rules(f"filter {rule}")), "client", to)
    assert path.verdict == "dropped", path.reason
    assert f"{rule.split()[0]} rule 1" in path.cause


def test_what_the_node_forwards_stays_open_where_the_way_of_forwarding_is() -> None:
    unseen = (say(node, CT, "") for node in ("node1", "node2"))
    change = rules(f"filter FORWARD -d {TO} -j DROP")
    path = ask(changed(UNDECIDED, *unseen, *change), "client", f"{TO}:80")
    assert path.verdict == "unknown"
    assert "whether it passes the node's netfilter" in path.reason
