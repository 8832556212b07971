"""Source ranges by Cilium's own map, against those of the Service: a recorded cluster whose nodes
are asked for the map as well."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import Explained, explained
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, agent_place
from kubectl_ebpfnet.model.path import Path
from tests.explain.path.changed import Change, changed
from tests.explain.path.test_cilium_behind import services
from tests.explain.path.variants import edit

RECORDED = "../features/probe-lb-source-ranges/agent.zip"
LB = "cilium-dbg bpf lb list"
CLIENT = "172.31.7.200"
"""Of the ranges of lbsr-ok (reverse NAT id 38), and not of those of lbsr-bad (39)."""
OK, BAD = "172.31.7.243:80", "172.31.7.244:80"
BEHIND = "Cilium on node2 is behind its Service: its map "


def explored(bundle: Bundle, destination: str, source: str = CLIENT) -> Explained:
    _, request = arguments.question(
        source, destination, "", "", ipv4=False, ipv6=False, via_word="node2"
    )
    return explained(request("default"), bundle)


def printed(*rows: str) -> Record:
    """What node2's agent prints of its map, as the source of Cilium says (samples/README.md)."""
    text = "SOURCE RANGE (REVNAT_ID)   \n" + "".join(f"{row}   \n" for row in rows)
    argv = ("cilium-dbg", "bpf", "lb", "list", "--source-ranges")
    return Record(0, agent_place("node2"), argv, 0, InMemory(text.encode()))


def asked(destination: str, *rows: str, changes: tuple[Change, ...] = ()) -> Path:
    return explored(changed(RECORDED, *changes, more=(printed(*rows),)), destination).path


def denied(service: str) -> tuple[Change, ...]:
    """The Service has its ranges kept out, and every node's map knows."""

    def annotate(item: dict[str, Any]) -> None:
        item["metadata"].setdefault("annotations", {})["service.cilium.io/src-ranges-policy"] = (
            "deny"
        )

    def flag(text: str) -> str:
        return text.replace("check source-range]", "check source-range, deny]")

    return (services(annotate, service), edit("node1", LB, flag), edit("node2", LB, flag))


def titles(path: Path) -> list[str]:
    return [f.title for f in path.findings if f.severity != "info"]


def test_the_map_is_asked_for_where_a_frontend_checks_its_clients() -> None:
    found = explored(changed(RECORDED), OK)
    assert ("node2", q.SOURCE_RANGES) in found.further.facts
    assert any("has the source ranges of svc default/lbsr-ok" in one for one in found.path.presumed)
    unchecked = explored(changed("../features/services/agent.zip"), "172.31.7.242:80")
    assert not unchecked.further.facts


@pytest.mark.parametrize(
    ("to", "rows", "lets_in"),
    [
        (OK, ("172.31.7.0/24 (38)", "192.0.2.0/24 (39)"), True),
        (BAD, ("172.31.7.0/24 (38)", "192.0.2.0/24 (39)"), False),
    ],
)
def test_a_map_that_has_what_its_service_has(to: str, rows: tuple[str, ...], lets_in: bool) -> None:
    path = asked(to, *rows)
    assert path.verdict.let_through is lets_in, path.reason
    assert not any("source ranges" in one for one in path.presumed)
    assert "behind" not in path.cause
    hop = path.hops[-1] if not lets_in else next(h for h in path.hops if h.kind == "load-balancing")
    assert lets_in or any("192.0.2.0/24 (39)" in e.excerpt[0] for e in hop.evidence)


def exactly(*cidrs: str) -> Any:
    return lambda item: item["spec"].update(loadBalancerSourceRanges=list(cidrs))


@pytest.mark.parametrize(
    ("rows", "has"),
    [
        (("10.0.0.0/8 (38)", "172.31.7.0/24 (39)"), "lets 10.0.0.0/8 in"),
        (("172.31.7.0/24 (39)", "fd00::/8 (38)"), "lets nobody in"),
    ],
    ids=["another range", "of the other IP version"],
)
def test_a_map_that_lacks_a_range_is_the_agents(rows: tuple[str, ...], has: str) -> None:
    path = asked(OK, *rows)
    assert path.verdict == "dropped", path.reason
    assert f"{BEHIND}{has}, and the Service's loadBalancerSourceRanges let " in path.cause
    assert path.fix is not None
    assert "See why Cilium's agent on node2 is behind" in path.fix.text
    assert path.drop is not None
    assert path.drop.object.startswith("Pod kube-system/cilium-")


def test_a_map_that_lets_in_whom_its_service_does_not() -> None:
    path = asked(BAD, "172.31.7.0/24 (39)")
    assert path.verdict.let_through, path.reason
    (found,) = [f for f in path.findings if "lets 172.31.7.200 in on node2, and its" in f.title]
    assert found.severity == "warning"
    assert found.detail.startswith(
        f"{BEHIND}lets 172.31.7.0/24 in, and the Service's loadBalancerSourceRanges let "
        "192.0.2.0/24 in."
    )


def test_ranges_that_a_service_keeps_out() -> None:
    to_ok = denied("lbsr-ok")
    for rows in ((), ("172.31.7.0/24 (38)",)):
        more = (printed(*rows),) if rows else ()
        path = explored(changed(RECORDED, *to_ok, more=more), OK).path
        assert path.verdict == "dropped", path.reason
        assert "which service.cilium.io/src-ranges-policy keeps out" in path.cause
        assert path.fix is not None
        assert path.fix.text.startswith("Remove 172.31.7.0/24 from loadBalancerSourceRanges")
    path = asked(BAD, "192.0.2.0/24 (39)", changes=denied("lbsr-bad"))
    assert path.verdict.let_through, path.reason
    assert not titles(path)


def test_a_service_whose_policy_the_map_has_not_seen() -> None:
    annotated = denied("lbsr-bad")[:1]
    path = asked(BAD, "192.0.2.0/24 (39)", changes=annotated)
    assert path.verdict == "dropped"
    assert (
        f"{BEHIND}lets 192.0.2.0/24 in, and the Service's loadBalancerSourceRanges keep "
        "192.0.2.0/24 out"
    ) in path.cause


def test_ranges_of_the_other_ip_version_alone_let_nobody_in() -> None:
    path = asked(OK, "fd00::/8 (38)", changes=(services(exactly("fd00::/8"), "lbsr-ok"),))
    assert path.verdict == "dropped"
    assert "its loadBalancerSourceRanges are fd00::/8, none of IPv4" in path.cause
    assert "behind" not in path.cause


def test_a_map_that_was_not_read_for_a_service_that_is_gone() -> None:
    def gone(record: Record) -> Record:
        if record.command != "get services -A":
            return record
        value = json.loads(record.stdout.read())
        value["items"] = [i for i in value["items"] if i["metadata"]["name"] != "lbsr-bad"]
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    path = explored(changed(RECORDED, gone), BAD).path
    assert path.verdict == "unknown", path.reason
    by_map = asked(BAD, "192.0.2.0/24 (39)", changes=(gone,))
    assert by_map.verdict == "dropped"
    assert "Cilium's map on node2 has no range that lets it in" in by_map.cause
