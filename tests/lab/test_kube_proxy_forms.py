"""Every form of a Service that the lab's real kube-proxy has, asked from pods, nodes and outside:
what `path` says, then what a real connection does. None contradicts.

Each question is asked before its connection, so that no tracked flow answers it. kube-proxy is
1.20's, in its iptables mode: it knows no internalTrafficPolicy, and its API no topology hints; IPVS
and nftables are not in the lab (tests/node/netlink/test_kube_proxy_kernel.py has its nft rules).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.cluster.config import LB_POOL, NODES, WORLD_NETNS, WORLD_NODE_ADDRESS
from tests.lab.cluster.control.manifests import Manifest, web_pod
from tests.lab.cluster.datapath import sync
from tests.lab.cluster.tools.live import (
    Answer,
    changed,
    in_node,
    kept_node_pods,
    objects,
    path,
    pod_netns,
)
from tests.lab.conftest import Lab, wait_until

LABEL = {"app": "e2e-kp"}
EXTERNAL = "172.30.0.251"
"""An externalIP: on the wire's subnet, and nobody's own."""
PORTS = (80, 81)
PATIENCE_S = 1.5
FAILED = ""
LB_DENIED, LB_PODS, LB_OUTSIDE, LB_LOCAL = LB_POOL[-4:]


def backend(name: str, node: str, **labels: str) -> Manifest:
    """A pod that answers who asked; its port has a name."""
    made = web_pod(name, node)
    made["metadata"]["labels"] = labels or LABEL
    made["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    return made


def not_ready(name: str, node: str, **labels: str) -> Manifest:
    """The same, whose readiness gate nobody fulfils."""
    made = backend(name, node, **labels)
    made["spec"]["readinessGates"] = [{"conditionType": "e2e.invalid/never"}]
    return made


def service(name: str, selector: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """A Service of port 80 → 8080."""
    port = {"name": "http", "port": 80, "targetPort": 8080}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"e2e-kp-{name}", "namespace": "default"},
        "spec": {"selector": LABEL if selector is None else selector, "ports": [port], **spec},
    }


def balanced(name: str, address: str, **spec: Any) -> Manifest:
    return service(name, type="LoadBalancer", loadBalancerIP=address, **spec)


MANUAL: Manifest = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": {"name": "e2e-kp-manual", "namespace": "default"},
    "subsets": [
        {"addresses": [{"ip": WORLD_NODE_ADDRESS}], "ports": [{"name": "http", "port": 80}]}
    ],
}
OBJECTS = (
    backend("e2e-kp1", "node1"),
    backend("e2e-kp2", "node2"),
    not_ready("e2e-kp-late", "node2", app="e2e-kp-late"),
    service("plain"),
    service("named", ports=[{"name": "web", "port": 80, "targetPort": "http"}]),
    service("ports", ports=[
        {"name": "one", "port": 80, "targetPort": 8080},
        {"name": "two", "port": 81, "targetPort": "http"},
        {"name": "none", "port": 82, "targetPort": "no-such-name"},
    ]),
    service("sticky", sessionAffinity="ClientIP"),
    service("headless", clusterIP="None"),
    service("np", type="NodePort"),
    service("np-local", {"app": "e2e-kp", "only": "node1"}, type="NodePort",
            externalTrafficPolicy="Local"),
    service("np-none", {"app": "e2e-kp-nobody"}, type="NodePort"),
    service("late", {"app": "e2e-kp-late"}),
    service("early", {"app": "e2e-kp-late"}, publishNotReadyAddresses=True),
    service("external", externalIPs=[EXTERNAL]),
    service("on-node", externalIPs=[NODES[1].address], ports=[
        {"name": "http", "port": 9080, "targetPort": 8080},
    ]),
    balanced("lb-denied", LB_DENIED, loadBalancerSourceRanges=["192.0.2.0/24"]),
    balanced("lb-pods", LB_PODS, loadBalancerSourceRanges=["10.244.0.0/16"]),
    balanced("lb-outside", LB_OUTSIDE, loadBalancerSourceRanges=[f"{WORLD_NODE_ADDRESS}/32"]),
    balanced("lb-local", LB_LOCAL, externalTrafficPolicy="Local"),
    {**service("manual"), "spec": {"ports": [{"name": "http", "port": 80}]}},
    MANUAL,
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A question and what came of it.

    Attributes:
        source, to: the words of `path`.
        answer: of `path`, before the connection.
        seen: who the server saw, FAILED for no connection.
    """

    source: tuple[str, ...]
    to: str
    answer: Answer
    seen: str

    @property
    def contradicts(self) -> str:
        """What is wrong with the answer, "" for nothing."""
        verdict, reason = self.answer.verdict, self.answer.document["reason"]
        errors = [f for f in self.answer.document["findings"] if f["severity"] == "error"]
        if self.seen and verdict == "dropped":
            return f"answered, and path says {reason}"
        if self.seen and errors:
            return f"answered, and path finds {errors[0]['title']}"
        if not self.seen and verdict in ("delivered", "reachable", "leaves"):
            return f"no connection, and path says {verdict}: {reason}"
        if verdict == "unknown":
            # Nobody has the address that it goes on to, which no record of a node can say.
            leaves = not self.seen and "for the Service's own address" in reason
            return "" if leaves else f"unknown: {reason}"
        source = self.answer.hops[-1]["packet"]["source"]
        if self.seen and verdict == "reachable" and source != self.seen:
            return f"the server saw {self.seen}, and path has {source}"
        return ""


def fetch(enter: list[str], end: str) -> str:
    """Ask an end who it sees; "" for no connection."""
    argv = [*enter, "curl", "-sS", "--max-time", str(PATIENCE_S), f"http://{end}/clientip"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.rpartition(":")[0] if done.returncode == 0 else FAILED


@pytest.fixture(scope="module")
def forms(lab: Lab) -> Iterator[dict[str, Any]]:
    """The Services, by their name without the prefix, programmed on every node."""
    if not lab.ours:
        pytest.skip("needs the lab's nodes")
    made = [json.loads(json.dumps(each)) for each in OBJECTS]
    made[0]["metadata"]["labels"] = {**LABEL, "only": "node1"}
    with objects(lab, *made):
        wait_until(lambda: lab.ready_endpoints("e2e-kp-plain") == 2, 60)
        wait_until(lambda: lab.ready_endpoints("e2e-kp-early") == 1, 60)
        found = lab.get("services")["items"]
        named = {s["metadata"]["name"]: s for s in found}
        wait_until(lambda: all(_programmed(node.name, named) for node in NODES), 60)
        wait_until(lambda: named["e2e-kp-plain"]["spec"]["clusterIP"] in sync.VIEW.read_text(), 60)
        nodes = [f"{node.address}:10250" for node in NODES]
        with kept_node_pods(lab, *nodes):
            yield {name.removeprefix("e2e-kp-"): each for name, each in named.items()}


def _programmed(node: str, named: dict[str, Any]) -> bool:
    rules = in_node(next(n for n in NODES if n.name == node), "iptables-save")
    return (
        all(
            f"-d {service['spec']['clusterIP']}/32" in rules
            for name, service in named.items()
            if name.startswith("e2e-kp-") and service["spec"]["clusterIP"] != "None"
        )
        and f"-d {LB_LOCAL}/32" in rules
    )


def ends(forms: dict[str, Any]) -> list[str]:
    """Every address and port that kube-proxy may take."""
    found = []
    for name in ("plain", "named", "sticky", "late", "early", "np-none", "manual"):
        found.append(f"{forms[name]['spec']['clusterIP']}:80")
    found += [f"{forms['ports']['spec']['clusterIP']}:{port}" for port in (80, 81, 82)]
    for name in ("np", "np-local", "np-none"):
        port = forms[name]["spec"]["ports"][0]["nodePort"]
        found += [f"{node.address}:{port}" for node in NODES[:2]]
    found += [f"{EXTERNAL}:80", f"{NODES[1].address}:9080"]
    found += [f"{one}:80" for one in (LB_DENIED, LB_PODS, LB_OUTSIDE, LB_LOCAL)]
    return found


def ask_all(lab: Lab, source: tuple[str, ...], enter: list[str], to: list[str]) -> list[Asked]:
    def one(end: str) -> Asked:
        answer = path(lab, source[0], end, *source[1:])
        assert answer.document, answer.stderr
        return Asked(source, end, answer, fetch(enter, end))

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(one, to))


def told(asked: list[Asked]) -> list[str]:
    return [f"{' '.join(a.source)} → {a.to}: {a.contradicts}" for a in asked if a.contradicts]


# Each form is asked from one node or the other, which halves what takes the time of a minute.
@pytest.mark.parametrize(("pod", "first"), [("client", 0), ("client2", 1)])
def test_from_a_pod(our_lab: Lab, forms: dict[str, Any], pod: str, first: int) -> None:
    asked = ask_all(our_lab, (f"pod/{pod}",), pod_netns(pod), ends(forms)[first::2])
    wrong = told(asked)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("node", "first"), [(NODES[0], 1), (NODES[1], 0)])
def test_from_a_node(our_lab: Lab, forms: dict[str, Any], node: Any, first: int) -> None:
    enter = ["ip", "netns", "exec", node.netns]
    asked = ask_all(our_lab, (f"node/{node.name}",), enter, ends(forms)[first::2])
    wrong = told(asked)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("node", NODES[:2], ids=lambda node: node.name)
def test_from_outside(our_lab: Lab, forms: dict[str, Any], node: Any) -> None:
    """The world's frames for an address go to one node, as a load-balancer would choose it."""
    to = [end for end in ends(forms) if not end.startswith("10.96.")]
    enter = ["ip", "netns", "exec", WORLD_NETNS]
    ip = ["ip", "-n", WORLD_NETNS, "route"]
    with ExitStack() as ways:
        for address in {end.partition(":")[0] for end in to} - {n.address for n in NODES}:
            way = [f"{address}/32", "via", node.address]
            ways.enter_context(changed([*ip, "add", *way], [*ip, "del", *way]))
        to = [end for end in to if end.partition(":")[0] not in
              {n.address for n in NODES if n != node}]  # fmt: skip
        source = (WORLD_NODE_ADDRESS, "--via", f"node/{node.name}")
        asked = ask_all(our_lab, source, enter, to)
    wrong = told(asked)
    assert not wrong, "\n".join(wrong)


def test_headless(our_lab: Lab, forms: dict[str, Any]) -> None:
    """Nothing balances it: path takes one of its pods."""
    answer = path(our_lab, "pod/client", "svc/e2e-kp-headless")
    assert answer.code == 0, answer.stderr or answer.document["reason"]
    assert not answer.all("load-balancing")
    assert re.search("e2e-kp[12]", answer.hops[-1]["summary"])
