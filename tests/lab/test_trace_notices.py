"""`trace` with Cilium's own notices; those of the lab's agent are a REPLAY (agent/monitor.py)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab.cluster.agent.monitor import deny
from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import kept_node_pods, pod_netns
from tests.lab.conftest import Lab, wait_for_no_node_pods, wait_until

WORLD = f"{WORLD_ADDRESS}:80"


def monitors() -> str:
    """Processes of monitors in agents."""
    argv = ["pgrep", "-f", "^cilium-dbg monitor -j"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


@contextmanager
def asking(pod: str) -> Iterator[None]:
    """A pod that asks WORLD twice a second."""
    loop = f"while :; do curl -s -m 1 -o /dev/null http://{WORLD_ADDRESS}/; sleep 0.5; done"
    process = subprocess.Popen([*pod_netns(pod), "sh", "-c", loop])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_notices_are_joined_to_the_packets_that_they_are_of(our_lab: Lab) -> None:
    with kept_node_pods(our_lab, WORLD):
        done = our_lab.ebpfnet("trace", "pod/client", WORLD, "--send", "--yes", "-o", "json")
        document: dict[str, Any] = json.loads(done.stdout)
    wait_for_no_node_pods(our_lab)
    assert (done.returncode, document["verdict"]) == (0, "delivered"), done.stderr
    assert [each["notices"] for each in document["nodes"]] == [""]
    mine = policy.endpoint("default", "client")
    told = {
        (each["event"]["summary"], tuple(each["event"]["tcp_flags"]), each["direction"]): each
        for each in document["notices"]
    }
    syn = next(p for p in document["packets"] if p["what"] == "SYN")
    answer = next(p for p in document["packets"] if p["what"] == "SYN,ACK")
    first = told["-> stack", ("SYN",), "forth"]
    assert (first["packet"], first["source"], first["destination"]) == (
        syn["number"], "app=client", "world",
    )  # fmt: skip
    assert told[f"-> endpoint {mine['id']}", ("SYN", "ACK"), "back"]["packet"] == answer["number"]
    assert told["-> network", ("SYN",), "forth"]["packet"] == syn["number"]  # as it is masqueraded
    wait_until(lambda: not monitors())


def test_by_notices_alone_nothing_is_loaded(our_lab: Lab) -> None:
    with asking("client"):
        done = our_lab.ebpfnet(
            "trace", "pod/client", WORLD, "--node-access", "agent", "-c", "4", "--for", "20s"
        )
    assert done.returncode == 0, done.stderr
    assert "node pod" not in done.stderr
    assert "Cilium: -> stack, SYN, new, app=client → world" in done.stdout
    assert "DELIVERED" in done.stdout
    assert "nothing is loaded there" in done.stdout
    wait_until(lambda: not monitors())


def test_a_drop_by_policy_is_named_by_notices_alone(our_lab: Lab) -> None:
    with deny(80), asking("client"):
        done = our_lab.ebpfnet(
            "trace", "pod/client", WORLD, "--node-access", "agent", "-c", "1", "-o", "json"
        )
    document = json.loads(done.stdout)
    # The replay says that it drops; the lab's network does not, so that answers come.
    drops = [n for n in document["notices"] if n["event"]["kind"] == "drop"]
    assert drops
    assert drops[0]["event"]["summary"] == "Policy denied by denylist"
    assert drops[0]["event"]["code"] == "bpf_lxc.c:1356"
    assert document["verdict"] in ("dropped", "unknown")


def test_what_the_agent_cannot_tell_is_said(our_lab: Lab) -> None:
    done = our_lab.ebpfnet(
        "trace", "pod/client", WORLD, "--node-access", "agent", "--for", "3s"
    )  # fmt: skip
    assert done.returncode == 4, done.stdout
    assert "no notice of this flow came" in " ".join(done.stdout.split())
    refused = our_lab.ebpfnet("trace", "pod/client", WORLD, "--node-access", "agent", "--send")
    assert refused.returncode == 2
    assert "--send sends from a node pod" in refused.stderr


def test_a_client_that_is_killed_leaves_no_monitor(our_lab: Lab) -> None:
    client = subprocess.Popen(
        ("kubectl-ebpfnet", "trace", "pod/client", WORLD, "--node-access", "agent", "--for", "5s"),
        env=our_lab.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: monitors())
    finally:
        client.kill()
        client.wait()
    wait_until(lambda: not monitors(), 30)  # its time-out, where nothing else ends it
