"""The lists on terminals of 80 and 120 columns, on the recorded cluster and on hostile names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.capture.demo import open_demo
from kubectl_ebpfnet.explain.flows import listing as flows
from kubectl_ebpfnet.explain.programs import listing as programs
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.placed import placed_pod
from kubectl_ebpfnet.model.evidence import bundle_of
from kubectl_ebpfnet.model.flows import FlowList
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import TrackedFlow
from kubectl_ebpfnet.render.lists.flows import listing as flow_list
from kubectl_ebpfnet.render.lists.listing import Listing, remarks, render
from kubectl_ebpfnet.render.lists.programs import listing as program_list
from kubectl_ebpfnet.render.lists.sort import sorted_by
from kubectl_ebpfnet.render.text.view import View

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def demo() -> Any:
    return open_demo("demo")


def lists(demo: Any) -> dict[str, Listing[Any]]:
    return {
        "flows-pod": flow_list(flows.of_pod("default", "client", demo)),
        "flows-node": flow_list(flows.of_node("node2", demo, alive=True)),
        "programs-pod": program_list(programs.of_pod("default", "client", demo)),
        "programs-node": program_list(programs.of_node("node2", demo)),
    }


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["flows-pod", "flows-node", "programs-pod", "programs-node"])
def test_on_a_terminal(golden, demo, name, width):
    text = render(lists(demo)[name], demo, "table", View(width))
    assert max(map(len, text.splitlines())) <= width
    golden(GOLDEN / f"{name}.{width}", text)


def flow(source: str, destination: str, translated: str) -> TrackedFlow:
    sent = Flow(TCP, ip_address(source), 40000, ip_address(destination), 443)
    seen = replace(sent, destination=ip_address(translated), destination_port=8443)
    return TrackedFlow("n1", sent, None, None, None, None, seen)


V6 = flow("fd00:10:244:1:aaaa:bbbb:cccc:160", "fd00:10:96:aaaa:1:2:3:9", "fd00:10:244:2:a:b:c:5")


def test_socket_programs_of_a_nodes_pods_are_one_line(demo: Any) -> None:
    pods = [placed_pod(ClusterView(demo), "default", "pod", name) for name in ("client", "client1")]
    here = replace(pods[1], name="client", addresses=pods[0].addresses)  # another pod of its node
    found = programs.of_pods([pods[0], here, pods[1]], "pods", demo)
    owners = [*found.owners]
    second = len(owners) // 3
    owners[second : 2 * second] = ["default/other"] * second
    found = replace(found, owners=tuple(owners))
    shown = render(program_list(found, several=True), demo, "table", View()).splitlines()[1:]
    folded = [line.split()[:3] for line in shown if "20 programs" in line]
    assert folded == [["default", "client1", "cgroup"], ["-", "2", "pods"]]
    assert shown[-1].startswith("-")
    unfolded = render(
        program_list(found, several=True, unfold=True), demo, "table", View()
    ).splitlines()
    assert len(unfolded) == 1 + len(found.programs)


def test_an_address_is_never_parted_from_its_port():
    found = FlowList("node n1", "n1", (V6, flow("10.0.0.1", "10.0.0.2", "10.0.0.3")))
    text = render(flow_list(found), bundle_of(()), "table", View(80))
    for word in (
        "[fd00:10:244:1:aaaa:bbbb:cccc:160]:40000", "[fd00:10:96:aaaa:1:2:3:9]:443",
        "[fd00:10:244:2:a:b:c:5]:8443", "10.0.0.1:40000", "10.0.0.3:8443",
    ):  # fmt: skip
        assert word in text
    assert max(map(len, text.splitlines())) <= 80
    narrow = render(flow_list(found), bundle_of(()), "table", View(50)).splitlines()
    assert narrow[1:4] == [
        "TCP    [fd00:10:244:1:aaaa:bbbb:cccc:160]:40000",
        "  → [fd00:10:96:aaaa:1:2:3:9]:443",
        "  translated to [fd00:10:244:2:a:b:c:5]:8443",
    ]
    assert render(flow_list(found), bundle_of(()), "table", View()).count("\n") == 3


def test_an_ascii_terminal_gets_ascii():
    text = render(flow_list(FlowList("", "", (V6,))), bundle_of(()), "table", View(50, ascii=True))
    assert text.isascii()
    assert "  -> [fd00:10:96:aaaa:1:2:3:9]:443" in text


def test_columns_with_nothing_are_left_out():
    text = render(flow_list(FlowList("", "", (V6,))), bundle_of(()), "wide", View())
    assert text.split("\n")[0].split() == ["PROTO", "SOURCE", "DESTINATION", "TRANSLATED"]


def test_of_nothing_no_header_is_printed():
    for found, said in (
        (FlowList("pod a/b", "n1", ()), "No matching connections found."),
        (FlowList("pod a/b", "n1", (), over=1), "1 closed connection is not shown: --all"),
        (FlowList("pod a/b", "n1", (), known=False), "Unknown: the tables that would have the"),
    ):
        assert render(flow_list(found), bundle_of(()), "table", View()) == ""
        assert any(line.startswith(said) for line in remarks(flow_list(found), bundle_of(())))


def test_hostile_names_are_inert():
    owners = ("a\x1b[2J/b\n\u202ec",)
    found = flow_list(FlowList("", "", (V6,), owners=owners), several=True)
    for form in ("table", "wide", "name", "custom-columns=A:.pod", "jsonpath={.items[*].pod}"):
        text = render(found, bundle_of(()), form, View())
        assert not {"\x1b", "\u202e"} & set(text)
        assert text.count("\n") <= 2


def test_numbers_sort_as_numbers(demo):
    made = lists(demo)["flows-node"]
    ports = [row.flow.flow.source_port for row in sorted_by(made, ".flow.source_port").rows]
    known = [port for port in ports if port is not None]
    assert known == sorted(known)
    assert ports[: len(ports) - len(known)] == [None] * (len(ports) - len(known))
    seen = [row.flow.last_seen.any for row in sorted_by(made, "LAST-SEEN").rows]
    assert [age for age in seen if age is not None] == sorted(a for a in seen if a is not None)
    sources = [str(row.flow.flow.source) for row in sorted_by(made, "source").rows]
    assert sources.index("10.44.0.235") < sources.index("127.0.0.1") < sources.index("172.31.7.1")
