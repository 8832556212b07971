"""What Cilium's proxies are told, and what its DNS proxy has learned.

Sources: Cilium api/v1/models (ProxyStatus, EndpointPolicy, DNSLookup), pkg/policy/api (L7Rules).
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address


@dataclass(frozen=True, slots=True)
class ProxyRedirect:
    """A redirection to a proxy of a node (`status`).

    Attributes:
        name: `ENDPOINT:ingress|egress:PROTOCOL:PORT:`.
        proxy: `cilium-dns-egress`, `cilium-http-ingress`, …
        port: of the proxy on its node.
    """

    name: str
    proxy: str
    port: int
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class EndpointRule:
    """A rule of an endpoint's policy as the agent has computed it (`endpoint list`): of those with
    L7 rules, with names of toFQDNs, or that are not realized.

    Attributes:
        endpoint_id: whose policy.
        direction: `ingress` or `egress`.
        protocol: `TCP`, `UDP`, `ANY`, …
        port: 0 for any.
        parser: of the L7 rules: `dns`, `http`, `kafka`, another one's name; "" without any.
        allows: what they let pass, in words: `ok.example.test`, `GET /clientip`.
        names: of toFQDNs: each a name or a pattern.
        policies: the objects that it comes from: `CiliumNetworkPolicy default/fqdn`.
        realized: the endpoint's map holds it.
    """

    endpoint_id: int
    direction: str
    protocol: str = "ANY"
    port: int = 0
    parser: str = ""
    allows: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    realized: bool = True
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class FqdnEntry:
    """A name that an endpoint looked up through the DNS proxy (`fqdn cache list`).

    Attributes:
        endpoint_id: whose cache.
        name: with the dot at its end, in lower case.
        addresses: of the answer.
        ttl: of the answer, in seconds; None where it is not said.
        looked_up, expires: None where not said. An address of an expired entry stays allowed while
            a connection to it is alive (source `connection`).
        source: `lookup`, `connection`; "" where not said.
    """

    endpoint_id: int
    name: str
    addresses: tuple[Address, ...] = ()
    ttl: int | None = None
    looked_up: datetime | None = None
    expires: datetime | None = None
    source: str = ""
    span: Span = field(default=NOWHERE, compare=False)
