"""`kubectl ebpfnet path` over a third node, for real: neither the sender's nor the destination's,
it is asked once the records of these lead there, and what it does to the packet decides.

client2 on node2 sends to web on node1, and to the world, by node3. Each way is seen to work, or to
break, beside what is said of it. The module runs alone, since client2 is everybody's.
"""

from __future__ import annotations

import pytest

from tests.lab.cluster.tools.live import Answer, in_pod, path
from tests.lab.conftest import Lab
from tests.lab.test_road_back import WEB, WORLD, Ends, Step, added, asked, ends, made, rule
from tests.lab.test_road_back import answers as answers_to

__all__ = ["ends"]
FAR = "1.1.1.1"
THERE = added(2, "route {its} via 172.30.0.13 dev eth0")
"""What node2 sends to web goes by node3, which sends it on to node1 by its own route."""
OUTSIDE = [
    added(2, f"route {FAR} via 172.30.0.13 dev eth0 table 97"),
    added(2, f"rule from {{mine}} to {FAR} lookup 97 pref 54"),
]
"""What client2 alone sends to the world."""
ACCEPTED = "filter FORWARD -s {mine} -d {its} -j ACCEPT"
LOST: dict[str, tuple[str, list[Step], str]] = {
    "FORWARD": (WEB, [THERE, rule(3, "filter FORWARD -d {its} -p tcp --dport 8080 -j DROP")],
                "FORWARD rule 1"),
    "no route on": (WEB, [THERE, added(3, "rule to {its} blackhole pref 55")], "blackhole"),
    "raw": (WORLD, [*OUTSIDE, rule(3, f"raw PREROUTING -s 172.30.0.12 -d {FAR} -p tcp -j DROP")],
            "raw PREROUTING"),
    "a rule of the third node": (
        WORLD, [*OUTSIDE, added(3, f"rule from 172.30.0.12 to {FAR} prohibit pref 55")],
        "prohibit"),
}  # fmt: skip


def answers(ends: Ends, to: str) -> bool:
    """Whether a fetch from the client succeeds."""
    if to == WEB:
        return answers_to(ends, WEB)
    fetch = f"curl -s -o /dev/null --max-time 0.5 http://{FAR}/ && echo yes; true"
    return in_pod("client2", "sh", "-c", fetch) == "yes\n"


def ask(lab: Lab, ends: Ends, to: str, *words: str) -> Answer:
    if to == WEB:
        return asked(lab, ends, WEB, *words)
    return path(lab, "pod/client2", f"{FAR}:80", *words)


def no_errors(answer: Answer) -> bool:
    return not any(f["severity"] == "error" for f in answer.document["findings"])


@pytest.mark.parametrize("access", ["agent", "pod"])
def test_a_pod_by_a_node_that_routes_for_another(our_lab: Lab, ends: Ends, access: str) -> None:
    with made(ends, THERE, rule(3, ACCEPTED)):
        assert answers(ends, WEB)
        answer = ask(our_lab, ends, WEB, "--node-access", access)
    assert answer.code == 0, answer.document["reason"]
    nodes = [hop["node"] for hop in answer.hops if hop["node"]]
    assert list(dict.fromkeys(nodes)) == ["node2", "node3", "node1"]
    assert any(hop["kind"] == "program" and hop["node"] == "node3" for hop in answer.hops)
    assert no_errors(answer)
    assert answer.document["answer"]["asymmetric"]


def test_the_world_by_a_node_that_routes_for_another(our_lab: Lab, ends: Ends) -> None:
    with made(ends, *OUTSIDE, rule(3, f"filter FORWARD -s 172.30.0.12 -d {FAR} -j ACCEPT")):
        assert answers(ends, WORLD)
        answer = ask(our_lab, ends, WORLD)
    assert answer.code == 0, answer.document["reason"]
    assert "as 172.30.0.12" in answer.document["reason"]
    assert any(hop["kind"] == "route" and hop["node"] == "node3" for hop in answer.hops)
    assert no_errors(answer)


@pytest.mark.parametrize(("to", "way"), [(WEB, [THERE]), (WORLD, OUTSIDE)], ids=["pod", "world"])
def test_a_third_node_that_sees_no_answer(
    our_lab: Lab, ends: Ends, to: str, way: list[Step]
) -> None:
    """The first packet passes; of the rest of its connection node3 has seen one direction."""
    with made(ends, *([THERE] if to == WEB else OUTSIDE)):
        assert not answers(ends, to)
        answer = ask(our_lab, ends, to)
    said = answer.document["reason"]
    assert (answer.verdict, answer.document["drop"]["node"]) == ("dropped", "node3"), said
    assert "the answer passes node3 by" in said
    assert "INVALID" in said


@pytest.mark.parametrize("name", LOST)
def test_what_the_third_node_loses(our_lab: Lab, ends: Ends, name: str) -> None:
    to, steps, words = LOST[name]
    with made(ends, *steps):
        assert not answers(ends, to)
        answer = ask(our_lab, ends, to)
    said = answer.document["reason"]
    assert (answer.code, answer.verdict) == (3, "dropped"), said
    drop = answer.document["drop"]
    assert (drop["direction"], drop["node"]) == ("packet", "node3"), said
    assert words in said, said


def test_a_packet_that_meets_no_third_node_asks_none(our_lab: Lab, ends: Ends) -> None:
    assert answers(ends, WEB)
    answer = ask(our_lab, ends, WEB)
    assert answer.code == 0, answer.document["reason"]
    assert not any(record["place"].get("node") == "node3" for record in answer.document["records"])
