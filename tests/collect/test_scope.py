"""What each command asks of each kind of place, by the table of facts."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.collect.ask.container import AgentExec
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.shell_script import asks_agent
from kubectl_ebpfnet.collect.destination import FarEnd
from kubectl_ebpfnet.collect.packet import MOST_LOOKUPS, packet_scope
from kubectl_ebpfnet.collect.scope import EVERYTHING, Scope, flows_scope
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import agent_place, node_place, pod_place
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.net import ICMP, TCP
from kubectl_ebpfnet.model.path import PathRequest
from kubectl_ebpfnet.model.protocol.questions import FlowFilter, PodNamespace
from kubectl_ebpfnet.parse import kube
from tests.conftest import Golden

GOLDEN = Path(__file__).with_name("questions.txt")
POD, NODE, AGENT = pod_place("default", "client"), node_place("n"), agent_place("n")
NETNS = PodNamespace("uid", ("id",))
ADDRESS, ADDRESS6 = ip_address("10.0.0.1"), ip_address("fd00::1")
PEER = ip_address("10.0.0.9")
REQUEST = PathRequest("pod/client", "default", "client", "svc/x", "service", TCP, port=80)


def packet(*versions: int, leaves: bool = False, knows_nodes: bool = True, **more: Any) -> Scope:
    """The scope of a packet from a pod with two addresses to a destination of some versions."""
    pod = kube.pod({"status": {"podIPs": [{"ip": str(ADDRESS)}, {"ip": str(ADDRESS6)}]}})
    end = FarEnd(leaves=leaves, **more)
    return packet_scope(pod, REQUEST, frozenset(versions), end, knows_nodes=knows_nodes)


COMMANDS = {
    "path": packet(4, frontends=[PEER]),
    "..6": packet(6),
    "..leaves": packet(4, leaves=True),
    "..nodes?": packet(4, knows_nodes=False),
    "programs": Scope(Need.PROGRAMS),
    "flows": flows_scope((ADDRESS,), ()),
    "probe-lb": Scope(Need.LB, (FlowFilter(ADDRESS),)),
    "doctor": Scope(Need.DOCTOR),
    "capture": EVERYTHING,
}
HEAD = """\
What each command asks of a place, in this order: x for a question, f for one of which only the
lines of some flows come home. `path` is for an IPv4 packet inside of the cluster; beside it are an
IPv6 packet, one that leaves the cluster, and a cluster whose CiliumNode objects cannot be read.
Here is the first form of each question: if it fails, the next one is asked.
"""


def of_pod_by_node_pod(scope: Scope) -> list[Question]:
    return [*scope.questions(POD, NETNS), *scope.lookups(POD, NODE, NETNS, (ADDRESS, ADDRESS6))]


ANSWERERS: dict[str, Callable[[Scope], list[Question]]] = {
    "a pod, by exec": lambda scope: scope.questions(POD),
    "a node, by Cilium's agent": lambda scope: scope.questions(AGENT),
    "a pod, by a node pod": of_pod_by_node_pod,
    "a node, by a node pod": lambda scope: scope.questions(NODE),
}


def test_what_commands_ask(golden: Golden) -> None:
    text = HEAD
    for answerer, asked in ANSWERERS.items():
        found = [{argv_of(one): one for one in asked(scope)} for scope in COMMANDS.values()]
        row = {argv: ROWS.index(one.fact.name) for each in found for argv, one in each.items()}
        argvs = sorted(row, key=lambda argv: row[argv])
        text += f"\n{''.join(f'{name:<9}' for name in COMMANDS)}{answerer}\n"
        for argv in argvs:
            cells = (cell(each.get(argv)) for each in found)
            words = " ".join(word if len(word) < 60 else "…" for word in argv)
            text += f"{''.join(f'{each:<9}' for each in cells)}{words}\n"
        for each in found:
            assert list(each) == [argv for argv in argvs if argv in each]
    golden(GOLDEN, text)


ROWS = [fact.name for fact in q.FACTS]


def argv_of(question: Question) -> tuple[str, ...]:
    """What is asked first."""
    by_node_pod = question.netns is not None or question.place == NODE
    return question.fact.node_argv if by_node_pod else question.fact.forms[0]


def cell(question: Question | None) -> str:
    return "" if question is None else "f" if question.flows or question.beside else "x"


def test_a_packet_is_asked_what_it_needs() -> None:
    facts = {question.fact: question.needles for question in packet(4).questions(AGENT)}
    assert q.NETFILTER in facts
    assert not {q.NETFILTER6, q.EGRESS_GATEWAY, q.METRICS, q.CILIUM_NODES} & facts.keys()
    assert facts[q.CT] == facts[q.CONNTRACK] == ("10.0.0.1",)
    assert facts[q.ROUTES] == ()
    six = packet(6, leaves=True, knows_nodes=False)
    facts = {question.fact: question.needles for question in six.questions(AGENT)}
    assert facts[q.CT] == ("fd00::1", "fd00:0000:0000:0000:0000:0000:0000:0001")
    assert {q.NETFILTER6, q.EGRESS_GATEWAY, q.CILIUM_NODES} <= facts.keys()
    assert q.NETFILTER not in facts


def test_versions_that_the_pod_lacks_are_those_of_the_destination() -> None:
    four = kube.pod({"status": {"podIP": "10.0.0.1"}})
    for versions, need in (
        ({4, 6}, Need.IPV4),
        ({6}, Need.IPV6),
        ((), Need.IPV4),
    ):
        end = FarEnd(leaves=False)
        scope = packet_scope(four, REQUEST, frozenset(versions), end, knows_nodes=True)
        assert scope.need == Need.PATH | Need.SENDER | Need.STAYS | need
    unknown = packet_scope(
        kube.pod({}), REQUEST, frozenset(), FarEnd(leaves=False), knows_nodes=True
    )
    assert unknown.need == Need.PATH | Need.SENDER | Need.STAYS | Need.IPV4 | Need.IPV6


def test_a_packets_destinations_are_looked_up_in_the_pod_and_on_its_node() -> None:
    many = [ip_address(f"10.1.0.{n}") for n in range(1, 100)]
    scope = packet(4, frontends=[ADDRESS6, *many, *many])
    found = scope.lookups(POD, NODE, NETNS, (ADDRESS, ADDRESS6))
    assert len(found) == 2 * MOST_LOOKUPS
    assert [(one.fact.node_argv[1:], one.place) for one in found[:4]] == [
        (("fib", "fd00::1", "from", "fd00::1"), POD),
        (("forward", "fd00::1", "from", "fd00::1"), NODE),
        (("fib", "10.1.0.1", "from", "10.0.0.1"), POD),
        (("forward", "10.1.0.1", "from", "10.0.0.1"), NODE),
    ]
    assert {one.netns for one in found} == {NETNS}


def test_a_capture_asks_whole_tables_and_what_any_command_but_doctor_asks() -> None:
    for asked in ANSWERERS.values():
        captured = asked(EVERYTHING)
        assert not any(question.flows or question.needles for question in captured)
        of_capture = {argv_of(question) for question in captured}
        for name, scope in COMMANDS.items():
            scope = Scope(scope.need)  # without look-ups
            others = {argv_of(question) for question in asked(scope)}
            assert others <= of_capture or name == "doctor"


def test_what_somebody_needs_is_asked_of_some_place() -> None:
    whole = Scope(~Need(0))
    asked = {one.fact for questions in ANSWERERS.values() for one in questions(whole)}
    needed = {fact for fact in q.FACTS if fact.need and not fact.takes}
    assert asked <= needed
    # A row that the answer of another one holds too is not asked for itself.
    forms = {fact.forms for fact in asked}
    assert all(fact.forms in forms for fact in needed - asked)


def test_hubble_selects_the_flows_itself() -> None:
    hubble = [one for one in packet(4, 6).questions(AGENT) if one.fact.name == q.HUBBLE.name]
    (question,) = hubble
    assert question.fact.words == ("--ip", "10.0.0.1", "--ip", "fd00::1")
    assert question.needles == ()
    assert q.HUBBLE.is_answered_by(question.fact.forms[0])
    (whole,) = (one for one in EVERYTHING.questions(AGENT) if one.fact.name == q.HUBBLE.name)
    assert whole.fact.words == ()


def test_what_answers_two_rows_is_asked_once() -> None:
    assert q.POD_LINKS.forms == q.POD_ADDRESSES.forms
    assert q.POD_ROUTES.node_argv == q.POD_ROUTES6.node_argv
    for asked in ANSWERERS.values():
        argvs = [argv_of(question) for question in asked(EVERYTHING)]
        assert len(argvs) == len(set(argvs))
    for version in (4, 6):
        argvs = [argv_of(question)[1] for question in packet(version).questions(POD, NETNS)]
        of_netfilter = ["-c", "-c", "-j", "nft-chains"]
        last = [*of_netfilter, "attachments", "qdiscs"]
        assert argvs == ["links", "addresses", "routes", "rules", "neighbours", *last]


def test_what_a_record_says_that_its_lines_have() -> None:
    flows = (FlowFilter(peer=PEER), FlowFilter(protocol=TCP), FlowFilter())
    assert Question(q.CT, AGENT, flows=flows[:1]).needles == ("10.0.0.9",)
    assert Question(q.CT, AGENT, flows=flows[:2]).needles == ("10.0.0.9", "TCP ", "tcp ")
    assert Question(q.CT, AGENT, flows=flows).needles == ()


def test_flows_become_rules_for_lines() -> None:
    flows = [
        FlowFilter(ADDRESS, peer=peer, peer_port=80, protocol=TCP) for peer in (PEER, ADDRESS6)
    ]
    flows += [FlowFilter(ADDRESS, protocol=ICMP), FlowFilter(ADDRESS6, 53), FlowFilter()]
    assert Question(q.CT, AGENT, flows=tuple(flows)).line_rules.split("\n") == [
        f" {ADDRESS}:\tTCP \t {PEER}:| {ADDRESS6}:| [{ADDRESS6}]:\t:80 ",
        f" {ADDRESS}:\tICMP ",
        f" {ADDRESS6}:| [{ADDRESS6}]:\t:53 ",
        " ",
    ]
    full = f"={ADDRESS6} |={ADDRESS6.exploded} "
    asked = Question(q.CONNTRACK, AGENT, flows=tuple(flows[:1]), beside=tuple(flows[2:]))
    assert asked.line_rules.split("\n") == [
        f"={ADDRESS} \ttcp \t={PEER} \tport=80 ",
        f"-\t={ADDRESS} \ticmp ",
        f"-\t{full}\tport=53 ",
        "-\t ",
        f"+\t dst={PEER} \t dport=80 \ttcp ",
    ]
    to_end = Question(q.NAT, AGENT, flows=tuple(flows)).line_rules.split("\n")[-1]
    assert to_end == f"+\t -> {PEER}:80 XLATE_SRC \tTCP OUT "
    assert Question(q.CT, AGENT).line_rules == ""


def test_flows_of_a_pod_are_filtered_by_its_addresses_and_those_of_a_node_by_the_peer() -> None:
    peers = (FlowFilter(peer=PEER), FlowFilter(port=80))
    whole = FlowFilter(ADDRESS)
    asked = flows_scope((ADDRESS,), peers)
    assert (asked.flows, asked.beside) == ((FlowFilter(ADDRESS, peer=PEER),), (whole,))
    assert flows_scope((ADDRESS,), ()).flows == (whole,)
    assert flows_scope((), peers).flows == peers[:1]  # no command filters by a port alone
    assert flows_scope((), ()).flows == (FlowFilter(),)  # the newest of the node's
    assert flows_scope((ADDRESS,), ()).newest > 1000
    assert flows_scope((ADDRESS,), (), everything=True).newest == 0


def test_an_agents_lanes_share_its_questions() -> None:
    agent = AgentExec(None, AGENT, None)  # type: ignore[arg-type]
    everything = EVERYTHING.questions(AGENT)
    one, two = agent._lanes(everything)
    assert sorted(map(str, (*one, *two))) == sorted(map(str, everything))
    starts = [
        sum(0.5 if each.fact.maps else 1 for each in lane if argv_of(each)[0] == "cilium-dbg")
        for lane in (one, two)
    ]
    assert abs(starts[0] - starts[1]) <= 1.5
    last = [asks_agent(question) for question in one]
    assert last == sorted(last)  # an agent that hangs delays what comes after it
    assert not any(asks_agent(question) for question in two)
    assert agent._lanes([]) == ([], [])


def test_a_packets_lines_are_selected_by_what_matters_most() -> None:
    pods = [kube.pod({"status": {"podIP": "10.0.0.7"}})]
    scope = packet(4, leaves=False, frontends=[PEER], pods=pods)
    agent, node = (
        next(one for one in scope.questions(place, None) if one.fact is q.CT)
        for place in (AGENT, NODE)
    )
    own = " 10.0.0.1:\tTCP "
    assert agent.line_rules.split("\n") == [
        f"{own}\t 10.0.0.9:\t:80 ",
        f"{own}\t 10.0.0.7:",
        f"-\t{own}\t 10.0.0.9:",
        f"-\t{own}",
        "-\t 10.0.0.1:\tICMP ",
    ]
    assert (node.flows, node.beside) == (agent.flows, agent.beside)
    assert [flow.peer_port for flow in agent.flows] == [80, None]
