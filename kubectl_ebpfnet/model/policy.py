"""Network policies of Kubernetes and of Cilium, in one set of nouns: whom they select, and their
rules.

Sources: Kubernetes networking/v1 (NetworkPolicy), Cilium pkg/policy/api. Selectors are as Cilium
makes them of the objects (pkg/k8s/network_policy.go, pkg/k8s/apis/cilium.io/utils): with the
namespace that an object implies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import cached_property

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Network

POD_NAMESPACE = "io.kubernetes.pod.namespace"
"""The label by which Cilium tells the namespace of a pod (pkg/k8s/apis/cilium.io/const.go)."""
_LONGEST_NAME = 520
"""Characters of a name and its namespace that are shown; Kubernetes' own are shorter."""
_SHORT_NAMES = {
    "NetworkPolicy": "netpol",
    "CiliumNetworkPolicy": "cnp",
    "CiliumClusterwideNetworkPolicy": "ccnp",
}
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels"
"""The labels of a namespace are labels of its pods' identities below this key."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a selector asks of a label.

    Attributes:
        source: of the label: `k8s`, `reserved`, `node`, …; `any` for whichever.
        key: of the label, without its source.
        operator: `In`, `NotIn`, `Exists`, `DoesNotExist`; other words are not understood.
        values: of In and NotIn.
    """

    source: str
    key: str
    operator: str
    values: tuple[str, ...] = ()


Selector = tuple[Requirement, ...]
"""Selects what fulfils all requirements; () selects everything."""


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """A CIDR of a rule: of the world outside, for Cilium selects pods and nodes by labels alone.

    Attributes:
        prefix: None where a CiliumCIDRGroup has the prefixes, or the text is no prefix.
        exceptions: prefixes in it that are not meant.
        group: name of a CiliumCIDRGroup, "" for none.
        groups: selects CiliumCIDRGroups by their labels, None for none.
    """

    prefix: Network | None
    exceptions: tuple[Network, ...] = ()
    group: str = ""
    groups: Selector | None = None


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """A Service of `toServices`: by name, or by labels where `name` is "" (then only the namespace
    is kept)."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Peers:
    """The other ends that a rule is about.

    Attributes:
        anyone: the rule does not restrict them.
        endpoints, nodes: selectors of pods and nodes.
        entities: `world`, `cluster`, …
        cidrs: prefixes of the world.
        names: DNS names and patterns (`toFQDNs`).
        services: `toServices`.
        other: members of the rule that select by what is not modelled, in words.
    """

    anyone: bool = False
    endpoints: tuple[Selector, ...] = ()
    nodes: tuple[Selector, ...] = ()
    entities: tuple[str, ...] = ()
    cidrs: tuple[CidrPeer, ...] = ()
    names: tuple[str, ...] = ()
    services: tuple[ServicePeer, ...] = ()
    other: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """A protocol with ports, or with ICMP types.

    Attributes:
        protocol: IANA number; None for TCP, UDP and SCTP.
        low, high: ports, or ICMP types, both included; (0, 65535) for any.
        name: of a container's port, "" for numbers.
    """

    protocol: int | None
    low: int = 0
    high: int = 0xFFFF
    name: str = ""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of a policy.

    Attributes:
        path: of the rule in its object: ("spec", "egress", 0).
        direction: `ingress` or `egress`, seen from the endpoint that the policy selects.
        deny: it denies what it matches.
        peers: the other ends.
        ports: None for every protocol; () for none.
        proxy: what an L7 proxy decides besides, `http`, `dns`; "" for nothing.
        allows: what its rules let pass, in words: `ok.example.test`, `GET /clientip`.
        requires: further requirements of the other end's labels (`fromRequires`, `toRequires`).
        odd: why it cannot be told whom it matches, "" where it can.
        odd_ports: why it cannot be told at which ports.
    """

    path: tuple[str | int, ...]
    direction: str
    deny: bool
    peers: Peers
    ports: tuple[PolicyPort, ...] | None = None
    proxy: str = ""
    requires: tuple[Selector, ...] = ()
    odd: str = ""
    odd_ports: str = ""
    allows: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The rule in its policy: `egress[0]`, `specs[1].ingressDeny[2]`."""
        *spec, member, index = self.path
        of_many = f"specs[{spec[1]}]." if len(spec) > 1 else ""
        return f"{of_many}{member}[{index}]"


@dataclass(frozen=True)
class PolicySpec:
    """One spec of a policy: whom it selects, and what it allows and denies them.

    A cluster has thousands of policies, of which few select an endpoint: rules are read when they
    are asked for.

    Attributes:
        subject: selects endpoints, or nodes where `of_nodes`; None selects nothing.
        of_nodes: it is about the nodes themselves (`nodeSelector`).
        ruled: directions that have rules.
        default_deny: directions in which what no rule allows is denied.
        odd: why it cannot be told what the spec does, "" where it can.
        read: reads the rules.
    """

    subject: Selector | None
    of_nodes: bool
    ruled: frozenset[str]
    default_deny: frozenset[str]
    odd: str
    read: Callable[[], tuple[PolicyRule, ...]] = field(compare=False, repr=False)

    @cached_property
    def rules(self) -> tuple[PolicyRule, ...]:
        """The rules of both directions."""
        return self.read()


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy, CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy.

    Attributes:
        kind, namespace, name, uid: of the object; `namespace` is "" for clusterwide ones.
        specs: `spec`, then those of `specs`.
        changed: RFC 3339 times at which it was made, changed and found valid.
        invalid: why Cilium refuses it, "" where it does not say so.
        deleting: it has a deletionTimestamp.
        span: where it stands in its record.
    """

    kind: str
    namespace: str
    name: str
    uid: str = ""
    specs: tuple[PolicySpec, ...] = field(default=(), compare=False)
    changed: tuple[str, ...] = field(default=(), compare=False)
    invalid: str = field(default="", compare=False)
    deleting: bool = field(default=False, compare=False)
    span: Span = field(default=NOWHERE, compare=False)

    @property
    def title(self) -> str:
        """`NetworkPolicy shop/deny-all`."""
        named = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {named[:_LONGEST_NAME]}"

    @property
    def abbreviated(self) -> str:
        """`netpol shop/deny-all`: with the short name of the kind that kubectl takes."""
        named = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{_SHORT_NAMES.get(self.kind, self.kind)} {named[:_LONGEST_NAME]}"


@dataclass(frozen=True, slots=True)
class CidrGroup:
    """A CiliumCIDRGroup: prefixes with a name and labels; a prefix that is none is left out."""

    name: str
    labels: tuple[tuple[str, str], ...]
    prefixes: tuple[Network, ...]
