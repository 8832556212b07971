"""An API server that restarts, a kubelet that is dead, a node pod that is taken away."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.agent import switches
from tests.lab.cluster.config import NODES
from tests.lab.cluster.tools import lab_faults
from tests.lab.cluster.tools.relay import Relay
from tests.lab.conftest import Lab
from tests.lab.faults.runs import MARKS, REMOVAL, a_run, cleaned, every

pytestmark = MARKS


@every
def test_the_api_server_restarts(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with a_run(our_lab, "API server restarts", command, nothing_left) as one:
        one.deploys()
        away = threading.Thread(target=lab_faults.restart_api_server, args=(1.0,))
        away.start()
        try:
            code = one.ends(60)
        finally:
            away.join()
    assert code in (0, 1, 4)
    if f"namespace {one.namespace} " in one.err:  # may be left, or could not be deleted
        cleaned(one)


@every
def test_a_node_without_its_kubelet(our_lab: Lab, nothing_left: Path, command: str) -> None:
    with (
        lab_faults.without_kubelet(NODES[0]),
        a_run(our_lab, "kubelet killed", command, nothing_left) as one,
    ):
        code = one.ends(60)
    assert code in (0, 1, 4)
    assert "node1" in one.out + one.err


@pytest.mark.parametrize("how", ["evicted", "OOM-killed"])
@every
def test_a_node_pod_that_goes_in_the_middle(
    our_lab: Lab, nothing_left: Path, tmp_path: Path, command: str, how: str
) -> None:
    """A slow network keeps the run from its answers until the pod is gone."""
    with Relay() as relay:
        file = relay.kubeconfig(our_lab.kubeconfig, tmp_path)
        with a_run(our_lab, f"node pod {how}", command, nothing_left, KUBECONFIG=str(file)) as one:
            pods = one.runs()
            if command == "netkat":
                one.echoes()
            relay.delay = 0.5
            for pod in pods:
                if how == "evicted":
                    evict(our_lab, pod["metadata"]["namespace"], pod["metadata"]["name"])
                else:
                    one.name += f" by {lab_faults.kill_for_memory(container_of(pod))}"
            code = one.ends(90)
    if command == "netkat":
        assert code in (1, 128 + signal.SIGTERM, 128 + signal.SIGKILL)
        assert re.search(
            "the node pod is taken away|the connection ended|ended in the middle|by signal", one.err
        )
    else:
        assert code in (0, 1, 4)


def evict(lab: Lab, namespace: str, name: str) -> None:
    """Ask the API server to evict a pod at once, as `kubectl drain` does."""
    body = {
        "apiVersion": "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"gracePeriodSeconds": 0},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    lab.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def container_of(pod: dict[str, Any]) -> str:
    """The id of a pod's container."""
    [status] = pod["status"]["containerStatuses"]
    return str(status["containerID"]).rpartition("/")[2]


@pytest.mark.parametrize("access", ["agent", "auto"])
@pytest.mark.parametrize("command", ["path", "flows", "capture"])
def test_an_agent_that_hangs(our_lab: Lab, nothing_left: Path, command: str, access: str) -> None:
    more = (f"--node-access={access}", "--timeout=30s", "--yes")
    with (
        switches.hangs(NODES[0]),
        a_run(our_lab, f"agent hangs ({access})", command, nothing_left, *more) as one,
    ):
        code = one.ends(30 + REMOVAL)
    assert code in (0, 4)
    if command != "path":
        return  # nothing, or not all, of what it asks goes over the agent's socket
    if access == "auto":
        assert "Cilium's agent on node1 does not answer: deploying a node pod" in one.err
    else:
        assert "it did not answer within 3 s: the agent hangs" in " ".join(one.out.split())
