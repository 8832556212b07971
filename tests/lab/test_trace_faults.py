"""`trace --send` beside `path`, while something is broken for real: the same place is named, and
what the tables do not show at all is the difference.

All on one pod of this module's own, one after the other; each fault is undone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import (
    address,
    changed,
    in_node,
    in_pod,
    kept_node_pods,
    pod_of_our_own,
)
from tests.lab.conftest import Lab, wait_for_no_node_pods
from tests.lab.test_road_prog import compiled

WORLD = f"{WORLD_ADDRESS}:80"
NODE = NODES[0]
_SHOT = 2  # TC_ACT_SHOT
INSIDE = ("ip", "netns", "exec", NODE.netns)
Fault = Callable[[str, str], AbstractContextManager[object]]
"""(pod, its address) → the fault, while it lasts."""


@pytest.fixture(scope="module")
def victim(lab: Lab) -> Iterator[str]:
    """A pod on node1, and node pods that all questions use."""
    with pod_of_our_own(lab, "e2e-traced", NODE.name) as name:
        with kept_node_pods(lab, WORLD, "pod/client3:8080"):
            yield name
        wait_for_no_node_pods(lab)


def device(pod: str) -> str:
    return str(policy.endpoint("default", pod)["device"])


def traced(lab: Lab, pod: str, to: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a trace that sends one packet."""
    done = lab.ebpfnet(
        "trace", f"pod/{pod}", to, "--send", "--yes", "-o", "json", "--node-access", "pod"
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def iptables(_: str, own: str) -> AbstractContextManager[object]:
    rule = ("FORWARD", "-s", own, "-d", WORLD_ADDRESS, "-j", "DROP")
    words = (*INSIDE, "iptables", "-w", "10")
    return changed([*words, "-I", *rule], [*words, "-D", *rule])


def nft(_: str, own: str) -> AbstractContextManager[object]:
    table = "table inet e2e_trace"
    chain = f"chain f {{ type filter hook forward priority 5; ip saddr {own} drop; }};"
    return changed([*INSIDE, "nft", f"{table} {{ {chain} }}"], [*INSIDE, "nft", f"delete {table}"])


@contextmanager
def no_way_out(pod: str, _: str) -> Iterator[None]:
    router = NODE.router
    in_pod(pod, "ip", "route", "del", "default")
    try:
        yield
    finally:
        in_pod(pod, "ip", "route", "add", "default", "via", router, "dev", "eth0")


def blackhole(_: str, own: str) -> AbstractContextManager[object]:
    """For this pod alone, by a table of its own."""
    rule = ("rule", "{}", "from", own, "pref", "50", "lookup", "991")
    in_node(NODE, "ip", "route", "replace", "blackhole", "default", "table", "991")
    add, take = ([*INSIDE, "ip", *(w.format(do) for w in rule)] for do in ("add", "del"))
    return changed(add, take)


@pytest.mark.parametrize(
    ("fault", "reason", "kind"),
    [(iptables, "NETFILTER_DROP", "rule"), (nft, "NETFILTER_DROP", "rule"),
     (blackhole, "there is no route", "route")],
)  # fmt: skip
def test_what_the_tables_show_is_dropped_at_the_same_place(
    our_lab: Lab, victim: str, fault: Fault, reason: str, kind: str
) -> None:
    with fault(victim, address(our_lab, victim)):
        code, document = traced(our_lab, victim, WORLD)
    assert (code, document["verdict"]) == (3, "dropped")
    assert reason in document["reason"]
    path = document["path"]
    assert path["verdict"] == "dropped"
    assert path["hops"][-1]["kind"] == kind
    assert document["difference"] is None
    assert document["cause"] == path["cause"] != ""
    lost = next(s for p in document["packets"] for s in p["sightings"] if s["lost"] == "yes")
    assert (lost["node"], lost["owner"]["kind"]) == ("node1", "node")


def test_what_the_pods_own_kernel_refuses_to_send(our_lab: Lab, victim: str) -> None:
    with no_way_out(victim, ""):
        code, document = traced(our_lab, victim, WORLD)
    assert (code, document["verdict"], document["path"]["verdict"]) == (3, "dropped", "dropped")
    assert "Network is unreachable" in document["reason"]
    assert document["difference"] is None


def test_a_closed_port_is_named_as_by_path(our_lab: Lab, victim: str) -> None:
    code, document = traced(our_lab, victim, "pod/client3:9")
    assert (code, document["verdict"], document["path"]["verdict"]) == (3, "dropped", "dropped")
    assert "NO_SOCKET" in document["reason"]
    assert document["difference"] is None


def test_a_foreign_program_is_the_difference(our_lab: Lab, victim: str, tmp_path: Path) -> None:
    """Before Cilium's, at tc ingress of the pod's device: the tables have no verdict of it."""
    drops = compiled(tmp_path, address(our_lab, victim), _SHOT)
    there = f"tc filter add dev {device(victim)} ingress pref 1 handle 2 bpf da obj {drops} sec tc"
    undo = f"tc filter del dev {device(victim)} ingress pref 1 handle 2 bpf"
    with changed([*INSIDE, *there.split()], [*INSIDE, *undo.split()]):
        code, document = traced(our_lab, victim, WORLD)
    assert (code, document["verdict"]) == (3, "dropped")
    assert "TC_INGRESS" in document["reason"]
    assert device(victim) in document["reason"]
    assert document["path"]["verdict"] in ("unknown", "leaves", "delivered")
    if document["path"]["verdict"] != "unknown":
        assert "the tables let it through" in document["difference"]["text"]


def test_a_wrong_mac_on_the_wire_is_the_difference(our_lab: Lab, victim: str) -> None:
    """An entry that looks like any other, and has the address of nobody."""
    to = address(our_lab, "client")
    entry = (to, "dev", device("client"))
    words = [*INSIDE, "ip", "neigh"]
    wrong = [*words, "replace", *entry, "lladdr", "02:00:5e:00:00:99", "nud", "permanent"]
    with changed(wrong, [*words, "del", *entry]):
        code, document = traced(our_lab, victim, "pod/client:8080")
    assert (code, document["verdict"]) == (3, "dropped")
    assert "OTHERHOST" in document["reason"]
    path = document["path"]
    if path["verdict"] != "dropped":
        assert document["difference"] is not None
