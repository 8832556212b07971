"""The end of the road: who listens at the packet's port, in a pod and on a node.

One pod has a socket of each kind; traffic is seen to reach it, or to be refused, before `path` is
asked by Cilium's agent and the pod's own image, or by node pods.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import NODES
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import Answer, in_pod, objects, path, pod_netns, pod_of_our_own
from tests.lab.conftest import Lab, wait_until

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
BY_AGENT, BY_POD = ("--node-access", "agent"), ("--node-access", "pod")
WRONG = "e2e-wrong-port"
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
except OSError as why:  # what has no rule of kube-proxy's yet has no route on the node
    print(why.strerror)
"""


@dataclass(frozen=True)
class Asked:
    """What was met, and what `path` said at the same time.

    Attributes:
        server: the pod on node3 whose container declares one port, with the sockets above.
        knocks: what traffic met, by what is asked about.
        answers: of `path`, by the same.
    """

    server: str
    knocks: dict[str, list[str]]
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def asked(lab: Lab) -> Iterator[Asked]:
    """Traffic from pod client, then `path` for each of it, all questions at once."""
    if not lab.ours:
        pytest.skip("needs the lab (make lab-up)")
    lab.ebpfnet("cleanup", "--yes")  # what somebody kept would be asked instead
    declared = {"ports": [{"containerPort": DECLARED}]}
    with ThreadPoolExecutor(6) as pool, ExitStack() as undo:
        keep = ("path", "pod/client", "pod/client3:9", "--node-access", "pod", "--keep")
        kept = pool.submit(lab.ebpfnet, *keep)
        undo.callback(lab.ebpfnet, "cleanup", "--yes")
        server = undo.enter_context(pod_of_our_own(lab, "e2e-server", SERVER_NODE.name, declared))
        undo.enter_context(serving(server))
        undo.enter_context(objects(lab, wrong_port(lab, server)))
        virtual = lab.get("service", WRONG)["spec"]["clusterIP"]
        wait_until(lambda: lab.ready_endpoints(WRONG))
        wait_until(lambda: knock(virtual, 80) == "refused")
        assert kept.result().returncode == 3, kept.result().stderr  # nothing listens there
        there = address(server)
        knocks = {
            "dual": [knock(there, DUAL)],
            "shared": [knock(there, SHARED)],
            "own": [knock(there, OWN)],
            "loopback": [knock(there, LOOPBACK)],
            "v6": [knock(there, V6_ONLY)],
            "full": [knock(there, FULL) for _ in range(3)],
            "udp": [knock(there, DUAL, "udp"), knock(there, DECLARED, "udp")],
            "node": [knock(NODES[1].address, 9999)],
            "hostnet": [knock(NODES[0].address, 9999, pod="client3")],
        }
        to = f"pod/{server}"
        questions = {
            "dual": ("pod/client", f"{to}:{DUAL}", *BY_AGENT),
            "shared": ("pod/client", f"{to}:{SHARED}", *BY_POD),
            "own": ("pod/client", f"{to}:{OWN}", *BY_POD),
            "wrong": ("pod/client", f"svc/{WRONG}", *BY_AGENT),
            "loopback": ("pod/client", f"{to}:{LOOPBACK}", *BY_AGENT),
            "v6": ("pod/client", f"{to}:{V6_ONLY}", *BY_POD),
            "full": ("pod/client", f"{to}:{FULL}", *BY_POD),
            "udp": ("pod/client", f"{to}:{DUAL}", "--protocol", "udp", *BY_AGENT),
            "node": ("pod/client", "node/node2:9999", *BY_AGENT),
            "hostnet": ("pod/client3", "pod/hostnet:9999", *BY_AGENT),
        }
        answers = pool.map(lambda words: path(lab, *words), questions.values())
        yield Asked(server, knocks, dict(zip(questions, answers, strict=True)))


def wrong_port(lab: Lab, server: str) -> dict[str, Any]:
    """A Service whose targetPort is nobody's."""
    labels = lab.get("pod", server)["metadata"]["labels"]
    port: dict[str, Any] = {"port": 80, "targetPort": 9999}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": WRONG},
        "spec": {"selector": labels, "ports": [port]},
    }


@contextmanager
def serving(pod: str) -> Iterator[None]:
    """A process in the pod that has the sockets above."""
    argv = [*pod_netns(pod), "/usr/bin/python3", "-c", OPEN_SOCKETS, address(pod)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.stdin.close()


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


@pytest.mark.parametrize("which", ["dual", "shared", "own"])
def test_whoever_listens_is_named_and_nothing_is_said_against_it(asked: Asked, which: str) -> None:
    assert asked.knocks[which] == ["taken"]
    answer = asked.answers[which]
    assert answer.code == 0, answer.document["reason"]
    assert answer.hops[-1]["kind"] == "socket"
    assert f"pod default/{asked.server} listens on TCP" in answer.hops[-1]["summary"]
    assert not any("listen" in title for title in answer.titles)


def test_a_wrong_target_port_is_the_services(asked: Asked) -> None:
    answer = asked.answers["wrong"]
    refused(
        answer,
        f"svc default/{WRONG} sends port 80 to targetPort 9999",
        f"its containers declare {DECLARED}",
        f"kubectl edit svc -n default {WRONG}",
    )
    assert answer.document["drop"]["object"] == f"Service default/{WRONG}"


def test_loopback_alone(asked: Asked) -> None:
    assert asked.knocks["loopback"] == ["refused"]
    answer = asked.answers["loopback"]
    refused(answer, f"listens on 127.0.0.1:{LOOPBACK} only", "Bind the process to 0.0.0.0")


def test_ipv6_alone(asked: Asked) -> None:
    assert asked.knocks["v6"] == ["refused"]
    refused(asked.answers["v6"], "takes no IPv4", "clear IPV6_V6ONLY")


def test_a_process_that_does_not_accept(asked: Asked) -> None:
    assert asked.knocks["full"] == ["taken", "taken", "silence"]
    words = "2 connections wait for accept(), at most 1 may"
    refused(asked.answers["full"], words, "does not accept")


def test_udp_without_a_socket(asked: Asked) -> None:
    assert asked.knocks["udp"] == ["refused", "silence"]  # where there is one, nobody answers
    refused(asked.answers["udp"], "ICMP port unreachable", f"listens on {DECLARED}")


def test_a_nodes_own_port(asked: Asked) -> None:
    assert asked.knocks["node"] == ["refused"]
    refused(asked.answers["node"], "no socket of node node2 takes TCP")


def test_a_host_network_pods_port(asked: Asked) -> None:
    assert asked.knocks["hostnet"] == ["refused"]
    refused(asked.answers["hostnet"], "kubectl logs -n default hostnet")


def test_a_capture_has_the_sockets_of_its_destination(
    our_lab: Lab, asked: Asked, tmp_path: Path
) -> None:
    file, to = str(tmp_path / "case.zip"), f"pod/{asked.server}"
    done = our_lab.ebpfnet("capture", "-o", file, "pod/client", "--to", to, *BY_AGENT)
    assert done.returncode == 0, done.stderr
    stored = path(our_lab, "pod/client", f"{to}:{LOOPBACK}", "--from", file)
    refused(stored, f"listens on 127.0.0.1:{LOOPBACK} only")
