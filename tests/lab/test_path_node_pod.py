"""`path` by a node pod: the same hops as by Cilium's agent, more of a pod without tools, and the
answer of a cluster whose agents are gone."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.tools.live import (
    FETCH,
    Answer,
    bpftool_names_tcx,
    in_node,
    kept_node_pods,
    path,
    pod_of_our_own,
)
from tests.lab.conftest import Lab, wait_until

WORLD = f"{WORLD_ADDRESS}:80"
_AGE = re.compile(r"[0-9]+ s before")
_PASSING = re.compile(
    r"expire[sd] (in )?\d+s( ago)?|(?<=\d):\d{5}\b|\((REACHABLE|DELAY|STALE|PROBE)\)"
)
"""What differs from one connection, and one look, to the next."""


@pytest.fixture(scope="module")
def kept(lab: Lab) -> Iterator[str]:
    """Words that ask by node pods which this module's first question leaves for the next ones."""
    if not lab.ours:
        pytest.skip("needs the node image of the lab (make lab-up)")
    with kept_node_pods(lab, "pod/client2:80", "pod/client3:80"):
        yield "pod"


@pytest.fixture
def by_pod(our_lab: Lab, kept: str) -> Callable[..., Answer]:
    return lambda *words: path(our_lab, *words, "--node-access", kept)


def said(answer: Answer) -> list[tuple[str, ...]]:
    """The hops without what passes with time."""
    return [
        (hop["place"], hop["where"], hop["kind"], _PASSING.sub("", hop["summary"]), hop["state"])
        for hop in answer.hops
    ]


@pytest.mark.parametrize(
    "destination", [WORLD, "svc/web", "svc/web-np", "pod/client3:80", "node/node3:10250"]
)
def test_by_agent_and_by_node_pod_the_hops_are_the_same(
    our_lab: Lab, by_pod: Callable[..., Answer], destination: str
) -> None:
    our_lab.run("client", *FETCH, f"http://{WORLD_ADDRESS}/")
    agent = path(our_lab, "pod/client", destination, "--node-access", "agent")
    pod = by_pod("pod/client", destination)
    assert pod.stderr == ""
    assert said(pod) == said(agent)
    assert (pod.code, pod.verdict, pod.titles) == (agent.code, agent.verdict, agent.titles)
    reasons = [_AGE.sub("", answer.document["reason"]) for answer in (pod, agent)]
    assert reasons[0] == reasons[1]
    places = {record["place"]["kind"] for record in pod.document["records"]}
    assert "cilium-agent" not in places


def test_an_agent_with_an_old_bpftool_says_what_it_cannot_tell(
    our_lab: Lab, by_pod: Callable[..., Answer]
) -> None:
    ping = ("pod/client", "pod/client2", "--protocol", "icmp")
    agent = path(our_lab, *ping, "--node-access", "agent")
    assert by_pod(*ping).code == 0
    if bpftool_names_tcx():
        assert agent.code == 0
    else:
        assert (agent.code, agent.verdict) == (4, "unknown")
        assert "bpftool" in agent.document["reason"]


def test_from_a_host_network_pod_too(our_lab: Lab, by_pod: Callable[..., Answer]) -> None:
    agent = path(our_lab, "pod/hostnet", WORLD, "--node-access", "agent")
    assert said(by_pod("pod/hostnet", WORLD)) == said(agent)


def test_what_policy_drops_is_dropped_by_both(
    our_lab: Lab, by_pod: Callable[..., Answer], egress_policy: Callable[..., None]
) -> None:
    with pod_of_our_own(our_lab, "e2e-limited", "node1") as pod:
        egress_policy(pod, "443/TCP")
        agent = path(our_lab, f"pod/{pod}", WORLD, "--node-access", "agent")
        ours = by_pod(f"pod/{pod}", WORLD)
    assert (agent.code, ours.code) == (3, 3)
    assert said(ours) == said(agent)


def test_a_pod_without_any_tool_is_known_as_well_as_others(
    our_lab: Lab, by_pod: Callable[..., Answer]
) -> None:
    answer = by_pod("pod/bare-client", "svc/web")
    assert answer.code == 0
    assert answer.titles == []
    assert all(hop["state"] != "unknown" for hop in answer.hops)
    route = next(hop for hop in answer.hops if hop["kind"] == "route")
    assert route["place"] == "pod"
    assert "default via 10.244.2.1 dev eth0" in route["summary"]
    # The kernel was asked as well: its answer stands beside the table's.
    excerpts = [line for proof in route["evidence"] for line in proof["excerpt"]]
    assert any('"gateway":"10.244.2.1"' in line and '"source":' in line for line in excerpts)


def test_the_nodes_answer_is_the_kernels_own(our_lab: Lab, by_pod: Callable[..., Answer]) -> None:
    answer = by_pod("pod/client", WORLD)
    (hop,) = (hop for hop in answer.hops if hop["kind"] == "route" and hop["place"] == "node")
    excerpts = [json.loads(line) for proof in hop["evidence"] for line in proof["excerpt"]]
    (looked_up,) = (fact for fact in excerpts if "in_device" in fact)
    source = our_lab.get("pod", "client")["status"]["podIP"]
    ip = ("ip", "-j", "route", "get", WORLD_ADDRESS, "from", source, "iif")
    (same,) = json.loads(in_node(NODES[0], *ip, looked_up["in_device"]))
    assert (looked_up["device"], looked_up["gateway"]) == (same["dev"], same["gateway"])


def test_a_capture_by_node_pods_is_explained_as_the_cluster_is(
    our_lab: Lab, by_pod: Callable[..., Answer], tmp_path: Path
) -> None:
    file = str(tmp_path / "case.zip")
    words = ("capture", "-o", file, "pod/client", "pod/client2", "--node-access", "pod")
    done = our_lab.ebpfnet(*words)
    assert done.returncode == 0, done.stderr
    stored = path(our_lab, "pod/client", "pod/client2:80", "--from", file)
    assert said(stored) == said(by_pod("pod/client", "pod/client2:80"))
    assert (stored.code, stored.hops[-1]["kind"]) == (3, "socket")  # nothing listens there
    redacted = str(tmp_path / "shared.zip")
    done = our_lab.ebpfnet(*words[:2], redacted, *words[3:], "--redact")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(redacted) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    for word in ("client", "node1", our_lab.get("pod", "client")["status"]["podIP"]):
        assert not re.search(rb"\b" + re.escape(word.encode()) + rb"\b", text), word


@contextmanager
def no_agents(lab: Lab) -> Iterator[None]:
    """Agents are none by their label, for whoever looks for them; their processes run on.

    To end them and to wait for new ones takes kubelets a minute. Their DaemonSet would make others
    at once: it is deleted without them, and takes them over again (controller-revision-hash is a
    hash of its template, so it does not replace them).
    """
    system = ("-n", "kube-system")
    made = lab.get("daemonset", "cilium", *system)
    made["metadata"] = {key: made["metadata"][key] for key in ("name", "namespace")}
    made.pop("status")
    label, value = next(iter(made["spec"]["selector"]["matchLabels"].items()))
    pods = [pod["metadata"]["name"] for pod in lab.get("pods", *system, "-l", label)["items"]]

    def kubectl(*words: str, stdin: str = "") -> None:
        done = lab.kubectl(*words, *system, stdin=stdin)
        assert done.returncode == 0, done.stderr

    def owned() -> bool:
        there = lab.get("pods", *system, "-l", label)["items"]
        assert [pod["metadata"]["name"] for pod in there] == pods
        return all(pod["metadata"].get("ownerReferences") for pod in there)

    kubectl("delete", "daemonset", "cilium", "--cascade=orphan")
    try:
        kubectl("label", "pod", *pods, f"{label}-")
        yield
    finally:
        kubectl("label", "pod", "--overwrite", *pods, f"{label}={value}")
        kubectl("create", "-f", "-", stdin=json.dumps(made))
        wait_until(owned, 60)


def test_without_agents_a_node_pod_is_deployed_and_said_so(our_lab: Lab) -> None:
    our_lab.run("client", *FETCH, f"http://{WORLD_ADDRESS}/")
    before = said(path(our_lab, "pod/client", WORLD, "--node-access", "agent"))
    # Kept node pods would be taken instead.
    assert our_lab.ebpfnet("cleanup", "--yes").returncode == 0
    with no_agents(our_lab):
        our_lab.run("client", *FETCH, f"http://{WORLD_ADDRESS}/")
        asked = path(our_lab, "pod/client", WORLD)
        answer = path(our_lab, "pod/client", WORLD, "--yes")
        blind = path(our_lab, "pod/client", WORLD, "--node-access", "none")
    # Nothing is deployed that nobody wanted, and no terminal is there to ask on.
    assert (asked.code, asked.verdict) == (4, "unknown")
    assert any("--yes or --node-access pod deploys" in title for title in asked.titles)
    assert "deploying" not in asked.stderr
    assert answer.code == 0
    assert "no Cilium agent runs there: deploying a node pod on node1" in answer.stderr
    assert said(answer) == before
    assert (blind.code, blind.verdict) == (4, "unknown")
    assert any("--node-access none" in title for title in blind.titles)
