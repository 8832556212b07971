"""How Cilium's datapath is set up.

Sources: Cilium's api/v1/models, the ConfigMap cilium-config;
kubectl_ebpfnet/parse/cilium/config.py has how each version says it.
"""

from __future__ import annotations

from dataclasses import field

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.model.net import Network


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
