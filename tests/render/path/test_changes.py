"""What `path -w` prints between two answers: changes of the cluster, and not its traffic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as File

import pytest

from kubectl_ebpfnet.capture.demo import open_demo
from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import Finding, HopKind, Path, Severity, Verdict
from kubectl_ebpfnet.render.path.changes import MOST, Change, changes, lines
from kubectl_ebpfnet.render.path.steady import steady
from kubectl_ebpfnet.render.text.view import View
from tests.explain.path.changed import POLICY, SCENARIOS, VXLAN, ask


def answer(scenario: str = VXLAN, edit: tuple[str, str, str] | None = None, port: int = 80) -> Path:
    """The answer of a recorded cluster, a word of a command's output changed."""
    records = list(open_bundle(File(SCENARIOS) / scenario).records)
    if edit is not None:
        command, old, new = edit
        touched = 0
        for at, record in enumerate(records):
            text = record.stdout.read().decode()
            if command in record.command and old in text:
                records[at] = replace(record, stdout=InMemory(text.replace(old, new).encode()))
                touched += 1
        assert touched
    return ask(bundle_of(records, scenario), "client", f"1.1.1.1:{port}", "tcp")


def test_the_same_twice_is_no_change() -> None:
    assert changes(answer(), answer()) == []


@pytest.mark.parametrize(
    "traffic",
    [
        ("neigh", "REACHABLE", "STALE"),
        ("bpf", ":36768", ":36999"),
    ],
    ids=" ".join,
)
def test_traffic_alone_is_no_change(traffic: tuple[str, str, str]) -> None:
    assert changes(answer(), answer(edit=traffic)) == []


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ("answered 9s before the record", "answered 1m5s before the record", True),
        ("no answer within 29.98s", "no answer within 30.01s", True),
        ("at a2:c1:6b:49:b6:1d, REACHABLE", "at a2:c1:6b:49:b6:1d, STALE", True),
        ("at a2:c1:6b:49:b6:1d", "at a2:c1:6b:49:b6:2d", False),
        ("at 1d:c1:6b:49:b6:21", "at 2d:c1:6b:49:b6:21", False),
        ("via fd00:1d::1", "via fd00:2d::1", False),
        ("packets of more than 1450 bytes are lost", "packets of more than 1400 bytes are lost",
         False),
        ("1,204 packets, 88 bytes", "1,305 packets, 99 bytes", True),
        ("n1 sent 148 bytes and got no answer", "n1 sent 296 bytes and got no answer", True),
        ("10.0.0.1:4000 → 1.1.1.1:80", "10.0.0.1:4001 → 1.1.1.1:80", True),
        ("[fd00::1]:4000 → [fd00::2]:80", "[fd00::1]:4001 → [fd00::2]:80", True),
        ("fd00:10:96:5:1:2:3:9 → fd00::2", "fd00:10:96:5:1:2:3:8 → fd00::2", False),
        ("10.0.0.1:4000 → 1.1.1.1:80", "10.0.0.1:4000 → 1.1.1.1:81", False),
    ],
)  # fmt: skip
def test_what_traffic_alone_changes_in_a_sentence(before: str, after: str, alike: bool) -> None:
    assert (steady(before) == steady(after)) is alike


def test_a_policy_that_denies_now() -> None:
    found = changes(replace(answer(), verdict=Verdict.LEAVES), answer(POLICY, port=443))
    by_what = {change.what: change for change in found}
    assert by_what["verdict"].before == "LEAVES"
    assert by_what["verdict"].after.startswith("DROPPED: at node2, by the egress policy of ")
    assert by_what["cause"].after
    assert [change.what for change in found][:1] == ["verdict"]
    assert "dropped here" in by_what["node2 policy"].after


def test_a_route_that_leads_elsewhere() -> None:
    found = changes(answer(), answer(edit=("route", "172.30.0.200", "172.30.0.99")))
    assert [change.what for change in found if "172.30.0.99" in change.after][:1] == ["node2 route"]
    routes = next(change for change in found if change.what == "node2 route")
    assert "172.30.0.200" in routes.before


def test_findings_come_and_go() -> None:
    path = answer()
    worse = replace(
        path, findings=(*path.findings, Finding(Severity.WARNING, "7 drops on eth0", "look"))
    )
    more = replace(
        path, findings=(*path.findings, Finding(Severity.WARNING, "9 drops on eth0", "look"))
    )
    assert changes(path, worse) == [Change("warning", "", "7 drops on eth0")]
    assert changes(worse, path) == [Change("warning", "7 drops on eth0", "")]
    assert changes(worse, more) == []


_NEW = {"client": "client-2", "10.244.1.160": "10.244.1.161", "lxcca1c984e26ef": "lxc0"}


def anew(
    bundle: Bundle, names: dict[str, str], pod: str, edit: tuple[str, str] = ("", "")
) -> Bundle:
    """A recorded cluster with a pod replaced by another: its name, address and device."""

    def changed(record: Record) -> Record:
        text = record.stdout.read().decode()
        for old, new in (*names.items(), *([edit] if edit[0] else [])):
            text = text.replace(old, new)
        place = record.place
        place = replace(place, pod=names[pod]) if place.pod == pod else place
        return replace(record, place=place, stdout=InMemory(text.encode()))

    return bundle_of([changed(record) for record in bundle.records], "x")


def replaced_pod(edit: tuple[str, str] = ("", "")) -> Path:
    """The answer of the recorded cluster, its client replaced by another."""
    bundle = anew(open_bundle(File(SCENARIOS) / VXLAN), _NEW, "client", edit)
    return ask(bundle, "client-2", "1.1.1.1:80", "tcp")


def test_another_pod_is_one_change_whatever_is_called_after_it() -> None:
    path = replaced_pod()
    assert any("lxc0" in hop.summary for hop in path.hops if hop.node)
    assert changes(answer(), path) == [
        Change("source", "pod/client on node2", "pod/client-2 on node2")
    ]


def test_what_else_changes_beside_another_pod_is_told() -> None:
    found = changes(answer(), replaced_pod(("172.30.0.200", "172.30.0.99")))
    assert [change.what for change in found if "172.30.0.99" in change.after][:1] == ["node2 route"]
    assert found[0].what == "source"


def test_another_backend_is_one_change() -> None:
    old, new = "web-7c469c57c9-8p62k", "web-7c469c57c9-x2x2x"
    names = {old: new, "10.44.1.71": "10.44.1.99", "lxc11065d728395": "lxc1"}
    recorded = bundle_of(open_demo("demo").records, "x")
    paths = [
        ask(each, "client", "svc/web", "tcp") for each in (recorded, anew(recorded, names, old))
    ]
    assert paths[0].hops[-1].kind is HopKind.SOCKET  # behind the delivery
    assert changes(*paths) == [Change("arrives at", f"pod default/{old}", f"pod default/{new}")]


def test_lines_have_the_time_and_keep_within_the_terminal() -> None:
    found = [
        Change("verdict", "DELIVERED", "DROPPED: at node2, by the egress policy of pod/client"),
        Change("node2 policy", "egress to world:80/TCP allowed", "allowed by no rule \x1b[2J"),
        Change("error", "a finding", ""),
    ]
    printed = lines(found, "12:00:01", View(width=60))
    assert max(map(len, printed)) <= 60
    assert printed[0].startswith("12:00:01  verdict       DELIVERED → DROPPED: at node2")
    assert "\x1b" not in "".join(printed)
    assert printed[-1].startswith("12:00:01  error         no more: a finding")
    coloured = lines(found, "12:00:01", View(width=60, color=True))
    assert "\x1b[" in coloured[0]


def test_many_changes_are_cut() -> None:
    printed = lines([Change("x", "", str(n)) for n in range(MOST + 5)], "12:00:01", View())
    assert len(printed) == MOST + 1
    assert printed[-1].startswith("12:00:01  5 more changes")
