"""The end of the road: who listens at the packet's port, in a pod and on a node.

One pod has a socket of each kind; traffic is seen to reach it, or to be refused, before `path` is
asked by Cilium's agent and the pod's own image, or by node pods.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import NODES
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import Answer, in_pod, objects, path, pod_netns, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

pytestmark = pytest.mark.side_by_side  # all take fixtures of the first
SERVER_NODE = NODES[2]
DUAL, DECLARED, LOOPBACK, V6_ONLY, FULL, SHARED, OWN = 8080, 8081, 8082, 8083, 8084, 8085, 8086
OPEN_SOCKETS = f"""
import socket, sys
from socket import AF_INET as v4, AF_INET6 as v6, SOCK_STREAM as tcp, SOCK_DGRAM as udp
kept = []
def serve(family, address, port, *options, kind=tcp, backlog=5):
    one = socket.socket(family, kind)
    for option in options:
        one.setsockopt(*option)
    one.bind((address, port))
    if kind == tcp:
        one.listen(backlog)
    kept.append(one)
only, reuse = socket.IPPROTO_IPV6, (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
serve(v6, "::", {DUAL}, (only, socket.IPV6_V6ONLY, 0), backlog=100)
serve(v4, "0.0.0.0", {DECLARED}, backlog=100)
serve(v4, "127.0.0.1", {LOOPBACK})
serve(v6, "::", {V6_ONLY}, (only, socket.IPV6_V6ONLY, 1))
serve(v4, "0.0.0.0", {FULL}, backlog=1)
for _ in range(2):
    serve(v4, "0.0.0.0", {SHARED}, reuse, backlog=100)
serve(v4, sys.argv[1], {OWN}, backlog=100)
serve(v4, "0.0.0.0", {DECLARED}, kind=udp)
print("open", flush=True)
sys.stdin.read()
"""
BY_AGENT = ("--node-access", "agent")
KNOCK = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[3] == "udp" else socket.SOCK_STREAM
one = socket.socket(socket.AF_INET, kind)
one.settimeout(0.6)
try:
    one.connect((sys.argv[1], int(sys.argv[2])))
    if sys.argv[3] == "udp":
        one.send(b"x")
        one.recv(1)
    print("taken")
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("silence")
"""


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[str]:
    """A pod on node3 whose container declares one port, with the sockets above."""
    if not lab.ours:
        pytest.skip("needs the lab (make lab-up)")
    declared = {"ports": [{"containerPort": DECLARED}]}
    with pod_of_our_own(lab, "e2e-server", SERVER_NODE.name, declared) as name:
        argv = [*pod_netns(name), "/usr/bin/python3", "-c", OPEN_SOCKETS, address(name)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == b"open\n"
            yield name
            process.stdin.close()


@pytest.fixture(scope="module")
def by_pod(lab: Lab, server: str) -> Iterator[tuple[str, ...]]:
    """Words that ask by node pods, which this module's first question leaves for the others."""
    lab.kubectl("ebpfnet", "cleanup", "--yes")  # what somebody kept would be asked instead
    words = ("--node-access", "pod", "--keep")
    done = lab.ebpfnet("path", "pod/client", f"pod/{server}:{DUAL}", *words)
    assert done.returncode == 0, done.stderr
    yield ("--node-access", "pod")
    lab.kubectl("ebpfnet", "cleanup", "--yes")


def address(pod: str) -> str:
    return str(policy.endpoint("default", pod)["address"])


def knock(to: str, port: int, protocol: str = "tcp", pod: str = "client") -> str:
    """What a packet from a pod meets: `taken`, `refused` or `silence`."""
    argv = ("/usr/bin/python3", "-c", KNOCK, to, str(port), protocol)
    return in_pod(pod, *argv).strip()


def refused(answer: Answer, *words: str) -> None:
    """The packet ends at a socket hop; the answer has these words."""
    said = f"{answer.document['reason']}; {answer.document['cause']}; {answer.document['fix']}"
    assert (answer.code, answer.verdict) == (3, "dropped"), said
    assert (answer.hops[-1]["kind"], answer.hops[-1]["drops"]) == ("socket", True)
    for word in words:
        assert word in said, said


def ask(lab: Lab, server: str, port: int, *words: str) -> Answer:
    return path(lab, "pod/client", f"pod/{server}:{port}", *words)


@pytest.mark.parametrize("port", [DUAL, SHARED, OWN])
def test_whoever_listens_is_named_and_nothing_is_said_against_it(
    our_lab: Lab, server: str, by_pod: tuple[str, ...], port: int
) -> None:
    assert knock(address(server), port) == "taken"
    answer = ask(our_lab, server, port, *(BY_AGENT if port == DUAL else by_pod))
    assert answer.code == 0, answer.document["reason"]
    assert answer.hops[-1]["kind"] == "socket"
    assert f"pod default/{server} listens on TCP" in answer.hops[-1]["summary"]
    assert not any("listen" in title for title in answer.titles)


def test_a_wrong_target_port_is_the_services(our_lab: Lab, server: str) -> None:
    name = "e2e-wrong-port"
    labels = our_lab.get("pod", server)["metadata"]["labels"]
    port: dict[str, Any] = {"port": 80, "targetPort": 9999}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [port]},
    }
    with objects(our_lab, service):
        virtual = our_lab.get("service", name)["spec"]["clusterIP"]
        wait_until(lambda: our_lab.get("endpoints", name).get("subsets"))
        wait_until(lambda: knock(virtual, 80) == "refused")
        answer = path(our_lab, "pod/client", f"svc/{name}", *BY_AGENT)
    refused(
        answer,
        f"svc default/{name} sends port 80 to targetPort 9999",
        f"its containers declare {DECLARED}",
        f"kubectl edit svc -n default {name}",
    )
    assert answer.document["drop"]["object"] == f"Service default/{name}"


def test_loopback_alone(our_lab: Lab, server: str) -> None:
    assert knock(address(server), LOOPBACK) == "refused"
    answer = ask(our_lab, server, LOOPBACK, *BY_AGENT)
    refused(answer, "listens on 127.0.0.1:8082 only", "Bind the process to 0.0.0.0")


def test_ipv6_alone(our_lab: Lab, server: str, by_pod: tuple[str, ...]) -> None:
    assert knock(address(server), V6_ONLY) == "refused"
    refused(ask(our_lab, server, V6_ONLY, *by_pod), "takes no IPv4", "clear IPV6_V6ONLY")


def test_a_process_that_does_not_accept(our_lab: Lab, server: str, by_pod: tuple[str, ...]) -> None:
    assert [knock(address(server), FULL) for _ in range(3)] == ["taken", "taken", "silence"]
    answer = ask(our_lab, server, FULL, *by_pod)
    refused(answer, "2 connections wait for accept(), at most 1 may", "does not accept")


def test_udp_without_a_socket(our_lab: Lab, server: str) -> None:
    udp = ("--protocol", "udp", *BY_AGENT)
    assert knock(address(server), DUAL, "udp") == "refused"
    refused(ask(our_lab, server, DUAL, *udp), "ICMP port unreachable", f"listens on {DECLARED}")
    assert knock(address(server), DECLARED, "udp") == "silence"  # taken, and nobody answers


def test_a_nodes_own_port(our_lab: Lab) -> None:
    assert knock(NODES[1].address, 9999) == "refused"
    answer = path(our_lab, "pod/client", "node/node2:9999", *BY_AGENT)
    refused(answer, "no socket of node node2 takes TCP")


def test_a_host_network_pods_port(our_lab: Lab) -> None:
    assert knock(NODES[0].address, 9999, pod="client3") == "refused"
    answer = path(our_lab, "pod/client3", "pod/hostnet:9999", *BY_AGENT)
    refused(answer, "kubectl logs -n default hostnet")


def test_a_capture_has_the_sockets_of_its_destination(
    our_lab: Lab, server: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "case.zip")
    to = f"pod/{server}"
    done = our_lab.ebpfnet("capture", "-f", file, "pod/client", "--to", to, *BY_AGENT)
    assert done.returncode == 0, done.stderr
    stored = path(our_lab, "pod/client", f"{to}:{LOOPBACK}", "--from", file)
    refused(stored, "listens on 127.0.0.1:8082 only")
