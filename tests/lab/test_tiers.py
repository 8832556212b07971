"""Users of the real API server who have exactly one tier of rights each: what it promises works,
and what it lacks is named with the verb and the tier."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kubectl_ebpfnet.model.tiers import Tier
from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.control.manifests import bound
from tests.lab.cluster.tools.live import objects, path
from tests.lab.conftest import Lab, printed_node_pods, wait_until

pytestmark = [pytest.mark.timeout(180)]
WORLD = f"{WORLD_ADDRESS}:80"


@contextmanager
def user_of(lab: Lab, tier: Tier) -> Iterator[str]:
    """A user who has a tier, bound as `doctor --print-rbac` says."""
    user = f"e2e-{tier}-{secrets.token_hex(3)}"
    made = bound(user, tier)
    if not made:
        yield user
        return
    with objects(lab, *made):
        may = ("auth", "can-i", "list", "pods", "-A", "--as", user)
        wait_until(lambda: lab.kubectl(*may).returncode == 0)
        yield user


def refused(stderr: str) -> set[str]:
    """URLs, without queries, of requests that were denied, of a log of -v=6."""
    return set(re.findall(r'url="([^"?]*)[^"]*" status="403', stderr))


def tiers(lab: Lab, user: str) -> dict[str, bool]:
    """Which tiers `doctor` says that a user has."""
    done = lab.kubectl("ebpfnet", "doctor", "-o", "json", "--as", user)
    return {each["name"]: each["held"] for each in json.loads(done.stdout)["tiers"]}


def test_a_capture_is_read_by_who_may_do_nothing(our_lab: Lab) -> None:
    with user_of(our_lab, Tier.CAPTURE) as user:
        done = our_lab.kubectl("ebpfnet", "path", "client", "1.1.1.1", "--from", "demo")
        assert (done.returncode, done.stderr) == (0, "")
        live = path(our_lab, "pod/client", WORLD, "--as", user)
        assert live.code == 1
        assert 'verb "get" on "pods" in namespace default' in live.stderr
        assert "(tier agents, kubectl ebpfnet doctor --print-rbac=agents)" in live.stderr
        assert tiers(our_lab, user) == {"agents": False, "node-pods": False, "deploy": False}


def test_agents(our_lab: Lab) -> None:
    with user_of(our_lab, Tier.AGENTS) as user:
        answer = path(our_lab, "pod/client", WORLD, "--as", user, "-v=6")
        assert answer.code == 0, answer.document["reason"]
        assert refused(answer.stderr) == set()
        for words in (("flows", "pod/client"), ("programs", "node/node1")):
            done = our_lab.kubectl("ebpfnet", *words, "--as", user)
            assert (done.returncode, "may not" in done.stderr) == (0, False), done.stderr
        assert tiers(our_lab, user) == {"agents": True, "node-pods": False, "deploy": False}
        more = our_lab.kubectl(
            "ebpfnet", "netkat", "--as", user, "node/node1", "-z", "192.0.2.1", "80"
        )
        assert more.returncode == 1
        lacked = "create namespaces (tier deploy, kubectl ebpfnet doctor --print-rbac=deploy)"
        assert f"missing permission: {lacked}" in more.stderr


def test_node_pods_that_are_there(our_lab: Lab) -> None:
    with printed_node_pods(our_lab, "node/node1"):
        ready = ("wait", "-n", "ebpfnet", "--for=condition=Ready", "pod/ebpfnet-node1")
        wait_until(lambda: our_lab.kubectl(*ready, "--timeout=20s").returncode == 0, 60)
        with user_of(our_lab, Tier.NODE_PODS) as user:
            answer = path(our_lab, "pod/client", WORLD, "--as", user, "-v=6")
            assert answer.code == 0, answer.document["reason"]
            assert refused(answer.stderr) == set()
            assert tiers(our_lab, user) == {"agents": False, "node-pods": True, "deploy": False}
            agent = path(our_lab, "pod/client", WORLD, "--as", user, "--node-access", "agent")
            assert agent.code == 4
            assert "in namespace kube-system" in json.dumps(agent.document["findings"])
            assert "--print-rbac=agents" in json.dumps(agent.document["findings"])


def test_deploy(our_lab: Lab) -> None:
    with user_of(our_lab, Tier.DEPLOY) as user:
        answer = path(our_lab, "pod/client", WORLD, "--as", user, "--node-access", "pod", "-v=6")
        assert answer.code == 0, answer.document["reason"]
        assert refused(answer.stderr) == set()
        assert tiers(our_lab, user)["deploy"] is True
