"""The lab's load-balancers: real frames from a client outside, to one node at a time.

The client is the world's namespace. Which node it meets is a route of its own, as it is the choice
of a load-balancer elsewhere. What answers is kube-proxy's rules in each node's netfilter.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from kubectl_ebpfnet.node.host import netns
from tests.lab.cluster.config import (
    LB_ADDRESSES,
    LB_CLUSTER_ADDRESS,
    LB_LOCAL_ADDRESS,
    LB_POOL,
    NODES,
    UDP_CLUSTER_ADDRESS,
    UDP_LOCAL_ADDRESS,
    UDP_PORT,
    UDP_TARGET_PORT,
    WORLD_NETNS,
    WORLD_NODE_ADDRESS,
    Node,
)
from tests.lab.cluster.control import api
from tests.lab.cluster.tools import lb_faults
from tests.lab.cluster.tools.live import address, changed, in_node, in_pod, objects
from tests.lab.conftest import Lab, wait_until

pytestmark = pytest.mark.lab_itself
BOTH = (LB_LOCAL_ADDRESS, LB_CLUSTER_ADDRESS)
SERVING, OTHERS = NODES[0], NODES[1:]
"""The node with the pod of Deployment web, and those without."""
FAILED, SILENT = 7, 28
"""curl(1): could not connect (refused, or ICMP said so); no answer in time."""
PATIENCE_S, SILENCE_S = 1.5, 0.5
"""For an answer that is expected, and for none: the lab answers within milliseconds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one question for /clientip.

    Attributes:
        code: curl's exit code.
        source: client address that the server saw, "" without an answer.
        port: the same of the port, 0 without an answer.
        local_port: the client's own port, 0 without a connection.
    """

    code: int
    source: str
    port: int
    local_port: int


def ask(space: str, host: str, seconds: float = PATIENCE_S) -> Asked:
    """curl in a network namespace of this machine."""
    argv = ["ip", "netns", "exec", space, "curl", "-sS", "--max-time", str(seconds),
            "-w", " %{local_port}", f"http://{host}/clientip"]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    told, _, local = done.stdout.rpartition(" ")
    source, _, port = told.rpartition(":")
    return Asked(done.returncode, source, int(port or 0), max(0, int(local or 0)))


def outside(node: Node, host: str, seconds: float = PATIENCE_S) -> Asked:
    """A client outside, whose frames for a load-balancer go to this node."""
    ip = ["ip", "-n", WORLD_NETNS, "route"]
    way = [f"{host}/32", "via", node.address]
    with changed([*ip, "add", *way], [*ip, "del", *way]):
        return ask(WORLD_NETNS, host, seconds)


def ask_udp(space: str, host: str, seconds: float = SILENCE_S) -> Asked:
    """The word `clientip` over UDP; `code` is SILENT, or FAILED for what ICMP said."""
    with netns.inside(f"/run/netns/{space}"):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with one:
        one.settimeout(seconds)
        one.connect((host, UDP_PORT))
        local = one.getsockname()[1]
        try:
            one.send(b"ClientIP\n")
            source, _, port = one.recv(100).decode().rpartition(":")
        except TimeoutError:
            return Asked(SILENT, "", 0, local)
        except OSError:
            return Asked(FAILED, "", 0, local)
        return Asked(0, source, int(port), local)


def outside_udp(node: Node, host: str) -> Asked:
    """The same by a client outside, whose frames for a load-balancer go to this node."""
    ip = ["ip", "-n", WORLD_NETNS, "route"]
    way = [f"{host}/32", "via", node.address]
    with changed([*ip, "add", *way], [*ip, "del", *way]):
        return ask_udp(WORLD_NETNS, host)


def health(space: str, node: Node, port: int, seconds: float = PATIENCE_S) -> tuple[int, int]:
    """Status and local endpoints that a node's healthCheckNodePort tells; (0, 0) for silence."""
    argv = ["ip", "netns", "exec", space, "curl", "-sS", "--max-time", str(seconds),
            "-w", "\n%{http_code}", f"http://{node.address}:{port}/"]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        return 0, 0
    body, _, status = done.stdout.rpartition("\n")
    return int(status), int(json.loads(body)["localEndpoints"])


def web(lab: Lab) -> str:
    """Name of the pod of Deployment web."""
    return str(running(lab.get("pods", "-l", "app=web")["items"])["metadata"]["name"])


def running(pods: list[dict[str, Any]]) -> dict[str, Any]:
    """The first pod that runs."""
    return next(pod for pod in pods if pod["status"]["phase"] == "Running")


def refused_by_rule(node: Node) -> int:
    """Packets that met kube-proxy's rule for nodes without an endpoint of web-lb-local."""
    rules = in_node(node, "iptables-save", "-c", "-t", "nat").splitlines()
    (rule,) = [one for one in rules if "web-lb-local:http has no local endpoints" in one]
    return int(rule[1:].split(":")[0])


def test_every_node_is_programmed(our_lab: Lab) -> None:
    for name, where in (("web-lb-local", LB_LOCAL_ADDRESS), ("web-lb-cluster", LB_CLUSTER_ADDRESS)):
        status = our_lab.get("service", name)["status"]
        assert status == {"loadBalancer": {"ingress": [{"ip": where}]}}
    there = address(our_lab, web(our_lab))
    for node in NODES:
        rules = in_node(node, "iptables-save", "-t", "nat")
        assert re.search(rf"-A KUBE-SERVICES -d {LB_LOCAL_ADDRESS}/32 .*-j KUBE-FW-", rules)
        assert re.search(rf"-A KUBE-SERVICES -d {LB_CLUSTER_ADDRESS}/32 .*-j KUBE-FW-", rules)
        assert f"--to-destination {there}:8080" in rules
        assert ("web-lb-local:http has no local endpoints" in rules) == (node != SERVING)


def test_nobody_owns_the_addresses(our_lab: Lab) -> None:
    """Nobody has them, and nobody answers for them by ARP."""
    spaces = [*(node.netns for node in NODES), WORLD_NETNS]
    shows = [["ip", "-n", space, "addr"] for space in spaces]
    for argv in (["ip", "addr"], *shows):
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert not any(f"inet {one}/" in said for one in LB_ADDRESSES), argv
    assert our_lab.ours
    assert ask(WORLD_NETNS, LB_CLUSTER_ADDRESS, SILENCE_S).code == SILENT
    known = ["ip", "-n", WORLD_NETNS, "neigh", "show", LB_CLUSTER_ADDRESS]
    said = subprocess.run(known, capture_output=True, text=True, check=True).stdout
    assert "lladdr" not in said
    assert re.search("INCOMPLETE|FAILED", said)


def test_local_answers_only_where_the_pod_is(our_lab: Lab) -> None:
    answered = outside(SERVING, LB_LOCAL_ADDRESS)
    assert (answered.code, answered.source) == (0, WORLD_NODE_ADDRESS)
    assert answered.port == answered.local_port, "kept as it was, the port too"
    for node in OTHERS:
        before = refused_by_rule(node)
        assert outside(node, LB_LOCAL_ADDRESS, SILENCE_S).code == SILENT
        assert refused_by_rule(node) > before
    assert our_lab.ours


def test_what_local_does_not_answer_ends_with_a_host_that_cannot_be_reached(our_lab: Lab) -> None:
    """This kube-proxy only marks such packets, and FORWARD does not look at the mark.

    The node asks by ARP for an address that nobody has, for 3 s, and says so by ICMP.
    """
    assert outside(OTHERS[-1], LB_LOCAL_ADDRESS, 6).code == FAILED
    assert our_lab.ours


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_cluster_answers_everywhere_for_the_node(our_lab: Lab, node: Node) -> None:
    """kube-proxy masquerades what comes from outside, also where the pod is on the node itself."""
    answered = outside(node, LB_CLUSTER_ADDRESS)
    assert (answered.code, answered.source) == (0, node.address)
    assert our_lab.ours


def test_udp_is_served_as_tcp_is(our_lab: Lab) -> None:
    answered = outside_udp(SERVING, UDP_LOCAL_ADDRESS)
    assert (answered.code, answered.source) == (0, WORLD_NODE_ADDRESS)
    assert answered.port == answered.local_port
    for node in NODES:
        answered = outside_udp(node, UDP_CLUSTER_ADDRESS)
        assert (answered.code, answered.source) == (0, node.address)
    for node in OTHERS:
        assert outside_udp(node, UDP_LOCAL_ADDRESS).code == SILENT
        assert ask_udp(node.netns, UDP_LOCAL_ADDRESS).code == 0, "fooled, as with TCP"
    assert our_lab.ours


@pytest.mark.parametrize("host", BOTH, ids=["local", "cluster"])
@pytest.mark.parametrize("node", OTHERS, ids=lambda node: node.name)
def test_a_plain_client_on_a_node_is_fooled(our_lab: Lab, node: Node, host: str) -> None:
    """Its own netfilter takes the packet before it is sent: with Local too, and no endpoint."""
    answered = ask(node.netns, host)
    assert (answered.code, answered.source) == (0, node.address)
    tracked = in_node(node, "conntrack", "-L", "-p", "tcp", "-d", host)
    assert f"src={node.address} dst={host} sport={answered.local_port} dport=80" in tracked
    there = address(our_lab, web(our_lab))
    assert f"src={there} dst={node.address} sport=8080" in tracked


@pytest.mark.parametrize("pod", ["client2", "client3"])
def test_so_is_a_pod(our_lab: Lab, pod: str) -> None:
    told = our_lab.run(pod, "curl", "-sS", "--max-time", "3", f"http://{LB_LOCAL_ADDRESS}/clientip")
    assert told.startswith(f"{address(our_lab, pod)}:")


def test_health_checks_tell_where_the_pod_is(our_lab: Lab) -> None:
    port = lb_faults.health_check_port("web-lb-local")
    assert port
    assert lb_faults.health_check_port("web-lb-cluster") == 0
    assert health(WORLD_NETNS, SERVING, port) == (200, 1)
    for node in OTHERS:
        assert health(WORLD_NETNS, node, port) == (503, 0)
    assert our_lab.ours


def test_a_service_without_a_wish_gets_an_address(our_lab: Lab) -> None:
    """As the copies of a Service do, on which both policies are tried."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "e2e-lb", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }

    def ingress() -> list[dict[str, str]]:
        return list(our_lab.get("service", "e2e-lb")["status"]["loadBalancer"].get("ingress", ()))

    with objects(our_lab, service):
        given = wait_until(ingress)[0]["ip"]
        assert given in LB_POOL
        wait_until(lambda: f"-d {given}/32" in in_node(SERVING, "iptables-save", "-t", "nat"))
        assert outside(SERVING, given).source == WORLD_NODE_ADDRESS
    wait_until(lambda: given not in in_node(SERVING, "iptables-save", "-t", "nat"))


def test_endpoint_that_is_not_ready(our_lab: Lab) -> None:
    port = lb_faults.health_check_port("web-lb-local")
    with lb_faults.endpoint_not_ready(web(our_lab)):
        for node in NODES:
            for host in BOTH:
                assert outside(node, host).code == FAILED, "REJECT: ICMP port unreachable"
            for host in (UDP_LOCAL_ADDRESS, UDP_CLUSTER_ADDRESS):
                assert outside_udp(node, host).code == FAILED
        wait_until(lambda: health(WORLD_NETNS, SERVING, port) == (503, 0))
        (slice_,) = our_lab.get("endpointslices", "-l", "kubernetes.io/service-name=web-lb-local")[
            "items"
        ]
        (endpoint,) = slice_["endpoints"]
        assert endpoint["conditions"]["ready"] is False
    assert outside(SERVING, LB_LOCAL_ADDRESS).code == 0
    wait_until(lambda: health(WORLD_NETNS, SERVING, port) == (200, 1))


def test_endpoint_that_is_terminating(our_lab: Lab) -> None:
    node, port = OTHERS[0], lb_faults.health_check_port("web-lb-local")
    with lb_faults.endpoint_terminating(node) as pod:
        (slice_,) = our_lab.get("endpointslices", "-l", "kubernetes.io/service-name=web-lb-local")[
            "items"
        ]
        (mine,) = [one for one in slice_["endpoints"] if one["targetRef"]["name"] == pod]
        assert mine["conditions"] == {"ready": False, "serving": True, "terminating": True}
        direct = ask(OTHERS[1].netns, f"{mine['addresses'][0]}:8080")
        assert direct.code == 0, "it still serves"
        assert health(WORLD_NETNS, node, port) == (503, 0)
        assert outside(node, LB_LOCAL_ADDRESS, SILENCE_S).code == SILENT
        assert outside(node, LB_CLUSTER_ADDRESS).code == 0
    wait_until(lambda: api.get("pod", pod)[0] == 404)


@pytest.mark.parametrize("node", NODES[:2], ids=lambda node: node.name)
def test_rule_in_forward_that_drops(our_lab: Lab, node: Node) -> None:
    there = address(our_lab, web(our_lab))
    with lb_faults.dropped_in_forward(node, there, 8080):
        assert outside(node, LB_CLUSTER_ADDRESS, SILENCE_S).code == SILENT
        # The last node's packets to the pod pass through the first one's FORWARD too.
        code, seconds = (SILENT, SILENCE_S) if node == SERVING else (0, PATIENCE_S)
        assert outside(NODES[-1], LB_CLUSTER_ADDRESS, seconds).code == code
    assert outside(node, LB_CLUSTER_ADDRESS).code == 0


def test_health_check_that_is_blocked(our_lab: Lab) -> None:
    port = lb_faults.health_check_port("web-lb-local")
    with lb_faults.health_check_blocked(SERVING, port):
        for asker in (WORLD_NETNS, SERVING.netns, OTHERS[0].netns):
            assert health(asker, SERVING, port, SILENCE_S) == (0, 0)
        assert outside(SERVING, LB_LOCAL_ADDRESS).code == 0
    assert health(WORLD_NETNS, SERVING, port) == (200, 1)
    assert our_lab.ours


@pytest.mark.parametrize(
    ("node", "status", "endpoints"), [(OTHERS[0], 200, 1), (SERVING, 503, 0)], ids=["up", "down"]
)
def test_health_check_that_lies(our_lab: Lab, node: Node, status: int, endpoints: int) -> None:
    port = lb_faults.health_check_port("web-lb-local")
    truth = health(WORLD_NETNS, node, port)
    with lb_faults.health_check_lies(node, port, status, endpoints):
        for asker in (WORLD_NETNS, node.netns, NODES[-1].netns):
            assert health(asker, node, port) == (status, endpoints) != truth
        code, seconds = (0, PATIENCE_S) if truth[0] == 200 else (SILENT, SILENCE_S)
        assert outside(node, LB_LOCAL_ADDRESS, seconds).code == code
    assert health(WORLD_NETNS, node, port) == truth
    assert our_lab.ours


def test_node_that_is_excluded_answers_all_the_same(our_lab: Lab) -> None:
    with lb_faults.excluded(OTHERS[0]):
        labels = our_lab.get("node", OTHERS[0].name)["metadata"]["labels"]
        assert labels[lb_faults.EXCLUDED] == "true"
        assert outside(OTHERS[0], LB_CLUSTER_ADDRESS).code == 0
    assert lb_faults.EXCLUDED not in our_lab.get("node", OTHERS[0].name)["metadata"]["labels"]


@pytest.mark.parametrize("node", NODES[:2], ids=lambda node: node.name)
def test_strict_rp_filter_bites_on_an_asymmetric_route(our_lab: Lab, node: Node) -> None:
    with lb_faults.side_door(node):
        assert outside(node, LB_CLUSTER_ADDRESS).code == 0, "asymmetric alone is no fault"
    before = lb_faults.reverse_path_drops(node)
    with lb_faults.strict_rp_filter(node):
        assert outside(node, LB_CLUSTER_ADDRESS, SILENCE_S).code == SILENT
        assert lb_faults.reverse_path_drops(node) > before
    assert outside(node, LB_CLUSTER_ADDRESS).code == 0
    assert our_lab.ours


def test_strict_rp_filter_for_what_another_node_sends(our_lab: Lab) -> None:
    """Probes come from nodes."""
    node, prober = NODES[1], NODES[2]

    def reaches() -> bool:
        argv = ["ip", "netns", "exec", prober.netns, "ping", "-c1", "-W1", node.address]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    with lb_faults.side_door(node, (prober.address,)):
        assert reaches()
    with lb_faults.strict_rp_filter(node, (prober.address,)):
        assert not reaches()
        assert outside(node, LB_CLUSTER_ADDRESS).code == 0
    assert reaches()
    assert our_lab.ours


FAULTS = ("endpoint", "terminating", "forward", "blocked", "lies", "excluded", "rp_filter", "deaf")


def fault(lab: Lab, name: str) -> AbstractContextManager[object]:
    """A fault by its name, on the node with the pod."""
    port, pod = lb_faults.health_check_port("web-lb-local"), web(lab)
    makers: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "endpoint": lambda: lb_faults.endpoint_not_ready(pod),
        "terminating": lambda: lb_faults.endpoint_terminating(OTHERS[0]),
        "forward": lambda: lb_faults.dropped_in_forward(SERVING, address(lab, pod), 8080),
        "blocked": lambda: lb_faults.health_check_blocked(SERVING, port),
        "lies": lambda: lb_faults.health_check_lies(SERVING, port, 503, 0),
        "excluded": lambda: lb_faults.excluded(SERVING),
        "rp_filter": lambda: lb_faults.strict_rp_filter(SERVING),
        "deaf": lambda: lb_faults.deaf(pod, UDP_TARGET_PORT),
    }
    return makers[name]()


def traces(lab: Lab) -> dict[str, object]:
    """What the faults change on the nodes."""
    found: dict[str, object] = {}
    labels = {
        one["metadata"]["name"]: one["metadata"]["labels"] for one in lab.get("nodes")["items"]
    }
    for node in NODES:
        rules = in_node(node, "iptables-save").splitlines()
        found[node.name] = (
            [one for one in rules if lb_faults.COMMENT in one],
            in_node(node, "ip", "-o", "link", "show", "type", "macvlan"),
            [one for one in in_node(node, "ip", "route").splitlines() if " lxc" not in one],
            in_node(node, "sysctl", "net.ipv4.conf.eth0.rp_filter"),
            in_node(node, "ss", "-Htln", f"sport = :{lb_faults.LIAR_PORT}"),
            lb_faults.EXCLUDED in labels[node.name],
        )
    pods = lab.get("pods", "-l", "app=web")["items"]
    found["pods"] = sorted(pod["metadata"]["name"] for pod in pods)
    pod = running(pods)
    rules = in_pod(pod["metadata"]["name"], "iptables-save").splitlines()
    found["rules of the pod"] = [one for one in rules if lb_faults.COMMENT in one]
    found["in service"] = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_undone_also_when_its_user_fails(our_lab: Lab, name: str) -> None:
    before = traces(our_lab)
    with suppress(ZeroDivisionError), fault(our_lab, name):
        assert traces(our_lab) != before
        raise ZeroDivisionError
    wait_until(lambda: traces(our_lab) == before)
