"""`kubectl ebpfnet path` is never more certain than the evidence.

Faults that one record decides, and healthy oddities that must give no error. As in
test_path_faults.py, each fault is made for a pod of the test's own, seen to break its traffic, and
undone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.processes import run
from tests.lab.cluster.tools.live import FETCH, Answer, address, changed, in_pod, path
from tests.lab.conftest import Lab
from tests.lab.test_path_faults import INSIDE, IPTABLES, WORLD, a_victim, device, reaches

NODE = NODES[0]
beside = pytest.mark.side_by_side
MANGLE = (*IPTABLES, "-t", "mangle")
RAW = (*IPTABLES, "-t", "raw")
IP = (*INSIDE, "ip")
SYSCTL = (*INSIDE, "sysctl", "-qw")


@contextmanager
def rules(*pairs: tuple[list[str], list[str]]) -> Iterator[None]:
    """Commands of this machine, and those that take them back."""
    with ExitStack() as stack:
        for do, undo in pairs:
            stack.enter_context(changed(do, undo))
        yield


def rule(table: tuple[str, ...], *words: str) -> tuple[list[str], list[str]]:
    """A rule at the beginning of its chain."""
    return [*table, "-I", *words], [*table, "-D", *words]


def dropped(answer: Answer, *words: str) -> None:
    said = f"{answer.document.get('reason')}; {answer.document.get('cause')}"
    assert (answer.code, answer.verdict) == (3, "dropped"), said
    assert all(word in said for word in words), said
    assert answer.document["drop"]["hop"] == answer.hops[-1]["number"]


@beside
def test_a_rule_of_the_pod_leads_to_an_unreachable_table(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        in_pod(victim, "ip", "route", "add", "unreachable", "default", "table", "77")
        in_pod(victim, "ip", "rule", "add", "to", WORLD_ADDRESS, "lookup", "77", "pref", "50")
        assert not reaches(our_lab, victim)
        dropped(path(our_lab, victim, WORLD), "unreachable", "50")


@beside
def test_forwarding_is_off_at_the_pods_device(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        run([*SYSCTL, f"net.ipv4.conf.{device(victim)}.forwarding=0"])
        assert not reaches(our_lab, victim)
        dropped(path(our_lab, victim, WORLD), "forwarding")


@beside
def test_the_reverse_path_filter_is_strict_and_the_way_back_another(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        back = ["to", mine, "lookup", "97", "pref", "97"]
        run([*SYSCTL, f"net.ipv4.conf.{device(victim)}.rp_filter=1"])
        assert reaches(our_lab, victim)
        with rules(
            ([*IP, "route", "add", mine, "dev", "eth0", "table", "97"],
             [*IP, "route", "del", mine, "dev", "eth0", "table", "97"]),
            ([*IP, "rule", "add", *back], [*IP, "rule", "del", *back]),
        ):  # fmt: skip
            assert not reaches(our_lab, victim)
            dropped(path(our_lab, victim, WORLD), "rp_filter")


@beside
def test_a_raw_rule_drops(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        with rules(rule(RAW, "PREROUTING", "-s", mine, "-d", "1.0.0.97", "-j", "DROP")):
            assert not reaches(our_lab, victim, "http://1.0.0.97/")
            dropped(path(our_lab, victim, "1.0.0.97:80"), "PREROUTING")


@beside
def test_a_mark_of_netfilter_leads_to_a_blackhole(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        hole, mark = ["blackhole", "default", "table", "96"], ["fwmark", "0x96", "lookup", "96"]
        with rules(
            rule(MANGLE, "PREROUTING", "-s", mine, "-j", "MARK", "--set-mark", "0x96"),
            ([*IP, "route", "add", *hole], [*IP, "route", "del", *hole]),
            ([*IP, "rule", "add", *mark, "pref", "96"], [*IP, "rule", "del", *mark, "pref", "96"]),
        ):
            assert not reaches(our_lab, victim)
            dropped(path(our_lab, victim, WORLD), "blackhole", "96")


@beside
def test_a_port_that_nobody_listens_at_refuses(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        web = our_lab.get("pods", "-l", "app=web")["items"][0]
        name, there = web["metadata"]["name"], web["status"]["podIP"]
        assert not reaches(our_lab, victim, f"http://{there}:9999/")
        answer = path(our_lab, victim, f"pod/{name}:9999")
        dropped(answer, "RST")
        assert answer.document["drop"]["how"] == "seen"


@beside
def test_an_answer_that_is_older_than_the_newest_attempt_counts_no_more(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        before = path(our_lab, victim, WORLD)
        assert (before.code, before.verdict) == (0, "delivered")
        with rules(rule(IPTABLES, "FORWARD", "-d", mine, "-j", "DROP")):
            assert not reaches(our_lab, victim)
            answer = path(our_lab, victim, WORLD)
        assert answer.code in (3, 4), answer.document["reason"]
        assert answer.document["attempt"]["outcome"] == "unanswered"


@beside
def test_a_drop_of_tables_read_now_stands_beside_an_older_answer(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        with rules(rule(IPTABLES, "FORWARD", "-s", mine, "-d", WORLD_ADDRESS, "-j", "DROP")):
            answer = path(our_lab, victim, WORLD)
            assert not reaches(our_lab, victim)
        dropped(answer, "netfilter drops it by FORWARD", "was answered")
        assert answer.document["contradictions"]


@beside
def test_a_rule_that_nobody_can_evaluate_decides_only_where_nothing_answers(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        never = ("-m", "statistic", "--mode", "random", "--probability", "0.0000001")
        with rules(rule(IPTABLES, "FORWARD", "-s", mine, *never, "-j", "DROP")):
            our_lab.run(victim, *FETCH, "-o", "/dev/null", f"http://{WORLD_ADDRESS}/")
            answered, cold = path(our_lab, victim, WORLD), path(our_lab, victim, "1.0.0.95:80")
        assert (answered.code, answered.verdict) == (0, "delivered"), answered.document["reason"]
        assert (cold.code, cold.verdict) == (4, "unknown"), cold.document["reason"]
        assert "statistic" in cold.document["reason"]


@beside
def test_healthy_rules_give_no_error(our_lab: Lab) -> None:
    with a_victim(our_lab) as victim:
        mine = address(our_lab, victim)
        for words in (
            ("-m", "limit", "--limit", "5/min", "-j", "LOG"),
            ("-p", "udp", "-m", "u32", "--u32", "0>>22&0x3C@0=0", "-j", "DROP"),
            ("-m", "comment", "--comment", "a comment -j DROP", "-j", "RETURN"),
        ):
            with rules(rule(IPTABLES, "FORWARD", "-s", mine, *words)):
                answer = path(our_lab, victim, "1.0.0.94:80")
            assert (answer.code, answer.verdict) == (0, "leaves"), answer.document["reason"]
            assert answer.titles == []
