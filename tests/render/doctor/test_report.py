"""`doctor` as text: many nodes, narrow terminals, names that are no words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kubectl_ebpfnet.model.catalogue import TOOL_NAMES
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.doctor import (
    SCHEMA,
    Checkup,
    CiliumFound,
    Connection,
    Lack,
    Level,
    NodeCheck,
    Reach,
    TraceSight,
)
from kubectl_ebpfnet.model.events import Lacking, TraceLayer
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.kernel import KernelFacts
from kubectl_ebpfnet.model.rights import COMMANDS, RIGHTS
from kubectl_ebpfnet.model.tiers import held
from kubectl_ebpfnet.render.doctor.report import render
from kubectl_ebpfnet.render.doctor.tables import MOST_NODES
from kubectl_ebpfnet.render.lists.listing import FORMATS
from kubectl_ebpfnet.render.text.not_seen import not_seen
from kubectl_ebpfnet.render.text.view import View

FOLDER = Path(__file__).parents[1] / "golden"
BUNDLE = bundle_of([], source="live", note="a note")
DENIED = ("list services", "get services", "create namespaces")
PROGRAMS = Lack("programs in pods' own namespaces and cgroups", "--node-access pod")
CRASHED = Lack("the agent kube-system/cilium-x does not run: CrashLoopBackOff", "--node-access pod")


def good(name: str) -> NodeCheck:
    full = [Reach(command, Level.FULL) for command in COMMANDS]
    full[1] = Reach("programs", Level.PARTIAL, (PROGRAMS,))
    tools = tuple(tool for tool in TOOL_NAMES if tool != "conntrack")
    return NodeCheck(
        name, True, "", "running", True, tools=tools, missing_tools=("conntrack",), by="agent",
        commands=tuple(full),
    )  # fmt: skip


def bad(name: str) -> NodeCheck:
    blind = tuple(Reach(command, Level.BLIND, (CRASHED,)) for command in COMMANDS)
    return NodeCheck(
        name, True, "", "CrashLoopBackOff", False, CRASHED.what, commands=blind,
    )  # fmt: skip


def report(*nodes: NodeCheck) -> Checkup:
    rights = tuple(
        replace(
            right,
            allowed=right.words not in DENIED,
            namespaces=("shop",) if right.words == "get services" else (),
        )
        for right in RIGHTS
    )
    levels = {node.reach("path").level for node in nodes}
    return Checkup(
        Connection("prod", "https://10.0.0.1:6443", "shop", "auto", "v1.31.2", "jane", ("sre",)),
        rights,
        CiliumFound(
            True, "kube-system", "cilium", 2, 1,
            (("version", "1.17.4"), ("routing", "tunnel (vxlan)")),
            DatapathConfig(routing_mode="tunnel"),
        ),
        nodes,
        verdict=Level.BLIND if Level.BLIND in levels else Level.FULL,
        missing=("the version: the API server is tired",),
    )  # fmt: skip


POD = replace(
    good("n3"), agent="", agent_exec=None, tools=(), missing_tools=(), node_pod="kept",
    by="node pod", kernel=KernelFacts("6.12.1-amd64", bpf_stats=False),
    kernel_release="6.12.1-amd64",
)  # fmt: skip
THREE = report(good("n1"), bad("n2"), POD)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(golden, name):
    golden(FOLDER / f"doctor.{name}", render(THREE, BUNDLE, name, View()))


@pytest.mark.parametrize("width", [60, 80, 140])
def test_within_the_terminal(golden, width):
    text = render(THREE, BUNDLE, "table", View(width))
    golden(FOLDER / f"doctor.table.{width}", text)
    assert max(map(len, text.splitlines())) <= width


def test_json_and_yaml_say_the_same():
    document = json.loads(render(THREE, BUNDLE, "json", View()))
    assert yaml.safe_load(render(THREE, BUNDLE, "yaml", View())) == document
    assert document["schema"] == SCHEMA
    assert document["verdict"] == "blind"
    assert document["nodes"][1]["commands"][0]["level"] == "blind"


def test_what_trace_will_see_is_said_in_the_words_of_trace():
    lacking = (Lacking("gro", "no such tracepoint"), Lacking("drop", "refused"))
    partly = TraceSight((TraceLayer("trace", ("queue",), lacking),))
    nothing = TraceSight((TraceLayer("trace", (), (Lacking("drop", "no libbpf here"),)),))
    whole = TraceSight((TraceLayer("trace", ("queue",)),))
    unknown = TraceSight((), "no node pod was asked", "doctor --node-access pod")
    sights = {"a": partly, "b": nothing, "c": whole, "d": whole, "e": unknown}
    nodes = [replace(good(name), trace=sight) for name, sight in sights.items()]
    text = render(report(*nodes), BUNDLE, "wide", View())
    rows = [" ".join(line.split()) for line in text.partition("\ntrace\n")[2].splitlines()[1:5]]
    assert rows == [
        f"a trace {not_seen(['gro', 'drop'])} -",
        "b trace nothing: no libbpf here -",
        "c, d trace all of its places -",
        "e - not known: no node pod was asked doctor --node-access pod",
    ]


def test_the_documentation_names_every_key():
    text = (Path(__file__).parents[3] / "docs/json.md").read_text()
    section = text.partition("## `doctor`\n")[2].partition("\n## ")[0]
    document = json.loads(render(THREE, BUNDLE, "json", View()))
    nodes = document["nodes"]
    reaches = [reach for node in nodes for reach in node["commands"]]
    lacks = [lack for reach in reaches for lack in reach["lacks"]]
    parts = [document, document["connection"], document["cilium"], *document["rights"], *nodes]
    named = {key for part in (*parts, *reaches, *lacks) for key in part}
    assert {key for key in named if f"`{key}`" not in section} == set()


def test_colour_is_of_levels_alone():
    text = render(THREE, BUNDLE, "table", View(80, color=True))
    assert "\x1b[1;31mblind\x1b[0m" in text
    plain = render(THREE, BUNDLE, "table", View(80))
    for code in ("\x1b[1;31m", "\x1b[1;32m", "\x1b[1;33m", "\x1b[0m"):
        text = text.replace(code, "")
    assert text == plain


@pytest.mark.parametrize(
    ("suffix", "rest"), [("", "n-000, n-001 and 97 more"), (".eu-west.example.com", "and 98 more")]
)
def test_a_hundred_nodes_share_rows(suffix, rest):
    nodes = [good(f"n-{number:03}{suffix}") for number in range(100)]
    nodes[40] = bad(nodes[40].name)
    text = render(report(*nodes), BUNDLE, "table", View(80))
    lines = text.splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 80
    assert f"blind on n-040{suffix}" in lines[0]
    wide = render(report(*nodes), BUNDLE, "wide", View())
    assert wide.count(rest) == 3  # the nodes, the commands, what is missing
    document = json.loads(render(report(*nodes), BUNDLE, "json", View()))
    assert len(document["nodes"]) == 100


def test_few_nodes_have_a_row_each():
    nodes = [good(f"n{number}") for number in range(MOST_NODES)]
    lines = render(report(*nodes), BUNDLE, "table", View()).splitlines()
    assert sum(line.startswith("n7 ") for line in lines) == 2
    assert any(line.endswith(PROGRAMS.help) and "every node" in line for line in lines)


def test_what_a_tier_gives_is_not_listed():
    nothing = tuple(replace(right, allowed=False) for right in RIGHTS)
    text = render(replace(THREE, rights=nothing), BUNDLE, "table", View())
    gives = "kubectl ebpfnet doctor --print-rbac={0} gives them"
    for tier in held(replace(THREE, rights=nothing)):
        assert f"none of {tier.needed} rights ({gives.format(tier.tier)})" in text
    assert "deployments" not in text
    assert "deployments" in render(replace(THREE, rights=nothing), BUNDLE, "wide", View())


def test_names_are_not_obeyed():
    name = "n\x1b[2J\u202e"
    text = render(report(bad(name)), BUNDLE, "table", View(80))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "n\\x1b[2J" in text
