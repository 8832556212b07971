"""A FAKE cluster for whole runs of probe-lb: the API's objects, node pods, what their nodes meet.

The objects are those of tests/explain/lb/lb_bundle.py. A node pod's node side is played: it answers
`probe` by a function of the node that is probed, and conntrack with what the test gives; of all
else it knows nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from kubectl_ebpfnet.active.lb import run as lb
from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.probe import ProbeReport, ProbeRequest
from kubectl_ebpfnet.model.protocol import codec
from tests.cluster.fake_api_server import ExecEnd, FakeApiServer, Reply, Seen, exited
from tests.cluster.fake_cluster import FakeCluster
from tests.cluster.node_sessions import OURS
from tests.explain.lb.lb_bundle import ADDRESSES, ADDRESSES6

FIRST_PORT = 40000
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@dataclass(frozen=True, slots=True)
class Try:
    """One connection that a node's netkat was asked for.

    Attributes:
        sender, node: from which and through which node; `node` "" without a next hop.
        to: what was sent to, `via` by which next hop, "" for none.
        words: what else was asked, by name.
    """

    sender: str
    node: str
    to: Address
    port: int
    via: str
    words: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Address:
        """The sender's own address."""
        return ip_address((ADDRESSES if self.to.version == 4 else ADDRESSES6)[self.sender])


Meets = Callable[[Try], ConnectAttempt]


def connected(one: Try, answer: str = "") -> ConnectAttempt:
    """An attempt that was answered."""
    return ConnectAttempt("connected", "", 0.001, one.source, FIRST_PORT, "eth0", answer)


def silent(one: Try) -> ConnectAttempt:
    """An attempt that was not."""
    return ConnectAttempt("timeout", "silence for 1 s", 1.0, one.source, FIRST_PORT, "eth0")


def told(client: Address, by_http: bool = True) -> str:
    """The answer of a server that tells the client's address, as agnhost's netexec does."""
    host = f"[{client}]" if client.version == 6 else f"{client}"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" if by_http else ""
    return f"{head}{host}:{FIRST_PORT}"


class LbCluster:
    """See the module.

    Attributes:
        pods: namespaces, pods and nodes.
        tries: what was asked of the nodes' netkats.
        internal: what was asked of a node's own stack.
        tracked: conntrack of each node.
    """

    def __init__(self, meets: Meets, *objects: dict[str, Any]) -> None:
        self.server = FakeApiServer()
        self.meets = meets
        self.tries: list[Try] = []
        self.internal: list[Try] = []
        self.tracked: dict[str, list[ConntrackEntry]] = {}
        self._slices = [one for one in objects if one["kind"] == "EndpointSlice"]
        self.pods = FakeCluster(self.server)
        self.pods.refuses = self._listed
        for one in objects:
            name = one["metadata"]["name"]
            if one["kind"] == "Node":
                self.pods.objects[f"/api/v1/nodes/{name}"] = one
            elif one["kind"] == "Service":
                self.pods.objects[f"/api/v1/namespaces/default/services/{name}"] = one
        self.server.program = self._node_side

    def run(self, request: ProbeRequest) -> tuple[ProbeReport, Bundle]:
        """A whole run of probe-lb."""
        options = ConnectionOptions(server=self.server.url)
        with (
            Session.open(options) as session,
            Gatherer(session, NodeAccess(Mode.POD)) as gatherer,
        ):
            return lb.Probe(gatherer, request).run()

    def _listed(self, seen: Seen) -> Reply | None:
        if seen.method == "GET" and seen.path == _SLICES:
            return Reply(200, {"kind": "List", "metadata": {}, "items": self._slices})
        return None

    def _node_side(self, end: ExecEnd) -> None:
        path = end.seen.path.removesuffix("/exec")
        node = self.pods.objects[path]["spec"]["nodeName"]
        end.write(1, json.dumps(OURS).encode() + b"\n")
        text = b""
        for piece in end.stdin():
            text += piece
            if b'"end"' in text:
                break
        for line in text.splitlines():
            asked = json.loads(line)
            if "argv" in asked:
                end.write(1, self._answer(node, asked))
        end.end(exited(0))

    def _answer(self, node: str, asked: dict[str, Any]) -> bytes:
        _, name, *words = asked["argv"]
        body, error = b"", ""
        if name == "probe":
            body = b"".join(codec.line_of(self.meets(one)) for one in self._tries(node, words))
        elif name == "conntrack":
            body = b"".join(map(codec.line_of, self.tracked.get(node, [])))
        else:
            error = "it is played, and knows nothing of this"
        said = {"id": asked["id"], "exit_code": int(bool(error)), "bytes": len(body)}
        return json.dumps({**said, "error": error}).encode() + b"\n" + body

    def _tries(self, sender: str, words: list[str]) -> list[Try]:
        to, port = ip_address(words[0]), int(words[1])
        more = dict(zip(words[2::2], words[3::2], strict=True))
        names = {address: name for one in (ADDRESSES, ADDRESSES6) for name, address in one.items()}
        hops = more.pop("via", "").split(",")
        made = [Try(sender, names.get(hop or str(to), ""), to, port, hop, more) for hop in hops]
        (self.internal if "own" in more else self.tries).extend(made)
        return made
