"""The answer of `probe-lb`: what a client outside the cluster would meet at each node.

A **target** is an address and port of the Service; an **attempt** is one connection to it through
one node, made by a netkat on another node; an **expectation** is what the Service asks of that
node; a **row** holds one beside the other. JSON: docs/json.md.

Fields: Kubernetes API reference (core/v1 Service, discovery.k8s.io/v1); what they ask of a node:
KEP-1669 (terminating endpoints), KEP-1860 (ipMode), KEP-3458 (which nodes a load-balancer takes).
"""

from __future__ import annotations

from enum import StrEnum

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import TCP, Address, endpoint_text, protocol_name
from kubectl_ebpfnet.model.path import Evidence, Finding

SCHEMA = "ebpfnet.dev/probe-lb/v1"
POLICIES_SCHEMA = "ebpfnet.dev/probe-lb-policies/v1"
"""Of the reports of --verify-policies in one document."""


class TargetKind(StrEnum):
    """Whose address a target is."""

    INGRESS = "ingress"
    """An entry of `status.loadBalancer.ingress`."""
    EXTERNAL_IP = "external-ip"
    """One of `spec.externalIPs`."""
    NODE_PORT = "node-port"
    """Each node's own address, with the Service's node port."""


class How(StrEnum):
    """How a connection was brought to the node that is probed."""

    NEXT_HOP = "next-hop"
    """Frames for the target's address were sent to the node's MAC, as a load-balancer does."""
    NODE_PORT = "node-port"
    """To the node's own address and the node port, for nodes that share no L2 network."""
    OWN_STACK = "own-stack"
    """As any process of the sending node does: the cluster treats it as internal."""


class AttemptOutcome(StrEnum):
    """The result of one attempt."""

    CONNECTED = "connected"
    """A TCP handshake; for UDP, an answer."""
    REFUSED = "refused"
    """A TCP RST, or ICMP port unreachable."""
    TIMEOUT = "timeout"
    """Silence for the whole of the request's wait."""
    UNREACHABLE = "unreachable"
    """The packet did not leave, or its next hop did not answer to ARP or NDP."""
    ICMP = "icmp"
    """An ICMP error; the attempt's detail says which."""
    ERROR = "error"
    """netkat failed, or could not be run: nothing is known of the node that is probed."""
    NOT_TRIED = "not-tried"
    """No attempt was made; the attempt's detail says why."""

    @property
    def conclusive(self) -> bool:
        """Whether the outcome shows anything about the probed node."""
        return self not in (AttemptOutcome.ERROR, AttemptOutcome.NOT_TRIED)


class Answers(StrEnum):
    """Whether a node is expected to answer a client from outside."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class SourceFate(StrEnum):
    """The fate of the client's address on its way to the backend."""

    PRESERVED = "preserved"
    NODE = "node"
    """It becomes one of the node that took the packet."""
    EITHER = "either"
    """Preserved for one backend, the node's for another."""
    OTHER = "other"
    """Seen alone: neither the client's nor the node's."""
    UNKNOWN = "unknown"


class Judgement(StrEnum):
    """Observation against expectation."""

    AS_ASKED = "as-asked"
    CONTRADICTED = "contradicted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """The question of `probe-lb`, which its report repeats.

    Attributes:
        namespace, service: whose addresses.
        port: of the Service, by number or name; "" for all of its ports.
        protocol: IANA number; None for every protocol that can be probed (TCP and UDP).
        nodes: label selector for the nodes that are probed, "" for all.
        from_node: the node that attempts are made from, "" for any other than the one probed.
        node_ports: probe the node ports as well.
        wait: seconds until silence is a time-out.
        http_path: requested after the connection, "" for none.
        attempts: connections to each target through each node.
    """

    namespace: str
    service: str
    port: str = ""
    protocol: int | None = None
    nodes: str = ""
    from_node: str = ""
    node_ports: bool = False
    wait: float = 5.0
    http_path: str = "/clientip"
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """An address and port that clients outside the cluster are given.

    Attributes:
        kind: whose address it is.
        address: None for NODE_PORT, where it is each node's own.
        version: of IP, 4 or 6.
        port: what a client sends to: the Service's port, or the node port.
        protocol: IANA number.
        port_name: of the Service's port, "" for the unnamed one.
        node_port: of the Service's port, 0 where it has none.
        hostname: of the ingress entry that resolved to the address, "" for none.
    """

    kind: TargetKind
    address: Address | None
    version: int
    port: int
    protocol: int = TCP
    port_name: str = ""
    node_port: int = 0
    hostname: str = ""

    @property
    def title(self) -> str:
        """`10.0.0.1:80/TCP`, `node port 30080/TCP over IPv6`."""
        protocol = protocol_name(self.protocol)
        if self.address is None:
            family = " over IPv6" if self.version == 6 else ""
            return f"node port {self.port}/{protocol}{family}"
        return f"{endpoint_text(self.address, self.port)}/{protocol}"


@dataclass(frozen=True, slots=True)
class ProbeAttempt:
    """One connection to a target through one node.

    Attributes:
        target: what was probed.
        node: the node that was probed.
        from_node: the node it was made from, "" when none could be used.
        how: the way to the node.
        outcome: what came of it.
        detail: one sentence more: which ICMP error, what failed, why it was not tried; or "".
        seconds: from the first packet to the connection, or to what ended the attempt.
        source, source_port: what the probe sent from.
        destination, destination_port: what it sent to: the target's, or the node's own.
        source_seen: the client's address as the backend saw it, None when that is not known; of a
            UDP packet that nobody answered, as it was sent on.
        source_seen_port: its port, None when that is not known.
        source_from: where that was read: `http`, `udp` (the answer itself), `conntrack`,
            `cilium-ct`; "" when it was not.
        source_missing: why it is not known, one sentence; "" when it is.
        backend: the endpoint that answered, or that the node sent to; None when not known.
        http_status: of the answer, None when it was no HTTP or none was asked for.
        body: the beginning of the answer's body, as it came; untrusted.
        note: what was done otherwise than asked and why, one sentence; "" for nothing.
        evidence: the records of it.
    """

    target: ProbeTarget
    node: str
    from_node: str
    how: How
    outcome: AttemptOutcome
    detail: str = ""
    seconds: float | None = None
    source: Address | None = None
    source_port: int | None = None
    destination: Address | None = None
    destination_port: int | None = None
    source_seen: Address | None = None
    source_seen_port: int | None = None
    source_from: str = ""
    source_missing: str = ""
    backend: Address | None = None
    http_status: int | None = None
    body: str = ""
    note: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What a node answered on `spec.healthCheckNodePort`.

    Attributes:
        node: the node that was asked.
        from_node: the node it was asked from.
        port: the health check's.
        status: HTTP status, None when there was no answer.
        local_endpoints: what the answer's body counts, None when it does not say.
        error: why there was no answer, one sentence; "" when there was.
        refused: the port refused the connection; False also for silence, of which nobody knows
            whether something serves the port.
        evidence: the records of it.
    """

    node: str
    from_node: str
    port: int
    status: int | None
    local_endpoints: int | None = None
    error: str = ""
    refused: bool = False
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Endpoints of one Service port, in one IP version, by distinct address.

    Attributes:
        local, total: ready ones on the node and in all.
        local_terminating, terminating: those that still serve while they end.
        local_not_ready: those on the node that take no traffic.
    """

    local: int = 0
    total: int = 0
    local_terminating: int = 0
    terminating: int = 0
    local_not_ready: int = 0


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the Service asks of one node for one target.

    Attributes:
        answers: whether a client outside is answered there.
        source: what becomes of the client's address; UNKNOWN where nothing answers.
        why: the rule that decides, one sentence.
        source_why: the same for the source, "" where nothing answers.
        health_status: 200 or 503, None where there is no health check to expect.
        health_count: endpoints that its body counts, None where there is none.
        excluded: why a load-balancer sends nothing to this node; "" when it may.
        cautions: what may decide otherwise for this probe, a sentence each.
        evidence: what the rule was applied to.
    """

    answers: Answers
    source: SourceFate
    why: str
    source_why: str = ""
    health_status: int | None = None
    health_count: int | None = None
    excluded: str = ""
    cautions: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node and one target: what was expected, what was seen.

    Attributes:
        target, node: of which.
        from_node: where attempts were made from; more than one are joined by commas.
        endpoints: of the target's port.
        expected: what the Service asks for.
        connected: attempts that were answered.
        told: attempts that say anything about the node.
        outcome: of the attempts: CONNECTED when all were, else the first that was not; NOT_TRIED
            when there are none.
        detail: that attempt's own.
        how: the way that was used, None when there is no attempt.
        seconds: the median of those that connected, None when none did.
        source: what became of the client's address.
        source_seen: addresses that backends saw, each once.
        health: the health check's answer, None when it was not asked.
        judgement: of the row as a whole.
        notes: what could not be done, or was done otherwise, a sentence each.
        attempts: all of them.
    """

    target: ProbeTarget
    node: str
    from_node: str
    endpoints: Endpoints
    expected: Expectation
    connected: int
    told: int
    outcome: AttemptOutcome
    detail: str
    how: How | None
    seconds: float | None
    source: SourceFate
    source_seen: tuple[Address, ...]
    health: HealthCheck | None
    judgement: Judgement
    notes: tuple[str, ...] = ()
    attempts: tuple[ProbeAttempt, ...] = ()

    @property
    def silent(self) -> bool:
        """Whether every conclusive attempt ended in silence."""
        outcomes = [a.outcome for a in self.attempts if a.outcome.conclusive]
        return bool(outcomes) and set(outcomes) == {AttemptOutcome.TIMEOUT}

    @property
    def sent_on(self) -> tuple[Address, ...]:
        """Endpoints that the node sent to without an answer to the probe, each once."""
        lost = [a for a in self.attempts if a.outcome is AttemptOutcome.TIMEOUT]
        return tuple(dict.fromkeys(a.backend for a in lost if a.backend is not None))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The records of its attempts, of its health check and of its expectation, each once."""
        parts = [item for attempt in self.attempts for item in attempt.evidence]
        parts += self.health.evidence if self.health is not None else ()
        return tuple(dict.fromkeys((*parts, *self.expected.evidence)))


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The whole answer.

    Attributes:
        request: what was asked.
        type, policy: of the Service: `LoadBalancer`, externalTrafficPolicy `Cluster` or `Local`.
        datapath: what programs the Service on the nodes, e.g. `kube-proxy iptables`,
            `Cilium DSR`; nodes that differ are joined by commas; "" when nothing says.
        verdict: of all rows of nodes that may receive traffic.
        summary: one line: the service, the verdict in words, how many nodes.
        targets: what was probed, in order.
        rows: by target, then by node.
        findings: worst first.
        missing: what could not be looked at, a sentence each.
        internal: attempts of a client on a node, whom the cluster treats as internal: they prove
            nothing for clients outside, and do not count for the verdict.
    """

    request: ProbeRequest
    type: str
    policy: str
    datapath: str
    verdict: Judgement
    summary: str
    targets: tuple[ProbeTarget, ...]
    rows: tuple[NodeRow, ...]
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    internal: tuple[ProbeAttempt, ...] = ()
