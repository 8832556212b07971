"""What cannot be decided never makes an answer more certain.

Take any recorded cluster and make one rule, route, policy entry or backend undecidable, as a newer
kernel or Cilium would print it: the verdict may only move to unknown, or to delivered where the
flow is answered now (docs/json.md, "How the verdict is decided"). A run tries every twentieth
thing, and `make fuzz` all of them. (test_any_bundle.py takes whole records away.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.errors import EbpfnetError
from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import Outcome, Verdict
from tests.explain.path.changed import ask
from tests.explain.path.test_any_bundle import ASKED, recorded

pytestmark = pytest.mark.variants
Edits = Callable[[str], Iterator[str]]
"""A command's output → the same with one thing undecidable, for each thing in it."""


def unknown_matches(text: str) -> Iterator[str]:
    """One rule of iptables-save after the other gets a match that nobody knows."""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if line.startswith(("-A ", "[")):
            head, dash, rest = line.partition("-A ")
            chain, _, more = rest.partition(" ")
            changed = f"{head}{dash}{chain} -m mystery --riddle 7 {more}"
            yield "\n".join([*lines[:at], changed, *lines[at + 1 :]])


def unparsable_lines(text: str) -> Iterator[str]:
    """One rule after the other becomes a line that cannot be read."""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if "-A " in line:
            yield "\n".join([*lines[:at], "-A", *lines[at + 1 :]])


def each_of(change: Callable[[dict[str, Any]], None]) -> Edits:
    """Change one object of a JSON list after the other."""

    def edits(text: str) -> Iterator[str]:
        values = json.loads(text)
        for at in range(len(values)):
            changed = json.loads(text)
            change(changed[at])
            yield json.dumps(changed)

    return edits


def each_entry(text: str) -> Iterator[str]:
    """One entry of `bpf policy get --all -o json` after the other names labels of nobody."""
    blocks = json.loads(text)
    for block, found in enumerate(blocks):
        for entry in range(len(found["Content"])):
            changed = json.loads(text)
            changed[block]["Content"][entry]["Key"]["Identity"] = "k8s:app=mystery"
            yield json.dumps(changed)


def each_line(change: Callable[[dict[str, Any]], None]) -> Edits:
    """Change one fact of a node side's answer after the other."""

    def edits(text: str) -> Iterator[str]:
        lines = text.split("\n")
        for at, line in enumerate(lines):
            if line:
                fact = json.loads(line)
                change(fact)
                yield "\n".join([*lines[:at], json.dumps(fact), *lines[at + 1 :]])

    return edits


def mysterious_backends(frontend: dict[str, Any]) -> None:
    for backend in frontend.get("backends", ()):
        backend["state"] = "mystery"


def a_riddle(rule: dict[str, Any]) -> None:
    rule["other_selectors"] = ["riddle"]


EDITS: dict[str, Edits] = {
    "iptables-save -c": unknown_matches,
    "ip -j rule": each_of(lambda rule: rule.update(riddle=7)),
    "ip -j route show table all": each_of(lambda route: route.update(type="mystery")),
    "cilium-dbg bpf policy get --all -o json": each_entry,
    "ebpfnet-node rules": each_line(a_riddle),
    "ebpfnet-node routes": each_line(lambda route: route.update(type="mystery")),
    "ebpfnet-node policy": each_line(lambda entry: entry.update(identity=-1)),
    "ebpfnet-node lb": each_line(mysterious_backends),
}


FAULTS = Path(__file__).parents[2] / "faults"
BY_NODE_PODS = [
    ("c16-lb-address-local", "client", "172.31.7.241:80", "tcp"),
    ("n04d-forward-drop-reply", "client", "1.1.1.1:80", "tcp"),
    ("n12-fwmark-blackhole", "client", "1.1.1.1:80", "tcp"),
    ("n12-fwmark-blackhole", "client", "svc/web", "tcp"),
    ("v14d-web-pod-no-route", "client", "svc/web", "tcp"),
    ("v33-itp-local", "client", "svc/f33", "tcp"),
    ("v37-policy-map-emptied", "client", "1.1.1.1:80", "tcp"),
]


def variants(records: tuple[Record, ...]) -> Iterator[tuple[str, tuple[Record, ...]]]:
    """Every recorded cluster with one thing undecidable, and what that is."""
    for at, record in enumerate(records):
        edits = EDITS.get(record.command)
        if edits is None or not record.ok:
            continue
        for number, text in enumerate(edits(record.stdout.read().decode())):
            changed = replace(record, stdout=InMemory(text.encode()))
            yield f"{record.place} {record.command} #{number}", (
                *records[:at], changed, *records[at + 1 :],
            )  # fmt: skip


def held(records: tuple[Record, ...], source: str, destination: str, protocol: str) -> None:
    right = ask(bundle_of(records), source, destination, protocol)
    allowed = {right.verdict, Verdict.UNKNOWN}
    attempt = right.attempt
    if attempt is not None and attempt.now and attempt.outcome is Outcome.ANSWERED:
        allowed.add(Verdict.DELIVERED)
    step = 1 if "EVERY_VARIANT" in os.environ else 20
    for name, changed in islice(variants(records), 0, None, step):
        try:
            path = ask(bundle_of(changed), source, destination, protocol)
        except EbpfnetError as error:
            pytest.fail(f"{name}: {error}")
        assert path.verdict in allowed, f"{name}: {right.verdict}, then {path.reason}"


@pytest.mark.parametrize(("scenario", "source", "destination", "protocol"), ASKED)
def test_an_undecidable_thing_only_makes_a_verdict_unknown(
    scenario: str, source: str, destination: str, protocol: str
) -> None:
    held(recorded(scenario), source, destination, protocol)


@pytest.mark.parametrize(("fault", "source", "destination", "protocol"), BY_NODE_PODS)
def test_by_node_pods_too(fault: str, source: str, destination: str, protocol: str) -> None:
    held(open_bundle(FAULTS / fault / "pod.zip").records, source, destination, protocol)
