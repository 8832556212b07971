"""`path -w` beside a policy that is edited, and `--all-pods`, on a live cluster."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.kubectl import program
from tests.lab.cluster.tools.live import FETCH, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

WORLD = f"{WORLD_ADDRESS}:80"


def test_a_policys_edit_is_a_line_with_its_time(
    our_lab: Lab, egress_policy: Callable[..., None], tmp_path: Path
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with pod_of_our_own(our_lab, "e2e-watched", "node1") as pod:
        our_lab.run(pod, *FETCH, f"http://{WORLD_ADDRESS}/")
        argv = [program(), "ebpfnet", "path", f"pod/{pod}", WORLD, "-w", "--node-access", "agent"]
        with (
            out.open("w") as stdout,
            err.open("w") as stderr,
            subprocess.Popen(argv, stdout=stdout, stderr=stderr, env=our_lab.env()) as process,
        ):
            try:
                wait_until(lambda: out.read_text().startswith("DELIVERED"), 30)
                first = out.read_text()
                egress_policy(pod, "7777/TCP")
                wait_until(lambda: "→ DROPPED" in out.read_text(), 30)
                process.send_signal(signal.SIGINT)
                process.wait(30)
            finally:
                process.kill()
    assert process.returncode == 130
    assert err.read_text() == ""
    added = out.read_text().removeprefix(first).splitlines()
    assert added[0][2:8:3] == "::"  # 12:00:01
    assert "DELIVERED → DROPPED: at node1" in added[0]
    assert "neighbour" not in "".join(added)


@pytest.mark.side_by_side
def test_each_pod_of_a_workload(our_lab: Lab) -> None:
    done = our_lab.ebpfnet(
        "path", "deploy/web", WORLD, "--all-pods", "--node-access", "agent", "-o", "json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    pods = {pod["metadata"]["name"] for pod in our_lab.get("pods", "-l", "app=web")["items"]}
    assert {item["source"]["name"] for item in document["items"]} == pods
