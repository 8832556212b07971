"""Cilium's maps, endpoints and configuration.

Sources: Cilium's pkg/maps/*, api/v1/models, bpf/lib/*.h; kubectl_ebpfnet/parse/cilium/ documents
how each version prints them. `span` is where a fact stands in the record that it was read from;
entries of tables that are read line by line have none (explain/views/answer.py, FactLine).
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Address, Flow, Network, has_ports


@dataclass(frozen=True, slots=True)
class CtEntry:
    """An entry of Cilium's connection tracking maps (pkg/maps/ctmap).

    What Cilium counts as sent ("Tx") and received ("Rx") is as the entry's end of the connection
    sees
    it: requests of an OUT or SVC entry are sent, those of an IN entry are received (bpf/lib/
    conntrack.h, ct_update_timeout). A SVC entry never sees replies.

    Attributes:
        flow: initiator → destination, however the map or the version stores and prints it.
        direction: `OUT` (made at the client's side), `IN` (at the server's), `SVC` (per-packet
            load-balancing: destination is the frontend).
        related: the companion entry that lets ICMP errors pass.
        expires: lifetime in the datapath's own clock, None when not said.
        remaining: seconds left, negative when expired but not yet collected; None when not said.
        flags: names, e.g. {"RxClosing", "SeenNonSyn"}.
        tx_flags_seen, rx_flags_seen: TCP flag bits of the packets sent and received.
        last_tx_report, last_rx_report: when a packet was last sent and received, in the datapath's
            own clock as `expires`; 0 for never, None when not said. Cilium writes it for a packet
            with new flags, else every 5 s (CT_REPORT_INTERVAL), so the last packet may be younger.
        packets, bytes: both directions, None when not counted (zero is "not counted": accounting
            is off by default since 1.17).
        rev_nat: reverse NAT id, 0 for none.
        source_identity: security identity of the initiator, 0 when not set.
        backend_id: of SVC entries, 0 when not said.
    """

    flow: Flow
    direction: str
    related: bool = False
    expires: int | None = None
    remaining: int | None = None
    flags: frozenset[str] = frozenset()
    tx_flags_seen: int = 0
    rx_flags_seen: int = 0
    packets: int | None = None
    bytes: int | None = None
    rev_nat: int = 0
    source_identity: int = 0
    backend_id: int = 0
    last_tx_report: int | None = None
    last_rx_report: int | None = None

    @property
    def request_flags(self) -> int:
        """TCP flag bits that the initiator sent."""
        return self.rx_flags_seen if self.direction == "IN" else self.tx_flags_seen

    @property
    def reply_flags(self) -> int:
        """TCP flag bits that the destination sent."""
        return self.tx_flags_seen if self.direction == "IN" else self.rx_flags_seen

    @property
    def last_request(self) -> int | None:
        """When the initiator last sent a packet, as the reports say it."""
        return self.last_rx_report if self.direction == "IN" else self.last_tx_report

    @property
    def last_reply(self) -> int | None:
        """When the destination last sent a packet, as the reports say it."""
        return self.last_tx_report if self.direction == "IN" else self.last_rx_report


def ct_flow(
    protocol: int, initiator: tuple[Address, int], destination: tuple[Address, int], related: bool
) -> Flow:
    """Return the flow of a conntrack entry's tuple, without ports that have no meaning.

    Args:
        protocol: IANA number.
        initiator: its address and port.
        destination: its address and port.
        related: it is an entry for ICMP errors.
    """
    if related:
        return Flow(protocol, initiator[0], None, destination[0], None)
    if has_ports(protocol):
        return Flow(protocol, *initiator, *destination)
    # ICMP: the identifier stands in the initiator's port; nothing stands in the other.
    return Flow(
        protocol, initiator[0], initiator[1] or destination[1] or None, destination[0], None
    )


@dataclass(frozen=True, slots=True)
class NatEntry:
    """An entry of Cilium's SNAT maps (pkg/maps/nat).

    Attributes:
        flow: the packet as it comes to the map: OUT before translation, IN as the reply arrives.
        direction: `OUT` (the source is rewritten) or `IN` (the destination is rewritten back).
        address, port: the new source, or destination.
        age: seconds since it was made, None when not said or bogus (Cilium ≤ 1.14).
        needs_ct: the source was the node's own address; only the port was reserved.
    """

    flow: Flow
    direction: str
    address: Address
    port: int
    age: int | None = None
    needs_ct: bool = False

    def translated(self) -> Flow:
        """Return the packet after this entry's NAT."""
        if self.direction == "IN":
            return self.flow.with_destination(self.address, self.port)
        return self.flow.with_source(self.address, self.port)


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
    """

    name: str
    addresses: tuple[Address, ...]
    router_addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Network, ...] = ()
    wireguard_key: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """How an agent has set its datapath up; None or "" wherever nothing says.

    Attributes:
        version: as the agent prints it.
        ipam: who gives pods addresses: `kubernetes`, `cluster-pool`, `eni` …
        routing_mode: `native` or `tunnel`.
        tunnel_protocol: `vxlan` or `geneve`.
        host_routing: `bpf` or `legacy`.
        masquerade: `bpf`, `iptables` or `disabled`, of IPv4.
        masquerade6: the same of IPv6.
        masquerading: where the agent's status says so, NOWHERE when something else does.
        ip_masq_agent: its list of prefixes that are not masqueraded is used.
        native_cidrs: destinations that are not masqueraded.
        remote_node_masquerade: what pods send to other nodes' addresses is masqueraded whatever the
            routing mode.
        kube_proxy_replacement: True, False; None unknown.
        socket_lb: load-balancing at connect() is on.
        socket_lb_host_only: … but only for the host's own namespace.
        packet_lb: the program at a pod's device balances as well where sockets do in pods: for L7
            load-balancing or SCTP.
        node_port_last: the highest port of NodePorts; the ports of source NAT begin behind it.
        node_port_mode: `snat`, `dsr`, `hybrid`.
        no_backend_response: to packets for a Service without a backend: `reject` (an ICMP error)
            or `drop`; "" in versions without the choice.
        sctp: packets of SCTP are tracked, and pass.
        acceleration: of NodePorts by XDP: `native`, `generic`, `best-effort`, `disabled`.
        node_port_mode_annotation: whether a Service may have a mode of its own, by annotation.
        devices: native devices.
        attach_mode: `tc` or `tcx`.
        datapath_mode: `veth`, `netkit`, `netkit-l2`.
        encryption: `disabled`, `ipsec`, `wireguard`, `ztunnel`.
        node_encryption: what nodes themselves send is encrypted, too.
        strict_encryption: what leaves unencrypted from this prefix to this prefix is dropped; None
            without strict mode.
        strict_but_nodes: … but for what is sent to nodes.
        host_firewall: True when it is on.
        policy_audit: endpoints begin in policy audit mode.
        source_ranges: loadBalancerSourceRanges are checked; so they are by default.
        dns_transparent: the DNS proxy asks servers in the cluster with the pod's address.
        egress_gateway: True when it is on.
        endpoint_routes: one host route a pod.
        clock_source: of times in Cilium's maps: `ktime` is seconds of CLOCK_MONOTONIC, `jiffies`
            are jiffies / 256.
        clock_hertz: jiffies a second, None where they are not used.
        ct_syn_timeout, ct_fin_timeout, ct_any_timeout: seconds that a conntrack entry of TCP lives
            after a packet before it is established, of TCP after both sides closed it, and of other
            protocols; None where the default holds, 0 where the setting is not understood.
        state: the agent's own state word, e.g. "Ok".
    """

    version: str = ""
    ipam: str = ""
    routing_mode: str = ""
    tunnel_protocol: str = ""
    host_routing: str = ""
    masquerade: str = ""
    masquerade6: str = ""
    masquerading: Span = field(default=NOWHERE, compare=False)
    ip_masq_agent: bool | None = None
    native_cidrs: tuple[Network, ...] = ()
    remote_node_masquerade: bool | None = None
    kube_proxy_replacement: bool | None = None
    socket_lb: bool | None = None
    socket_lb_host_only: bool | None = None
    packet_lb: bool | None = None
    node_port_last: int | None = None
    node_port_mode: str = ""
    no_backend_response: str = ""
    acceleration: str = ""
    sctp: bool | None = None
    node_port_mode_annotation: bool | None = None
    devices: tuple[str, ...] = ()
    attach_mode: str = ""
    datapath_mode: str = ""
    encryption: str = ""
    node_encryption: bool | None = None
    strict_encryption: Network | None = None
    strict_but_nodes: bool | None = None
    host_firewall: bool | None = None
    policy_audit: bool | None = None
    source_ranges: bool | None = None
    dns_transparent: bool | None = None
    egress_gateway: bool | None = None
    endpoint_routes: bool | None = None
    clock_source: str = ""
    clock_hertz: int | None = None
    ct_syn_timeout: int | None = None
    ct_fin_timeout: int | None = None
    ct_any_timeout: int | None = None
    state: str = ""

    def masquerading_of(self, version: int) -> str:
        """Return the mode of masquerading in one IP version, 4 or 6."""
        return self.masquerade if version == 4 else self.masquerade6


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


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A row of `bpf metrics list`. `direction` is `ingress`, `egress`, `service` or `unknown`."""

    reason: str
    direction: str
    packets: int
    bytes: int
    source: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class NamedFlow:
    """A packet's ends as hubble's text names them: `default/client`, an address, a DNS name.

    Attributes:
        protocol: IANA number, 0 when not said.
        source, destination: names or addresses, without the port.
        source_port, destination_port: None when not said.
    """

    protocol: int
    source: str
    source_port: int | None
    destination: str
    destination_port: int | None


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """What Cilium's datapath reported of a packet: a line of `cilium monitor` or `hubble observe`.

    Attributes:
        kind: `trace`, `drop` or `policy-verdict`.
        summary: e.g. `-> stack`, the drop reason, or `deny`, `allow`, `redirect`, `audit`.
        flow: None when the line has no addresses.
        tcp_flags: e.g. ("SYN",).
        source_identity, destination_identity: number, 0 when a name or not said; the names are in
            `source_label`, `destination_label`.
        state: connection state word of a trace, "" otherwise.
        device: device name, "" for none.
        original_address: source before SNAT/LB, None when not said.
        translated_source: source after SNAT/LB, None when not said (hubble names the original).
        direction: of a verdict, "" otherwise.
        code: file and line in Cilium's source that dropped it, `bpf_lxc.c:1356`; "" when not said.
        time: on the node's clock, RFC 3339, or `Nov 30 03:12:43.220` (UTC) as hubble's text has
            it; "" where monitor says none.
        named: the packet where hubble's text names an end; `flow` is None then.
        icmp: `EchoRequest`, `EchoReply`; "" for other packets, and where it is not said.
    """

    kind: str
    summary: str
    flow: Flow | None
    tcp_flags: tuple[str, ...] = ()
    source_identity: int = 0
    destination_identity: int = 0
    source_label: str = ""
    destination_label: str = ""
    state: str = ""
    device: str = ""
    original_address: Address | None = None
    translated_source: Address | None = None
    direction: str = ""
    code: str = ""
    time: str = ""
    named: NamedFlow | None = None
    icmp: str = ""

    @property
    def point(self) -> str:
        """The observation point of a trace: `to-stack` for `-> stack`; "" for other kinds."""
        arrow, _, place = self.summary.partition(" ")
        if self.kind != "trace" or arrow not in ("->", "<-"):
            return ""
        return ("to-" if arrow == "->" else "from-") + place.partition(" ")[0]

    @property
    def is_answer(self) -> bool | None:
        """Whether the packet answers another: by the flags that open a connection (RFC 9293, 3.5),
        the type of an echo (RFC 792) or conntrack's word; None where none of them says."""
        if "SYN" in self.tcp_flags:
            return "ACK" in self.tcp_flags
        if self.icmp:
            return self.icmp == "EchoReply"
        return {"new": False, "established": False, "reply": True}.get(self.state)


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
