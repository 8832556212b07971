"""What commands ask of the real API server, tier by tier, against the roles that are printed.

A user has exactly one tier. Their commands' own logs (-v=6) tell each request: none may be refused,
and each right of the tier must have been used by some command, else it is one too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kubectl_ebpfnet.cluster.client.failures import api_request
from kubectl_ebpfnet.model.tiers import EXEC, ROLES, Tier
from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.conftest import Lab, printed_node_pods, wait_for_no_node_pods
from tests.lab.test_tiers import user_of

pytestmark = [pytest.mark.timeout(400)]
Right = tuple[str, str, str]
WORLD = f"{WORLD_ADDRESS}:80"
WORKLOADS = tuple(
    ("path", f"{kind}/nobody", WORLD)  # what is not there by its name is looked for among its like
    for kind in ("deploy", "sts", "ds", "rs", "job")
)
READS = (
    ("path", "pod/client", WORLD),
    ("path", "pod/client", "svc/web"),
    ("path", "node/node1", "pod/web:8080"),
    ("path", "203.0.113.9", "svc/web-lb-local"),
    ("flows", "pod/client"),
    ("programs", "node/node1"),
    *WORKLOADS,
)
SENDS = (
    ("netkat", "node/node1", "-z", "172.30.0.1", "6443"),
    ("probe-lb", "web-lb-local"),
)
UNUSED_HERE = {
    # Kubernetes 1.20 checks exec by a websocket for get alone, 1.35 for create.
    ("create", EXEC, ""),
}


def given(tier: Tier) -> set[Right]:
    """The rights that a tier's roles give, those of single flags left out."""
    roles = [role for role in ROLES[tier] if not role.flag]
    return {(right.verb, right.resource, right.name) for role in roles for right in role.rights}


def requests(log: str) -> Iterator[tuple[Right, int]]:
    """Yield what each request of a log asks for, and its status, 0 where it has none."""
    for line in log.splitlines():
        found = re.search(r'"Response" verb="([A-Z]+)" url="([^"]+)"(?: status="(\d+))?', line)
        if found and "/selfsubject" not in found[2]:  # what a user may ask of themselves
            asked = api_request(found[1], urlsplit(found[2]).path)
            yield (asked.verb, asked.resource, asked.name), int(found[3] or 0)


def capture(folder: Path) -> tuple[str, ...]:
    return ("capture", "pod/client", "-o", str(folder / "case.zip"))


def used(
    lab: Lab, user: str, *commands: tuple[str, ...], but: frozenset[Right] = frozenset()
) -> set[Right]:
    """The rights that commands use; asserts that nothing else was refused than `but`."""
    found: set[Right] = set()
    for words in commands:
        lead = [words[0], "--as", user, "-v=6"]  # words behind netkat's node are its own
        done = lab.ebpfnet(*lead, *words[1:])
        assert "Response" in done.stderr, done.stderr
        asked = list(requests(done.stderr))
        assert {right for right, status in asked if status == 403} <= but, words
        found |= {right for right, _ in asked}
    return found


def too_many(tier: Tier, asked: set[Right]) -> set[Right]:
    """The rights of a tier that nothing asked for."""
    plain = {(verb, resource) for verb, resource, _ in asked}
    return {
        right
        for right in given(tier)
        if right not in asked and (right[2] or right[:2] not in plain)
    }


@pytest.fixture(scope="module")
def daemon_set(lab: Lab) -> Iterator[str]:
    """Node pods on every node, of what `node-pods --print-manifest` prints; deleted afterwards."""
    if not lab.ours:
        pytest.skip("needs the lab, KUBECONFIG names another cluster")
    with printed_node_pods(lab) as manifest:
        rollout = ("rollout", "status", "-n", "ebpfnet", "daemonset/ebpfnet", "--timeout=50s")
        done = lab.kubectl(*rollout)
        assert done.returncode == 0, done.stdout + done.stderr
        yield manifest


def node_pods(lab: Lab) -> list[tuple[str, str]]:
    """Node and uid of each pod of the DaemonSet, which lives."""
    pods: list[dict[str, Any]] = lab.get("pods", "-n", "ebpfnet")["items"]
    assert all(each["status"]["phase"] == "Running" for each in pods)
    return sorted((each["spec"]["nodeName"], each["metadata"]["uid"]) for each in pods)


def namespaces(lab: Lab) -> set[str]:
    return {each["metadata"]["name"] for each in lab.get("namespaces")["items"]}


def test_agents(our_lab: Lab, tmp_path: Path) -> None:
    with user_of(our_lab, Tier.AGENTS) as user:
        asked = used(our_lab, user, *READS, capture(tmp_path), ("doctor",))
    assert too_many(Tier.AGENTS, asked) == UNUSED_HERE


def test_deploy(our_lab: Lab, tmp_path: Path) -> None:
    """Before the DaemonSet is there, whose pods would be used."""
    wait_for_no_node_pods(our_lab)
    by_api = [(*words, "--node-access", "none") for words in READS]  # each node pod takes seconds
    by_pod = [(*words, "--node-access", "pod") for words in (READS[1], capture(tmp_path))]
    with user_of(our_lab, Tier.DEPLOY) as user:
        asked = used(our_lab, user, *by_api, *by_pod, *SENDS, ("cleanup", "--yes"))
    assert too_many(Tier.DEPLOY, asked) == UNUSED_HERE


@pytest.mark.parametrize("tier", [Tier.NODE_PODS, Tier.DEPLOY])
def test_a_daemon_set_is_used_by_all_commands_and_left_alone(
    our_lab: Lab, daemon_set: str, tier: Tier, tmp_path: Path
) -> None:
    """By who may exec there and create nothing, and by who may create: they create nothing."""
    assert "kind: DaemonSet" in daemon_set
    before, places = node_pods(our_lab), namespaces(our_lab)
    assert [node for node, _ in before] == [node.name for node in NODES]
    with user_of(our_lab, tier) as user:
        for words in (READS[0], READS[1], *SENDS):
            lead = [words[0], "--as", user, *words[1:]]
            done = our_lab.ebpfnet(*lead)
            assert done.returncode == 0, (words, done.stderr)
            assert "deploy" not in done.stderr
        # How the pod resolves names stands in its own files, which no node pod reads.
        own = frozenset({("get", EXEC, "client")} if tier is Tier.NODE_PODS else ())
        asked = used(our_lab, user, *READS, *SENDS)
        asked |= used(our_lab, user, capture(tmp_path), but=own)
        assert ("get", EXEC) in {(verb, resource) for verb, resource, _ in asked}
        assert {verb for verb, resource, _ in asked if resource != EXEC} == {"get", "list"}
        if tier is Tier.NODE_PODS:
            assert too_many(tier, asked) == UNUSED_HERE
    assert node_pods(our_lab) == before
    assert namespaces(our_lab) <= places  # that of an earlier run may have gone meanwhile
