"""The table of facts: who can be asked for each, who needs it, in which words, and what parses the
answer.

`collect` asks by this table and `explain` reads by it, so neither has to know the other. A command
asks a place for the rows that it needs, in the order of the table. The same fact has several forms:
by another command, of an older version, or in a poorer image. They stand best first: the node
side's answer, then the commands; the first that succeeded is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.model.evidence import Bundle, Place, PlaceKind, Record
from kubectl_ebpfnet.model.fact import Fact, Form, Need

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.bpf import Attachment, BpfPin, Program
    from kubectl_ebpfnet.model.cilium import (
        CiliumNode,
        EgressGatewayPolicy,
        Endpoint,
        EndpointState,
        Frontend,
        Identity,
        IpcacheEntry,
        LocalEndpoint,
        PolicyEntry,
        SourceRange,
        TailCalls,
    )
    from kubectl_ebpfnet.model.cilium_config import DatapathConfig
    from kubectl_ebpfnet.model.cilium_ct import CtEntry, NatEntry
    from kubectl_ebpfnet.model.cilium_events import MetricRow, MonitorEvent
    from kubectl_ebpfnet.model.conntrack import ConntrackEntry
    from kubectl_ebpfnet.model.encryption import (
        WireGuardDevice,
        WireGuardPeer,
        XfrmPolicy,
        XfrmState,
    )
    from kubectl_ebpfnet.model.events import TraceLayer, TraceLine
    from kubectl_ebpfnet.model.kernel import (
        Counter,
        FibAnswer,
        InterfaceAddress,
        KernelFacts,
        Link,
        Listener,
        Neighbour,
        Qdisc,
        Route,
        Rule,
        Sysctl,
    )
    from kubectl_ebpfnet.model.net import Address, Network
    from kubectl_ebpfnet.model.netfilter import Ruleset
    from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
    from kubectl_ebpfnet.model.nft import NftChain, NftRuleset
    from kubectl_ebpfnet.model.proxy import EndpointRule, FqdnEntry, ProxyRedirect
    from kubectl_ebpfnet.model.resolver import HostsEntry, NameServiceOrder, ResolverConfig
    from kubectl_ebpfnet.model.room import MapRoom, SnatUse


def _by(parser: str, *commands: str) -> tuple[Form, ...]:
    return tuple(Form(parser, tuple(command.split())) for command in commands)


def _cilium(parser: str, *commands: str) -> tuple[Form, ...]:
    # The binary was renamed in Cilium 1.15; the old name stays as a symlink (cilium-facts 1.3).
    names = ("cilium-dbg", "cilium")
    return _by(parser, *(f"{name} {command}" for command in commands for name in names))


NF_CONNTRACK = "/proc/net/nf_conntrack"
TOOL_NAMES = (
    "ip", "tc", "bpftool", "iptables-save", "ip6tables-save", "conntrack", "cilium-dbg", "cilium",
    NF_CONNTRACK,
)  # fmt: skip
"""The programs and files by which an agent's image answers."""
# The words are positional parameters: the shell reads none of them as shell.
_WHICH = (
    'for t; do case $t in /*) [ -r "$t" ];; *) command -v "$t" >/dev/null 2>&1;; esac'
    ' && echo "$t"; done; exit 0'
)

# The names of node/sysctls.py; grep passes over what it may not read, and over missing folders.
_GREP_SYSCTLS = (
    "grep -rsH --exclude-dir=neigh --include=ip_forward"
    " --include=forwarding --include=force_forwarding --include=rp_filter --include=accept_local"
    " --include=src_valid_mark --include=disable_ipv6 --include=nf_conntrack_count"
    " --include=nf_conntrack_max --include=nf_conntrack_*_timeout*"
)
_ONLY_SYSCTLS = f"{_GREP_SYSCTLS} . /proc/sys/net"
_WITH_COUNTERS = (
    f"{_GREP_SYSCTLS} --include=nf_conntrack . /proc/sys/net /proc/net/stat/nf_conntrack"
)

MOST_SOCKETS = 2000
"""Sockets of a file of /proc/net that are brought home."""
# The heading of a file, which has "sl", shows that it was read. A kernel without IPv6 has no tcp6,
# as the list of its protocols shows.
_GREP_SOCKETS = f"grep -H -m {MOST_SOCKETS + 1} -e sl"
_LISTEN = "[[:space:]]0A[[:space:]]"
# The kernel lists listeners first, and 100,000 connections behind them take it most of a second.
# An old mawk takes `nextfile` for a variable, and goes over them.
_AWK_LISTEN = (
    f'awk FNR<{MOST_SOCKETS + 2}&&(FNR==1||$4=="0A"){{print(FILENAME":"$0);next}}{{nextfile}}'
)
_PROTOCOLS = "/proc/net/protocols"

_POD = (PlaceKind.POD,)
_NODE = (PlaceKind.AGENT, PlaceKind.NODE)
_AGENT = (PlaceKind.AGENT,)
_NODE_POD = (PlaceKind.NODE,)
_NETNS = (PlaceKind.POD, PlaceKind.AGENT, PlaceKind.NODE)
_CLIENT = (PlaceKind.CLIENT, PlaceKind.AGENT)
(
    PATH,
    IPV4,
    IPV6,
    SENDER,
    LEAVES,
    STAYS,
    NODES,
    NAMES,
    ENDS_TCP,
    ENDS_UDP,
    ENDS_SCTP,
    PROGRAMS,
    FLOWS,
    LB,
    DOCTOR,
    CAPTURE,
    TRACING,
) = Need

# fmt: off
# The class of a fact, its name, places that can answer, who needs it, the node side's question.
# --- the pod's own namespace ----------------------------------------------------------------------
POD_LINKS: Fact[Link] = Fact("pod-links", _POD, PATH | PROGRAMS, "links",
    asked=_by("iproute.links",          "ip addr"),
    read =_by("iproute.links",          "ip a"))
POD_ADDRESSES: Fact[InterfaceAddress] = Fact("pod-addresses", _POD, PATH, "addresses",
    asked=_by("iproute.addresses",      "ip addr"),
    read =_by("iproute.addresses",      "ip a"))
POD_ROUTES: Fact[Route] = Fact("pod-routes", _POD, IPV4, "routes",
    asked=_by("iproute.routes",         "ip route show table all", "ip route")
        + _by("procfs.routes",          "cat /proc/net/route"),
    read =_by("nettools.routes",        "route -n"))
POD_ROUTES6: Fact[Route] = Fact("pod-routes6", _POD, IPV6, "routes",
    asked=_by("iproute.routes6",        "ip -6 route show table all", "ip -6 route")
        + _by("procfs.routes6",         "cat /proc/net/ipv6_route"))
POD_RULES: Fact[Rule] = Fact("pod-rules", _POD, IPV4, "rules",
    asked=_by("iproute.rules",          "ip rule"),
    read =_by("iproute.rules",          "ip -j rule"))
POD_RULES6: Fact[Rule] = Fact("pod-rules6", _POD, IPV6, "rules",
    asked=_by("iproute.rules6",         "ip -6 rule"))
POD_NEIGHBOURS: Fact[Neighbour] = Fact("pod-neighbours", _POD, PATH | PROGRAMS, "neighbours",
    asked=_by("iproute.neighbours",     "ip neigh")
        + _by("procfs.neighbours",      "cat /proc/net/arp"),
    read =_by("nettools.neighbours",    "arp -an"))
POD_IFLINK: Fact[int] = Fact("pod-iflink", _POD, PATH | PROGRAMS,
    asked=_by("procfs.number",          "cat /sys/class/net/eth0/iflink"))
# Netfilter in the pod, by the node's own programs: few pods have any, or may run them.
POD_NETFILTER: Fact[Ruleset] = Fact("pod-netfilter", _POD, IPV4, node_pod_only=True,
    asked=_by("netfilter.ruleset",      "iptables-save -c"))
POD_NETFILTER6: Fact[Ruleset] = Fact("pod-netfilter6", _POD, IPV6, node_pod_only=True,
    asked=_by("netfilter.ruleset",      "ip6tables-save -c"))
POD_LEGACY: Fact[Ruleset] = Fact("pod-netfilter-legacy", _POD, IPV4, node_pod_only=True,
    asked=_by("netfilter.ruleset",      "iptables-legacy-save -c"))
POD_LEGACY6: Fact[Ruleset] = Fact("pod-netfilter6-legacy", _POD, IPV6, node_pod_only=True,
    asked=_by("netfilter.ruleset",      "ip6tables-legacy-save -c"))
POD_NFT_RULES: Fact[NftRuleset] = Fact("pod-nft-ruleset", _POD, PATH, node_pod_only=True,
    asked=_by("nft.ruleset",            "nft -j list ruleset"))
POD_NFT_CHAINS: Fact[NftChain] = Fact("pod-nft-chains", _POD, PATH, "nft-chains")
POD_ATTACHMENTS: Fact[Attachment] = Fact("pod-attachments", _POD, PATH | PROGRAMS, "attachments")
POD_QDISCS: Fact[Qdisc] = Fact("pod-qdiscs", _POD, PATH, "qdiscs")
# How the pod turns a name into addresses.
RESOLV_CONF: Fact[ResolverConfig] = Fact("resolv-conf", _POD, NAMES,
    asked=_by("resolver.config",        "cat /etc/resolv.conf"))
HOSTS: Fact[HostsEntry] = Fact("hosts", _POD, NAMES,
    asked=_by("resolver.hosts",         "cat /etc/hosts"))
NSSWITCH: Fact[NameServiceOrder] = Fact("nsswitch", _POD, NAMES,
    asked=_by("resolver.order",         "cat /etc/nsswitch.conf"))

# --- the node's namespace -------------------------------------------------------------------------
LINKS: Fact[Link] = Fact("links", _NODE, PATH | PROGRAMS | LB, "links",
    asked=_by("iproute.links",          "ip -s -j -d link"),
    read =_by("iproute.links",          "ip -j -d link", "ip -d link", "ip -j addr", "ip a"))
# The same answer: what the devices lost. A node pod tells it in COUNTERS.
DEVICE_COUNTERS: Fact[Counter] = Fact("device-counters", _AGENT, PATH,
    asked=_by("iproute.device_counters", "ip -s -j -d link"))
QDISCS: Fact[Qdisc] = Fact("qdiscs", _NODE, PATH, "qdiscs",
    asked=_by("iproute.qdiscs",         "tc -s -j qdisc show"))
ADDRESSES: Fact[InterfaceAddress] = Fact("addresses", _NODE, PATH | LB, "addresses",
    asked=_by("iproute.addresses",      "ip -j addr"),
    read =_by("iproute.addresses",      "ip a"))
ROUTER_DEVICE: Fact[InterfaceAddress] = Fact("router-device", _NODE,
    read =_by("nettools.addresses",     "ifconfig cilium_host"))
ROUTES: Fact[Route] = Fact("routes", _NODE, PATH | LB, "routes",
    asked=_by("iproute.routes",         "ip -j route show table all", "ip route")
        + _by("procfs.routes",          "cat /proc/net/route"),
    read =_by("nettools.routes",        "route -n"))
RULES: Fact[Rule] = Fact("rules", _NODE, PATH | LB, "rules",
    asked=_by("iproute.rules",          "ip -j rule"),
    read =_by("iproute.rules",          "ip rule"))
RULES6: Fact[Rule] = Fact("rules6", _NODE, IPV6 | LB, "rules",
    asked=_by("iproute.rules6",         "ip -j -6 rule"),
    read =_by("iproute.rules6",         "ip -6 rule"))
SYSCTLS: Fact[Sysctl] = Fact("sysctls", _NODE, PATH | FLOWS | LB, "sysctls",
    asked=_by("procfs.sysctls",         _WITH_COUNTERS),
    read =_by("procfs.sysctls",         _ONLY_SYSCTLS))
# The same answer: what nf_conntrack lost.
CONNTRACK_COUNTERS: Fact[Counter] = Fact("conntrack-counters", _AGENT, PATH,
    asked=_by("procfs.conntrack_counters", _WITH_COUNTERS))
NEIGHBOURS: Fact[Neighbour] = Fact("neighbours", _NODE, PATH, "neighbours",
    asked=_by("iproute.neighbours",     "ip -j neigh", "ip neigh")
        + _by("procfs.neighbours",      "cat /proc/net/arp"),
    read =_by("nettools.neighbours",    "arp -an"))
NETFILTER: Fact[Ruleset] = Fact("netfilter", _NODE, IPV4 | LB,
    asked=_by("netfilter.ruleset",      "iptables-save -c", "iptables-save"))
NETFILTER6: Fact[Ruleset] = Fact("netfilter6", _NODE, IPV6 | LB,
    asked=_by("netfilter.ruleset",      "ip6tables-save -c", "ip6tables-save"))
# iptables has two back ends, and a packet passes the rules of both.
LEGACY: Fact[Ruleset] = Fact("netfilter-legacy", _NODE, IPV4 | LB,
    asked=_by("netfilter.ruleset",      "iptables-legacy-save -c"),
    read =_by("netfilter.ruleset",      "iptables-legacy-save"))
LEGACY6: Fact[Ruleset] = Fact("netfilter6-legacy", _NODE, IPV6 | LB,
    asked=_by("netfilter.ruleset",      "ip6tables-legacy-save -c"),
    read =_by("netfilter.ruleset",      "ip6tables-legacy-save"))
NFT: Fact[Ruleset] = Fact("netfilter-nft", _NODE,
    read =_by("netfilter.ruleset",      "iptables-nft-save -c", "iptables-nft-save"))
NFT6: Fact[Ruleset] = Fact("netfilter6-nft", _NODE,
    read =_by("netfilter.ruleset",      "ip6tables-nft-save -c", "ip6tables-nft-save"))
# nftables' own tables; Cilium's image has no nft. Netlink tells of chains where the node has none.
NFT_RULES: Fact[NftRuleset] = Fact("nft-ruleset", _NODE_POD, PATH,
    asked=_by("nft.ruleset",            "nft -j list ruleset"))
NFT_CHAINS: Fact[NftChain] = Fact("nft-chains", _NODE_POD, PATH, "nft-chains")
BPF_NET: Fact[Attachment] = Fact("bpf-net", _NODE, PATH | PROGRAMS | LB,
    asked=_by("bpf.bpftool.net",        "bpftool -j net show"),
    read =_by("bpf.bpftool.net",        "bpftool net show"))
BPF_LINKS: Fact[Attachment] = Fact("bpf-links", _NODE, PATH | PROGRAMS | LB,
    asked=_by("bpf.bpftool.links",      "bpftool -j -f link show", "bpftool -j link show"))
BPF_PROGRAMS: Fact[Program] = Fact("bpf-programs", _NODE, PATH | PROGRAMS | LB, "programs",
    node_need=PROGRAMS | CAPTURE,
    asked=_by("bpf.bpftool.programs",   "bpftool -j prog show"))
BPF_PINS: Fact[BpfPin] = Fact("bpf-pins", _NODE, PATH | PROGRAMS | LB, "pins",
    node_need=CAPTURE,
    asked=_by("bpf.bpffs.pins",         "ls -R /sys/fs/bpf"))
CGROUP_PROGRAMS: Fact[Attachment] = Fact("cgroup-programs", _AGENT, PATH | PROGRAMS,
    asked=_by("bpf.bpftool.cgroup_tree", "bpftool cgroup tree /run/cilium/cgroupv2"))
# About a device and `ingress` or `egress`: the clsact filters there. Without these words, of
# every device: the script finds them, and each has its record.
TC_FILTERS: Fact[Attachment] = Fact("tc-filters", _NODE, PATH | PROGRAMS,
    asked=_by("bpf.tc.filters",         "tc filter show dev"))
# Of the node side alone; an agent is asked BPF_NET, BPF_LINKS and TC_FILTERS instead.
ATTACHMENTS: Fact[Attachment] = Fact("attachments", _NODE_POD, PATH | PROGRAMS | LB, "attachments")
COUNTERS: Fact[Counter] = Fact("counters", _NODE_POD, PATH | LB, "counters")
KERNEL: Fact[KernelFacts] = Fact("kernel", _NODE_POD, DOCTOR | CAPTURE, "kernel")
TRACE_LAYERS: Fact[TraceLayer] = Fact("trace-layers", _NODE_POD, DOCTOR, "trace-layers")
CONNTRACK: Fact[ConntrackEntry] = Fact("conntrack", _NODE, PATH | FLOWS | LB, "conntrack",
    by_flow=True,
    asked=_by("conntrack.entry",        "cat /proc/net/nf_conntrack", "conntrack -L -o extended"),
    read =_by("conntrack.entry",        "conntrack -L"))
# Whose status names a WireGuard device says no peers: no program of an agent's image does.
WIREGUARD: Fact[WireGuardDevice] = Fact("wireguard", _NODE, PATH, "wireguard",
    asked=_cilium("cilium.agent.wireguard",    "status -o json"))
WIREGUARD_PEERS: Fact[WireGuardPeer] = Fact("wireguard-peers", _NODE_POD, PATH, "wireguard-peers")
# IPsec, where Cilium has its map. Never without `nokeys`.
XFRM: Fact[XfrmState] = Fact("xfrm", _NODE, PATH, "xfrm", maps=("cilium_encrypt_state",),
    asked=_by("iproute.xfrm_states",    "ip -s xfrm state list nokeys"))
XFRM_POLICIES: Fact[XfrmPolicy] = Fact("xfrm-policies", _NODE, PATH, "xfrm-policies",
    maps=("cilium_encrypt_state",),
    asked=_by("iproute.xfrm_policies",  "ip xfrm policy list"))
XFRM_ERRORS: Fact[Counter] = Fact("xfrm-errors", _NODE, PATH, "xfrm-errors",
    maps=("cilium_encrypt_state",),
    asked=_by("procfs.xfrm_errors",     "cat /proc/net/xfrm_stat"))

# --- the namespace of a pod or of a node, where a packet may end ----------------------------------
TCP_LISTENERS: Fact[Listener] = Fact("tcp-listeners", _NETNS, ENDS_TCP, "tcp-listeners",
    asked=_by("sockets.tcp",
              f"{_AWK_LISTEN} /proc/net/tcp /proc/net/tcp6",
              f"{_GREP_SOCKETS} -e {_LISTEN} /proc/net/tcp /proc/net/tcp6",
              f"{_GREP_SOCKETS} -e {_LISTEN} -e TCPv6 /proc/net/tcp {_PROTOCOLS}"))
UDP_SOCKETS: Fact[Listener] = Fact("udp-sockets", _NETNS, ENDS_UDP, "udp-sockets",
    asked=_by("sockets.udp",
              f"{_GREP_SOCKETS} -e : /proc/net/udp /proc/net/udp6",
              f"{_GREP_SOCKETS} -e : -e UDPv6 /proc/net/udp {_PROTOCOLS}"))
SCTP_ENDPOINTS: Fact[Listener] = Fact("sctp-endpoints", _NETNS, ENDS_SCTP,
    asked=_by("sockets.sctp",           "cat /proc/net/sctp/eps"))

# --- Cilium, by its agent or by its maps ----------------------------------------------------------
STATUS: Fact[DatapathConfig] = Fact("cilium-status", _AGENT, PATH | LB | DOCTOR,
    asked=_cilium("cilium.agent.status",       "status -o json"))
# The same answer: how many entries each map can have. A node pod tells how many it has, too.
MAP_ROOM: Fact[MapRoom] = Fact("cilium-map-room", _NODE, PATH, "map-room",
    asked=_cilium("cilium.room.sizes",         "status -o json"))
# The same answer: who is redirected to which proxy.
PROXY_REDIRECTS: Fact[ProxyRedirect] = Fact("cilium-proxy-redirects", _AGENT, PATH,
    asked=_cilium("cilium.proxy.redirects",    "status -o json"))
CT: Fact[CtEntry] = Fact("cilium-ct", _NODE, PATH | FLOWS | LB, "ct", by_flow=True,
    asked=_cilium("cilium.ct.entry",           "bpf ct list global -d", "bpf ct list global"))
ENDPOINTS: Fact[Endpoint] = Fact("cilium-endpoints", _AGENT, PATH | PROGRAMS | LB,
    asked=_cilium("cilium.agent.endpoints",    "endpoint list -o json"))
# The same answer: rules with names and L7 rules, and those that are not in the map yet.
ENDPOINT_RULES: Fact[EndpointRule] = Fact("cilium-endpoint-rules", _AGENT, PATH,
    asked=_cilium("cilium.proxy.rules",        "endpoint list -o json"))
ENDPOINT_STATES: Fact[EndpointState] = Fact("cilium-endpoint-states",
    _NODE_POD, PATH, "endpoint-states")
TAIL_CALLS: Fact[TailCalls] = Fact("cilium-tail-calls", _NODE_POD, PATH, "tail-calls")
POLICY_MAPS: Fact[PolicyEntry] = Fact("cilium-policy-maps", _NODE, PATH | LB, "policy",
    by_endpoint=True,
    asked=_cilium("cilium.policy.entries",     "bpf policy get --all -o json"),
    read =_cilium("cilium.policy.entries",     "bpf policy get --all -n", "bpf policy get --all"))
# The same answer: of which endpoints it has a map, be it an empty one, which denies everything.
POLICY_ENDPOINTS: Fact[int] = Fact("cilium-policy-endpoints", _AGENT, PATH,
    asked=_cilium("cilium.policy.endpoints",   "bpf policy get --all -o json"),
    read =_cilium("cilium.policy.endpoints",   "bpf policy get --all -n", "bpf policy get --all"))
NAT: Fact[NatEntry] = Fact("cilium-nat", _NODE, PATH | FLOWS | LB, "nat", by_flow=True,
    maps=("cilium_snat_v4_external", "cilium_snat_v6_external"),
    asked=_cilium("cilium.nat.entry",          "bpf nat list"))
# The agent's word for what LB_MAP shows. Kubernetes' Service has the name, so `path` is without it.
SERVICES: Fact[Frontend] = Fact("cilium-services", _AGENT, LB | CAPTURE,
    asked=_cilium("cilium.lb.services",        "service list -o json"))
IPCACHE: Fact[IpcacheEntry] = Fact("cilium-ipcache", _NODE, PATH, "ipcache", by_address=True,
    asked=_cilium("cilium.maps.ipcache",       "bpf ipcache list"))
ENDPOINT_MAP: Fact[LocalEndpoint] = Fact("cilium-endpoint-map",
    _NODE, STAYS | PROGRAMS, "endpoints",
    node_need=PATH | PROGRAMS | LB,
    asked=_cilium("cilium.maps.endpoint_map",  "bpf endpoint list"))
LB_MAP: Fact[Frontend] = Fact("cilium-lb-map", _NODE, SENDER | LB, "lb", by_address=True,
    asked=_cilium("cilium.lb.frontends",       "bpf lb list"))
# Decides once a frontend checks its clients' addresses: asked in a further round (walk.py).
SOURCE_RANGES: Fact[SourceRange] = Fact("cilium-source-ranges", _NODE, CAPTURE, "source-ranges",
    maps=("cilium_lb4_source_range", "cilium_lb6_source_range"),
    asked=_cilium("cilium.lb.source_ranges",   "bpf lb list --source-ranges"))
# Kubernetes has the labels of pods, the ipcache the prefixes of what is outside; names of toFQDNs
# are here alone.
# The names of a node's own CIDR identities; without it the ipcache's prefix names them.
IDENTITIES: Fact[Identity] = Fact("cilium-identities", _AGENT, CAPTURE,
    asked=_cilium("cilium.agent.identities",   "identity list -o json"))
EGRESS_GATEWAY: Fact[EgressGatewayPolicy] = Fact("cilium-egress-gateway", _NODE, LEAVES, "egress",
    by_address=True,
    maps=("cilium_egress_gw_*", "cilium_egress_v4"),  # cilium_egresscall_… is another feature's
    asked=_cilium("cilium.egress.policies",    "bpf egress list"),
    read =_cilium("cilium.egress.policies_json", "bpf egress list -o json"))
IP_MASQ: Fact[Network] = Fact("cilium-ip-masq", _NODE, LEAVES, "ipmasq",
    maps=("cilium_ipmasq*",),
    asked=_cilium("cilium.maps.ip_masq",       "bpf ipmasq list"),
    read =_cilium("cilium.maps.ip_masq_json",  "bpf ipmasq list -o json"))
CILIUM_NODES: Fact[CiliumNode] = Fact("cilium-nodes", _AGENT, NODES,
    asked=_cilium("cilium.agent.nodes",        "node list -o json"))
VERSION: Fact[str] = Fact("cilium-version", _AGENT, DOCTOR | CAPTURE,
    asked=_cilium("cilium.agent.version",      "version"))
METRICS: Fact[MetricRow] = Fact("cilium-metrics", _NODE, CAPTURE, "metrics",
    asked=_cilium("cilium.maps.metrics",       "bpf metrics list"))
# Names and addresses that pods looked up; of one endpoint with `-e ID` behind it (`of_endpoint`).
FQDN_CACHE: Fact[FqdnEntry] = Fact("cilium-fqdn-cache", _NODE, CAPTURE, "fqdn-cache",
    asked=_cilium("cilium.proxy.fqdn_cache",   "fqdn cache list -o json"))
CONFIG_VIEW: Fact[DatapathConfig] = Fact("cilium-config-view", _CLIENT,
    read =_by("cilium.config.view",            "cilium config view"))
# Without L7 events, whose URLs may hold secrets. `--timeout` ends the dialling of a hung agent.
HUBBLE: Fact[MonitorEvent] = Fact("hubble", _AGENT, PATH, by_flow=True, flags=True,
    select="--ip",
    asked=_by("cilium.hubble.event",           "hubble observe --timeout 1s -o jsonpb --since 5m"
                                               " --last 1000 -t drop -t trace -t policy-verdict"),
    read =_by("cilium.hubble.event",           "hubble observe"))
MONITOR: Fact[MonitorEvent] = Fact("cilium-monitor", _AGENT, by_flow=True, flags=True,
    read =_cilium("cilium.monitor.event",      "monitor"))

# --- the agent's image ----------------------------------------------------------------------------
TOOLS: Fact[str] = Fact("tools", _AGENT, DOCTOR,
    asked=(Form("tools.found",          ("sh", "-c", _WHICH, "sh", *TOOL_NAMES)),))
BPFTOOL: Fact[str] = Fact("bpftool-version", _AGENT, DOCTOR,
    asked=_by("bpf.bpftool.version",           "bpftool -j version"))

# --- about words that a run finds out; asked by `about` alone -------------------------------------
# The kernel's routing decision for a packet (`packet_words`): in a pod's namespace, and on its node
# for a packet that comes from the pod.
FIB: Fact[FibAnswer] = Fact("fib", _POD, PATH, "fib", takes="ADDRESS from ADDRESS")
FORWARD: Fact[FibAnswer] = Fact("forward", _NODE_POD, PATH, "forward",
    takes="ADDRESS from ADDRESS")
# Of other pods as well, whose lines of NAT are not brought home. An agent's node counts the lines.
SNAT_USE: Fact[SnatUse] = Fact("cilium-snat-use", _NODE_POD, LEAVES, "snat-use",
    takes="PROTOCOL ADDRESS PORT, numbers but for the address")
PROBE: Fact[ConnectAttempt] = Fact("probe", _NODE_POD, LB, "probe",
    takes="the words of node/probe/attempts.py")
TRACE: Fact[TraceLine] = Fact("trace", _NODE_POD, TRACING, "trace",
    takes="a request (protocol/tracing.py)")
# Addresses of a name, one first on each line: in the pod (nsswitch.conf, glibc and musl), and here.
NAME_LOOKUP: Fact[Address] = Fact("name-lookup", _POD, NAMES, takes="NAME",
    asked=_by("lookup.addresses",       "getent ahosts"))
# The same by the nameserver alone, of a complete name, where there is no getent or it found
# nothing: BusyBox's does not complete names as the C libraries do.
NSLOOKUP: Fact[Address] = Fact("nslookup", _POD, NAMES, takes="NAME",
    asked=_by("lookup.nslookup",        "nslookup"))
RESOLVE: Fact[Address] = Fact("resolve", (PlaceKind.CLIENT,), NAMES | LB, takes="NAME",
    asked=_by("lookup.addresses",       "resolve"))
# fmt: on

FACTS: tuple[Fact[Any], ...] = tuple(row for row in globals().values() if isinstance(row, Fact))
"""Every row."""


def packet_words(source: Address, destination: Address) -> tuple[str, ...]:
    """Return a packet in the words of FIB and FORWARD."""
    return (str(destination), "from", str(source))


def snat_words(protocol: int, destination: Address, port: int) -> tuple[str, ...]:
    """Return where a flow goes in the words of SNAT_USE; port 0 for ICMP."""
    return (str(protocol), str(destination), str(port))


def best_record(bundle: Bundle, place: Place, fact: Fact[Any]) -> Record | None:
    """Return the best record that holds a fact at a place.

    Args:
        bundle: all records.
        place: where the question was asked.
        fact: of this catalogue.

    Returns:
        The first form that exited with 0; else the first form that was tried, whose `why_not()`
        has the reason; None when the question was never asked there.
    """
    tried = None
    for argv in fact.answers:
        record = bundle.record(place, argv)
        if record is None:
            continue
        if record.ok:
            return record
        tried = tried or record
    return tried
