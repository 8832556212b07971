"""`kubectl ebpfnet path` names the policy that allows or denies, by Kubernetes' own objects.

The lab's agent does not read policies: the map is written beside the objects as an agent would, or
not, which is an agent that is behind. Traffic is seen to pass and to be dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import Answer, objects, path, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

pytestmark = pytest.mark.side_by_side
WORLD, ECHO = f"{WORLD_ADDRESS}:80", f"{WORLD_ADDRESS}:7777"
CLIENT = "e2e-names"
READER = "e2e-no-policies"


@contextmanager
def a_pod(lab: Lab) -> Iterator[str]:
    with pod_of_our_own(lab, CLIENT, "node1") as name:
        yield name


def connects(lab: Lab, pod: str, port: int) -> bool:
    words = ("exec", pod, "--", "nc", "-z", "-w", "2", WORLD_ADDRESS, str(port))
    return lab.kubectl(*words).returncode == 0


def own_label(lab: Lab, pod: str) -> dict[str, str]:
    """A label that this pod alone has."""
    assert lab.kubectl("label", "pod", pod, f"e2e-name={pod}").returncode == 0
    return {"e2e-name": pod}


def network_policy(name: str, labels: dict[str, str], *ports: int) -> dict[str, Any]:
    """A NetworkPolicy that lets a pod reach the world at some ports."""
    to = [{"ipBlock": {"cidr": f"{WORLD_ADDRESS}/32"}}]
    rule = {"to": to, "ports": [{"port": port, "protocol": "TCP"} for port in ports]}
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Egress"], "egress": [rule]}
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    }  # fmt: skip


def policy_hops(answer: Answer) -> str:
    return " | ".join(hop["summary"] for hop in answer.all("policy"))


def wait_for_labels(lab: Lab, pod: str, labels: dict[str, str]) -> None:
    ((key, value),) = labels.items()

    def known() -> bool:
        found = lab.get("ciliumendpoints", pod)
        return f"k8s:{key}={value}" in found["status"]["identity"]["labels"]

    wait_until(known)


def test_a_network_policy_by_its_name_and_rule(our_lab: Lab) -> None:
    with a_pod(our_lab) as pod:
        labels = own_label(our_lab, pod)
        wait_for_labels(our_lab, pod, labels)
        with objects(our_lab, network_policy(pod, labels, 80)):
            policy.allow_egress("default", pod, policy.Allowed.parse("80/TCP"))
            assert connects(our_lab, pod, 80)
            assert not connects(our_lab, pod, 7777)
            let_out, denied = path(our_lab, pod, WORLD), path(our_lab, pod, ECHO)
            rule = f"egress[0] (to {WORLD_ADDRESS}/32 at 80/TCP)"
            assert f"by NetworkPolicy default/{pod} {rule}" in policy_hops(let_out)
            assert denied.verdict == "dropped"
            said = denied.document
            assert said["drop"]["object"] == f"NetworkPolicy default/{pod}"
            selects = f"NetworkPolicy default/{pod} selects pod default/{pod}, and no egress rule"
            assert (
                f"{selects} allows 7777/TCP to {WORLD_ADDRESS}; the nearest is {rule}"
                in said["cause"]
            )
            assert (
                f"add 7777/TCP to egress[0] of NetworkPolicy default/{pod}" in said["fix"]["text"]
            )
            assert said["fix"]["command"] == f"kubectl edit networkpolicy -n default {pod}"


def test_a_map_that_does_not_follow_the_policies(our_lab: Lab) -> None:
    with a_pod(our_lab) as pod:
        labels = own_label(our_lab, pod)
        wait_for_labels(our_lab, pod, labels)
        with objects(our_lab, network_policy(pod, labels, 80)):
            assert connects(our_lab, pod, 7777)  # the agent has not put it into the map
            lets = path(our_lab, pod, ECHO)
        assert lets.verdict == "delivered"
        assert any("does not follow the policies in the cluster" in each for each in lets.titles)
        policy.allow_egress("default", pod, policy.Allowed.parse("80/TCP"))
        assert not connects(our_lab, pod, 7777)
        stale = path(our_lab, pod, ECHO)
        assert stale.verdict == "dropped"
        assert (
            "no policy selects it for egress, so that it should be let through"
            in (stale.document["cause"])
        )
        with objects(our_lab, network_policy(pod, labels, 80, 7777)):
            behind = path(our_lab, pod, ECHO)
        assert (
            "at 80/TCP, 7777/TCP) allows it, but its policy map does not"
            in (behind.document["cause"])
        )
        assert behind.document["drop"]["object"] == f"CiliumEndpoint default/{pod}"


def test_who_may_not_list_policies_is_told_the_verb(our_lab: Lab) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": READER},
        "rules": [
            {"apiGroups": ["", "cilium.io"], "verbs": ["get", "list"],
             "resources": ["pods", "nodes", "services", "ciliumendpoints", "ciliumnodes",
                           "configmaps"]},
            {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
        ],
    }  # fmt: skip
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": READER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": READER,
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": READER}],
    }  # fmt: skip
    with a_pod(our_lab) as pod, objects(our_lab, role, binding):
        policy.allow_egress("default", pod, policy.Allowed.parse("80/TCP"))
        words = ("--node-access", "agent", "--as", READER)
        denied, let_out = path(our_lab, pod, ECHO, *words), path(our_lab, pod, WORLD, *words)
    assert denied.verdict == "dropped"
    assert "which policy denies it is not known" in denied.document["cause"]
    assert "this user may not list" in denied.document["cause"]
    assert "by which policy is not known" in policy_hops(let_out)
    assert let_out.code == 0
