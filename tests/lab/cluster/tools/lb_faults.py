"""Faults between a client outside and a Service of type LoadBalancer, each made and taken back.

Every fault is a context manager: it holds while the block runs, kube-proxy has followed it when the
block begins, and nothing of it is there when it ends. Netfilter rules carry the comment COMMENT and
meet only the ports and addresses named. What each does to a client is in docs/lab.md.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from tests.lab.cluster.config import NODES, WORLD_NODE_ADDRESS, Node
from tests.lab.cluster.control.manifests import IN_SERVICE, web_pod
from tests.lab.cluster.kubectl import apply, kubectl
from tests.lab.cluster.processes import wait_for
from tests.lab.cluster.tools.live import changed, in_node, in_pod

COMMENT = "e2e lb fault"
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Well-known label: cloud controllers leave such a node out of their load-balancers."""
SIDE_DOOR = "e2e-side"
"""The second device of a node whose answers go another way than the questions come."""
LIE = """
import http.server, sys
class Lie(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[3].encode()
        self.send_response(int(sys.argv[2]))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Lie).serve_forever()
"""
LIAR_PORT = 10901
_PATIENCE, _NUDGE = 60, 5
"""Seconds: until a fault must be there, and until the cluster is told again."""


def health_check_port(service: str, namespace: str = "default") -> int:
    """healthCheckNodePort of a Service with externalTrafficPolicy Local; 0 when it has none."""
    said = json.loads(kubectl("get", "service", service, "-n", namespace, "-o", "json"))
    return int(said["spec"].get("healthCheckNodePort", 0))


@contextmanager
def endpoint_not_ready(pod: str, namespace: str = "default") -> Iterator[None]:
    """Take a pod of Deployment web out of service: its readiness gate says False.

    Its endpoints stay in the EndpointSlices, not ready; kube-proxy rejects what has no endpoint
    left, and healthCheckNodePort says 503.
    """
    try:
        _in_service(pod, namespace, False)
        yield
    finally:
        _in_service(pod, namespace, True)


def _in_service(pod: str, namespace: str, wanted: bool) -> None:
    address = kubectl("get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.podIP}")
    # Once in many times the kubelet does not look at the gate until the pod changes again.
    for attempt in range(_PATIENCE // _NUDGE):
        condition = {"type": IN_SERVICE, "status": str(wanted), "message": f"attempt {attempt}"}
        patch = json.dumps({"status": {"conditions": [condition]}})
        kubectl("patch", "pod", pod, "-n", namespace, "--subresource=status", "-p", patch)
        if wait_for(lambda: _balanced(address) is wanted, "", _NUDGE):
            return
    raise TimeoutError(f"kube-proxy's rules for {pod} did not follow: in service {wanted}")


def _balanced(address: str) -> bool | None:
    """Whether every node's kube-proxy sends to a pod, or none does; None while they differ."""
    said = {f"--to-destination {address}:" in in_node(node, "iptables-save", "-t", "nat")
            for node in NODES}  # fmt: skip
    return said.pop() if address and len(said) == 1 else None


@contextmanager
def endpoint_terminating(node: Node) -> Iterator[str]:
    """One more pod of web's Services on a node, which is being deleted and serves on; its name.

    Its endpoint is terminating and serving, not ready. kube-proxy 1.20 sends nothing to it; from
    1.26 on kube-proxy does where a node has no ready endpoint (KEP-1669).
    """
    name = f"e2e-web-{secrets.token_hex(2)}"
    made = web_pod(name, node.name)
    made["spec"]["terminationGracePeriodSeconds"] = 600
    address = ("get", "pod", name, "-o", "jsonpath={.status.podIP}")
    try:
        apply([made])
        wait_for(lambda: _balanced(kubectl(*address)), f"{name} as an endpoint", _PATIENCE)
        kubectl("delete", "pod", name, "--wait=false")
        wait_for(lambda: _balanced(kubectl(*address)) is False, f"the leaving of {name}", _PATIENCE)
        yield name
    finally:
        # The first process of a pod does not hear SIGTERM unless it listens; Python hears SIGINT.
        with suppress(RuntimeError):
            kubectl("exec", name, "--", "/usr/bin/kill", "-INT", "1")
        kubectl("delete", "pod", name, "--ignore-not-found", "--grace-period=0", "--force")


@contextmanager
def dropped_in_forward(
    node: Node, destination: str, port: int, protocol: str = "tcp"
) -> Iterator[None]:
    """A rule at the head of a node's FORWARD drops what goes to a pod, as it is after translation.

    Args:
        protocol: `tcp` or `udp`.
    """
    with _rule(
        node, "filter", "FORWARD", "-d", f"{destination}/32", "-p", protocol, "--dport", str(port),
        jump=("DROP",),
    ):  # fmt: skip
        yield


@contextmanager
def deaf(pod: str, port: int) -> Iterator[None]:
    """A pod's UDP server hears nothing and says nothing: the pod drops what comes for its port."""
    with _pod_rule(pod, "-p", "udp", "--dport", str(port), jump="DROP"):
        yield


@contextmanager
def nobody_listens(pod: str, port: int) -> Iterator[None]:
    """A pod answers its UDP port as if nothing listened there: ICMP port unreachable."""
    with _pod_rule(pod, "-p", "udp", "--dport", str(port), jump="REJECT"):
        yield


@contextmanager
def health_check_blocked(node: Node, port: int) -> Iterator[None]:
    """A node drops what asks its healthCheckNodePort; the Service itself works on."""
    with _rule(node, "filter", "INPUT", "-p", "tcp", "--dport", str(port), jump=("DROP",)):
        yield


@contextmanager
def health_check_lies(node: Node, port: int, status: int, endpoints: int) -> Iterator[None]:
    """Another server answers on a node's healthCheckNodePort, with this status and count."""
    said = json.dumps({"service": {}, "localEndpoints": endpoints})
    argv = ["ip", "netns", "exec", node.netns, sys.executable, "-c", LIE,
            str(LIAR_PORT), str(status), said]  # fmt: skip
    match = ("-p", "tcp", "--dport", str(port), "-m", "addrtype", "--dst-type", "LOCAL")
    jump = ("REDIRECT", "--to-ports", str(LIAR_PORT))
    with ExitStack() as stack:
        liar = stack.enter_context(
            subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        stack.callback(liar.kill)
        listens = ("ss", "-Htln", f"sport = :{LIAR_PORT}")
        wait_for(lambda: in_node(node, *listens), "the server that lies", _PATIENCE)
        for chain in ("PREROUTING", "OUTPUT"):
            stack.enter_context(_rule(node, "nat", chain, *match, jump=jump))
        yield


@contextmanager
def excluded(node: Node) -> Iterator[None]:
    """A node carries the label that keeps it out of load-balancers; kube-proxy does not care."""
    kubectl("label", "node", node.name, f"{EXCLUDED}=true", "--overwrite")
    try:
        yield
    finally:
        kubectl("label", "node", node.name, f"{EXCLUDED}-")


@contextmanager
def side_door(node: Node, sources: Sequence[str] = (WORLD_NODE_ADDRESS,)) -> Iterator[None]:
    """A node answers these sources over a second device on the wire: an asymmetric route.

    Everything works on, until eth0's rp_filter is strict. The device is a macvlan of eth0 without
    an address of its own. It neither answers nor asks by ARP, so that nobody learns a second MAC of
    the node and sends to that.
    """
    made = ("ip", "link", "add", SIDE_DOOR, "link", "eth0", "type", "macvlan", "mode", "bridge")
    in_node(node, *made)
    try:
        conf = f"net.ipv4.conf.{SIDE_DOOR}"
        in_node(node, "sysctl", "-q", "-w", f"{conf}.arp_ignore=1", f"{conf}.rp_filter=0")
        in_node(node, "ip", "link", "set", SIDE_DOOR, "up")
        for source in sources:
            known = ("lladdr", _mac(node, source), "nud", "permanent")
            in_node(node, "ip", "neigh", "add", source, *known, "dev", SIDE_DOOR)
            way = ("dev", SIDE_DOOR, "src", node.address)
            in_node(node, "ip", "route", "add", f"{source}/32", *way)
        yield
    finally:
        in_node(node, "ip", "link", "del", SIDE_DOOR)  # its routes and neighbours go with it


def _mac(node: Node, address: str) -> str:
    """The MAC by which a node reaches an address on the wire."""
    in_node(node, "ping", "-c", "1", "-W", "3", address)
    (known,) = json.loads(in_node(node, "ip", "-j", "neigh", "show", address, "dev", "eth0"))
    return str(known["lladdr"])


@contextmanager
def strict_rp_filter(node: Node, sources: Sequence[str] = (WORLD_NODE_ADDRESS,)) -> Iterator[None]:
    """rp_filter of a node's eth0 is strict (1) and its route to these sources asymmetric.

    What they send is dropped before netfilter sees it, and counted in IPReversePathFilter
    (ip-sysctl.rst, nstat(8)).
    """
    key = "net.ipv4.conf.eth0.rp_filter"
    before = in_node(node, "sysctl", "-n", key).strip()
    with side_door(node, sources):
        in_node(node, "sysctl", "-q", "-w", f"{key}=1")
        try:
            yield
        finally:
            in_node(node, "sysctl", "-q", "-w", f"{key}={before}")


def reverse_path_drops(node: Node) -> int:
    """Packets that a node dropped since its start because rp_filter was strict."""
    said = json.loads(in_node(node, "nstat", "-asz", "--json", "TcpExtIPReversePathFilter"))
    return int(said["kernel"]["TcpExtIPReversePathFilter"])


@contextmanager
def _rule(node: Node, table: str, chain: str, *match: str, jump: Sequence[str]) -> Iterator[None]:
    iptables = ["ip", "netns", "exec", node.netns, "iptables", "-w", "10", "-t", table]
    rule = [chain, *match, "-m", "comment", "--comment", COMMENT, "-j", *jump]
    with changed([*iptables, "-I", *rule], [*iptables, "-D", *rule]):
        yield


@contextmanager
def _pod_rule(pod: str, *match: str, jump: str) -> Iterator[None]:
    """A rule at the head of INPUT in a pod's own network namespace."""
    rule = ("INPUT", *match, "-m", "comment", "--comment", COMMENT, "-j", jump)
    in_pod(pod, "iptables", "-I", *rule)
    try:
        yield
    finally:
        in_pod(pod, "iptables", "-D", *rule)
