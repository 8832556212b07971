"""Cilium's maps of endpoints, policies, services and identities, and its nodes.

Connections are in cilium_ct.py, settings in cilium_config.py, events in cilium_events.py.

Sources: Cilium's pkg/maps/*, api/v1/models, bpf/lib/*.h; kubectl_ebpfnet/parse/cilium/ documents
how each version prints them. `span` is where a fact stands in the record that it was read from;
entries of tables that are read line by line have none (explain/views/answer.py, FactLine).
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Network


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend of a frontend.

    Attributes:
        address, port: where the traffic goes.
        protocol: IANA number, None where the version does not say.
        state: `active`, `terminating`, `quarantined`, `maintenance`; "" where not said.
        slot: 1-based slot in the frontend, 0 where not said.
        id: backend id, 0 where not said.
        node: name of its node, "" where not said.
        preferred: by the clustermesh affinity of its Service.
    """

    address: Address
    port: int
    protocol: int | None = None
    state: str = ""
    slot: int = 0
    id: int = 0
    node: str = ""
    preferred: bool = False
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Frontend:
    """A service address in Cilium's load-balancer (`bpf lb list`, `service list`).

    Attributes:
        address, port: port 0 is the wildcard entry that drops what no service port matches.
        protocol: IANA number, None where the version does not say or prints ANY.
        internal: the internal scope (`/i`): what clients in the cluster use when it is there.
        type: ClusterIP, NodePort, LoadBalancer, ExternalIPs, HostPort, LocalRedirect; "" unknown.
        flags: the other words in brackets, e.g. {"Local", "two-scopes", "non-routable"}.
        rev_nat: reverse NAT id.
        namespace, name: of the Service, "" where the source does not say.
        proxy_port: of the node's Envoy that takes the traffic of an `l7-load-balancer`, 0 where
            not said.
        unresolved: slots that name a backend which the backends' map lacks.
    """

    address: Address
    port: int
    protocol: int | None
    internal: bool
    type: str
    flags: frozenset[str]
    rev_nat: int
    backends: tuple[Backend, ...]
    namespace: str = ""
    name: str = ""
    proxy_port: int = 0
    unresolved: int = 0
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class IpcacheEntry:
    """A prefix of the ipcache (`bpf ipcache list`, pkg/maps/ipcache).

    Attributes:
        prefix: matched by longest prefix.
        identity: security identity.
        encrypt_key: IPsec/WireGuard key index, 0 for none.
        tunnel_endpoint: node to encapsulate to, None for none (local, or native routing).
        flags: e.g. {"hastunnel", "skiptunnel"}.
    """

    prefix: Network
    identity: int
    encrypt_key: int = 0
    tunnel_endpoint: Address | None = None
    flags: frozenset[str] = frozenset()
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A row of the endpoints map `cilium_lxc` (`bpf endpoint list`).

    Attributes:
        address: pod or host address.
        host: the address is the node's own (`(localhost)`).
        endpoint_id, identity, ifindex: None where the row does not say.
        mac: address inside the pod; node_mac: address of the host side device; lower case.
    """

    address: Address
    host: bool
    endpoint_id: int | None = None
    identity: int | None = None
    ifindex: int | None = None
    mac: str = ""
    node_mac: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Cilium endpoint as the agent or a CiliumEndpoint object describes it.

    Attributes:
        id: node-local endpoint id.
        identity: security identity, 0 when not said.
        labels: security-relevant labels.
        state: `ready`, `regenerating`, `not-ready`, …
        addresses: IPv4 and IPv6 addresses.
        mac: inside the pod; host_mac: what the pod sees as its gateway's MAC; "" when not said.
        interface: host side device, "" when not said.
        ifindex: of the host side device, None when not said.
        policy_enabled: `none`, `ingress`, `egress`, `both`, `audit-…`; "" when not said.
        policy_audit: PolicyAuditMode: denied packets pass and are logged; None when not said.
        namespace, pod: of the pod; "" for the host and health endpoints.
        health: the agent's overall health word, "" when not said.
        policy_revision: of the policy that its map holds, None when not said.
        wanted_revision: of the policy that the agent is putting into it, None when not said. It
            stays behind where newer policies change nothing for the endpoint.
    """

    id: int
    identity: int
    labels: tuple[str, ...] = ()
    state: str = ""
    addresses: tuple[Address, ...] = ()
    mac: str = ""
    host_mac: str = ""
    interface: str = ""
    ifindex: int | None = None
    policy_enabled: str = ""
    policy_audit: bool | None = None
    namespace: str = ""
    pod: str = ""
    health: str = ""
    policy_revision: int | None = None
    wanted_revision: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the state directory of an agent tells of an endpoint (/var/run/cilium/state/ID).

    Attributes:
        endpoint_id: the directory's name.
        host: the endpoint stands for the node itself.
        policy_audit: PolicyAuditMode, None when the file does not say.
        building: seconds since the agent began to regenerate the endpoint, None while it does not
            (`ID_next` is there only meanwhile).
        failed: seconds since its last regeneration failed, None where it did not, or another one
            succeeded since (`ID_next_fail`).
    """

    endpoint_id: int
    host: bool = False
    policy_audit: bool | None = None
    building: int | None = None
    failed: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """An entry of an endpoint's policy map (`bpf policy get`, pkg/maps/policymap).

    Attributes:
        endpoint_id: whose map.
        deny: a deny entry.
        direction: `ingress` or `egress`.
        identity: remote identity, 0 for any.
        protocol: IANA number, 0 for any.
        ports: inclusive (low, high); (0, 65535) for any.
        proxy_port: L7 proxy's port, 0 for none.
        auth: the mutual authentication that it asks for, `spire`; "" for none or not said.
        precedence: higher wins (≥ 1.19), None in versions without it.
        packets, bytes: None when not available.
        labels: label column of the text form, () in numeric or JSON forms. An identity of -1 has
            these labels, and its number is not known.
    """

    endpoint_id: int
    deny: bool
    direction: str
    identity: int
    protocol: int
    ports: tuple[int, int] = (0, 65535)
    proxy_port: int = 0
    auth: str = ""
    precedence: int | None = None
    packets: int | None = None
    bytes: int | None = None
    labels: tuple[str, ...] = ()
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class TailCalls:
    """Whether a map of Cilium's holds the programs that another one calls.

    Attributes:
        map: its name: `cilium_calls_00448`, `cilium_call_policy`.
        filled: it holds one at least; for an endpoint: it holds the endpoint's.
        endpoint_id: of `cilium_call_policy`, None for the others.
    """

    map: str
    filled: bool
    endpoint_id: int | None = None
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """A security identity and its labels."""

    id: int
    labels: tuple[str, ...]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class CiliumNode:
    """A node as the agent or a CiliumNode object knows it.

    Attributes:
        name: without the cluster part.
        addresses: InternalIPs and ExternalIPs.
        router_addresses: CiliumInternalIPs (of cilium_host).
        pod_cidrs: what pods there get their addresses from.
        wireguard_key: public key by which the other nodes send to it, in base64; "" for none.
        cluster: of a clustermesh, as an agent names it; "" for a cluster without a name of its own.
        internal_addresses: those of `addresses` that a CiliumNode object calls InternalIPs.
    """

    name: str
    addresses: tuple[Address, ...]
    router_addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Network, ...] = ()
    wireguard_key: str = ""
    cluster: str = ""
    span: Span = field(default=NOWHERE, compare=False)
    internal_addresses: tuple[Address, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class SourceRange:
    """A row of `bpf lb list --source-ranges`: a source that a frontend's check looks for.

    Attributes:
        rev_nat: reverse NAT id of the frontend.
        prefix: of sources that it lets in, or keeps out where the frontend's flags say `deny`.
    """

    rev_nat: int
    prefix: Network
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class EgressGatewayPolicy:
    """A row of `bpf egress list`: traffic of `source` to `destination` leaves by `gateway`.

    Attributes:
        source: the pod's address.
        destination: the policy's CIDR.
        egress_address: that the gateway gives the packet; None on other nodes, and where the
            gateway has none.
        gateway: the gateway node's address, None for "Not Found".
        others: further gateways, where a policy has several for a connection to choose from.
        excluded: the destination is an excluded CIDR: no gateway.
        device: number of the device by which the gateway sends it, 0 where its routes decide or
            where it is not said (`bpf egress list`).
    """

    source: Address
    destination: Network
    egress_address: Address | None
    gateway: Address | None
    excluded: bool = False
    others: tuple[Address, ...] = ()
    device: int = 0
    span: Span = field(default=NOWHERE, compare=False)


# pkg/identity/numericidentity.go
RESERVED_IDENTITIES = {
    0: "unknown",
    1: "host",
    2: "world",
    3: "unmanaged",
    4: "health",
    5: "init",
    6: "remote-node",
    7: "kube-apiserver",
    8: "ingress",
    9: "world-ipv4",
    10: "world-ipv6",
    11: "encrypted-overlay",
}
HOST = 1
WORLD = 2
REMOTE_NODE = 6
