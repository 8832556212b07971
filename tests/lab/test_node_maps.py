"""The node side's readers of Cilium's maps, in the namespaces of the lab's nodes, against what the
replay agents' `cilium-dbg` prints of the same maps at the same time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from kubectl_ebpfnet.model.cilium import Frontend, PolicyEntry
from kubectl_ebpfnet.model.cilium_ct import CtEntry
from kubectl_ebpfnet.model.cilium_events import MetricRow
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import PROTOCOL, FlowFilter, node_argv
from kubectl_ebpfnet.parse import node_side
from kubectl_ebpfnet.parse.cilium import ct, lb, maps
from kubectl_ebpfnet.parse.cilium import policy as cilium_policy
from tests.lab.cluster.config import HERE, NODES, ONE_OF_EACH, Node
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import FETCH, address, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

Facts = Iterable[Any]


@pytest.fixture(params=ONE_OF_EACH, ids=lambda node: node.name)
def node(our_lab: Lab, request: pytest.FixtureRequest) -> Node:
    """One node of each way of attaching."""
    found: Node = request.param
    return found


def in_node(node: Node, *words: str, stdin: str = "") -> bytes:
    """stdout of the node side, run as a node pod runs it but for its image."""
    first = policy.bpffs(node.name).parts[2]
    argv = ["nsenter", f"--target={first}", "--mount", "--net", "--pid", "--wd=/",
            sys.executable, "-m", "kubectl_ebpfnet.node", *words]  # fmt: skip
    done = subprocess.run(argv, input=stdin.encode(), capture_output=True, check=False,
                          env={"PYTHONPATH": str(HERE.parents[2])})  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def asked(node: Node, *words: str) -> tuple[Any, ...]:
    """Facts of the node side."""
    return node_side.facts(in_node(node, "ask", *words), node_argv(*words))


def bag(facts: Facts, plain: Callable[[Any], Any] = lambda fact: fact) -> Counter[Any]:
    """How often each fact is there."""
    return Counter(plain(fact) for fact in facts)


def same(
    ours: Callable[[], Facts], theirs: Callable[[], Facts], plain: Callable[[Any], Any]
) -> Counter[Any]:
    """What both say, as soon as both say the same: maps of a cluster never stand still."""
    seen: list[Counter[Any]] = []

    def agreed() -> bool:
        seen[:] = bag(ours(), plain), bag(theirs(), plain)
        return seen[0] == seen[1]

    try:
        wait_until(agreed)
    except AssertionError:
        only, other = seen[0] - seen[1], seen[1] - seen[0]
        pytest.fail(f"only the node side: {list(only)}\nonly cilium-dbg: {list(other)}")
    return seen[0]


def without_clock(entry: CtEntry) -> CtEntry:
    return replace(entry, remaining=None)


def test_conntrack(our_lab: Lab, node: Node) -> None:
    with pod_of_our_own(our_lab, "e2e-maps", node.name) as pod:
        ip = address(our_lab, pod)
        web = our_lab.get("service", "web")["spec"]["clusterIP"]
        our_lab.run(pod, *FETCH, f"http://{web}/")
        found = same(
            lambda: asked(node, "ct"),
            lambda: printed(our_lab, node),
            without_clock,
        )  # fmt: skip
        mine = [entry for entry in found if str(entry.flow.source) == ip]
        assert {"OUT", "SVC"} <= {entry.direction for entry in mine}
        service = next(entry for entry in mine if entry.direction == "SVC")
        assert str(service.flow.destination) == web
        assert service.backend_id
        for flow in (
            FlowFilter(service.flow.source),
            FlowFilter(
                service.flow.destination, service.flow.destination_port, service.flow.source,
                service.flow.source_port, service.flow.protocol,
            ),
        ):  # fmt: skip
            expected = bag((e for e in found if flow.fits(e.flow)), without_clock)
            got = bag(filtered(node, flow), without_clock)
            assert {e.flow for e in got} == {e.flow for e in expected} != set()


def printed(lab: Lab, node: Node, *more: str) -> list[CtEntry]:
    """Cilium's conntrack as its agent prints it."""
    text = lab.in_agent(node.name, "cilium-dbg", "bpf", "ct", "list", "global", *more)
    read = (ct.entry(line.encode(), 1) for line in text.splitlines())
    return [entry for entry in read if entry is not None]


def filtered(node: Node, flow: FlowFilter) -> tuple[Any, ...]:
    """The answer to a request with a filter, by the protocol."""
    request = {
        "protocol": PROTOCOL, "id": 1, "argv": list(node_argv("ct")), "netns": None,
        "flows": [codec.plain(flow)],
    }  # fmt: skip
    said = in_node(node, stdin=f'{json.dumps(request)}\n{{"end": true}}\n')
    _, header, rest = said.split(b"\n", 2)
    assert json.loads(header)["error"] == ""
    return node_side.facts(rest, node_argv("ct"))


def test_time_that_remains_is_cilium_s(our_lab: Lab, node: Node) -> None:
    def agreed() -> bool:
        theirs = {(e.flow, e.direction, e.expires): e.remaining
                  for e in printed(our_lab, node, "-d")}  # fmt: skip
        ours = {(e.flow, e.direction, e.expires): e.remaining for e in asked(node, "ct")}
        both = ours.keys() & theirs.keys()
        return bool(both) and all(0 <= theirs[one] - ours[one] <= 2 for one in both)

    with pod_of_our_own(our_lab, "e2e-maps", node.name) as pod:
        our_lab.run(pod, *FETCH, f"http://{our_lab.get('service', 'web')['spec']['clusterIP']}/")
        wait_until(agreed)


def as_printed(one: Frontend) -> Frontend:
    """Text does not tell a backend's id and state."""
    return replace(one, backends=tuple(replace(b, id=0, state="") for b in one.backends))


def test_services(our_lab: Lab, node: Node) -> None:
    found = same(
        lambda: asked(node, "lb"),
        lambda: lb.frontends(
            our_lab.in_agent(node.name, "cilium-dbg", "bpf", "lb", "list").encode()
        ),
        as_printed,
    )
    assert any(len(one.backends) > 0 for one in found)
    assert {b.state for one in asked(node, "lb") for b in one.backends} == {"active"}


def numeric(one: PolicyEntry) -> PolicyEntry:
    """Text does not tell the precedence."""
    return replace(one, precedence=None)


@pytest.mark.parametrize(
    ("name", "argv", "parser", "plain"),
    [
        ("ipcache", ("ipcache", "list"), maps.ipcache, lambda one: one),
        ("endpoints", ("endpoint", "list"), maps.endpoint_map, lambda one: one),
        ("policy", ("policy", "get", "--all", "-n"), cilium_policy.entries, numeric),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables(
    our_lab: Lab,
    node: Node,
    name: str,
    argv: tuple[str, ...],
    parser: Callable[[bytes], Facts],
    plain: Callable[[Any], Any],
) -> None:
    found = same(
        lambda: asked(node, name),
        lambda: parser(our_lab.in_agent(node.name, "cilium-dbg", "bpf", *argv).encode()),
        plain,
    )
    assert len(found) > 2


def test_policy_of_one_endpoint(node: Node) -> None:
    everything = asked(node, "policy")
    number = everything[0].endpoint_id
    assert bag(asked(node, "policy", str(number))) == bag(
        one for one in everything if one.endpoint_id == number
    )


def test_metrics(our_lab: Lab, node: Node) -> None:
    def counted() -> dict[tuple[str, str], MetricRow]:
        return {(one.reason, one.direction): one for one in asked(node, "metrics")}

    before = counted()
    text = our_lab.in_agent(node.name, "cilium-dbg", "bpf", "metrics", "list")
    theirs = {(one.reason, one.direction): one for one in maps.metrics(text.encode())}
    after = counted()
    assert before.keys() <= theirs.keys() <= after.keys()
    assert ("Success", "egress") in theirs
    for key, row in theirs.items():
        low = before[key].packets if key in before else 0
        assert low <= row.packets <= after[key].packets
        assert row.bytes <= after[key].bytes


@pytest.mark.parametrize("name", ["nat", "egress", "ipmasq"])
def test_what_the_lab_does_not_have(our_lab: Lab, name: str) -> None:
    request = {
        "protocol": PROTOCOL, "id": 1, "argv": list(node_argv(name)), "netns": None, "flows": [],
    }  # fmt: skip
    said = in_node(NODES[0], stdin=f'{json.dumps(request)}\n{{"end": true}}\n')
    header = json.loads(said.splitlines()[1])
    assert (header["exit_code"], header["bytes"]) == (1, 0)
    assert "is pinned under /sys/fs/bpf/tc/globals" in header["error"]
