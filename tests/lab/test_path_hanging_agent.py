"""`path` where a node's agent is stopped: its maps answer, its socket hangs."""

from __future__ import annotations

import time

import pytest

from tests.lab.cluster.agent import switches
from tests.lab.cluster.config import NODES
from tests.lab.cluster.tools.live import path
from tests.lab.conftest import Lab


@pytest.mark.parametrize("access", ["agent", "auto"])
def test_an_agent_that_hangs_costs_a_few_seconds(our_lab: Lab, access: str) -> None:
    with switches.hangs(NODES[0]):
        begun = time.monotonic()
        answer = path(our_lab, "pod/client", "svc/web:80", "--node-access", access, "--yes")
        took = time.monotonic() - begun
    assert took < 15
    assert answer.verdict in ("delivered", "reachable")
    assert any("it did not answer within 3 s: the agent hangs" in title for title in answer.titles)
    deployed = "Cilium's agent on node1 does not answer: deploying a node pod on node1"
    assert (deployed in answer.stderr) == (access == "auto")
