"""The table of facts: who can be asked for each, in which words, and what parses the answer.

`collect` asks by this table and `explain` reads by it, so neither has to know the other. The same
fact has several forms: by another command, of an older version, or in a poorer image. They stand
best first: the node side's answer, then the commands; the first that succeeded is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Generic, TypeVar

from kubectl_ebpfnet.model.cilium import (
    CiliumNode,
    CtEntry,
    DatapathConfig,
    EgressGatewayPolicy,
    Endpoint,
    Frontend,
    Identity,
    IpcacheEntry,
    LocalEndpoint,
    MetricRow,
    MonitorEvent,
    NatEntry,
    PolicyEntry,
)
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Bundle, Place, PlaceKind, Record
from kubectl_ebpfnet.model.kernel import (
    Attachment,
    BpfPin,
    Counter,
    FibAnswer,
    InterfaceAddress,
    KernelFacts,
    Link,
    Neighbour,
    Program,
    Route,
    Rule,
    Ruleset,
)
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.model.netkat.attempt import ConnectAttempt
from kubectl_ebpfnet.model.protocol.questions import node_argv

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """A command that prints a fact.

    Attributes:
        parser: the function of kubectl_ebpfnet.parse that reads its output: `iproute.links`. Its
            name alone, since the model is below the parsers.
        argv: the command; captures are searched for exactly these words.
    """

    parser: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """One fact that a place can be asked for: a row of the table.

    Attributes:
        name: unique.
        kind: the class of its facts.
        places: the kinds of place that can answer.
        node: name of the node side's question (model/protocol/questions.py), "" for none.
        asked: commands for a shell or an agent, best first.
        read: commands of captures that other people made: `collect` never runs them, since one of
            `asked` succeeds wherever they would.
        by_flow: its output grows with the cluster's traffic: a live run brings home only lines
            with the flow's addresses, and its parser takes one line and its number.
        words: parameters, such as a device: the last words of each argv, and arguments of the
            parser.
    """

    name: str
    kind: type[T] | UnionType
    places: tuple[PlaceKind, ...]
    node: str = ""
    asked: tuple[Form, ...] = ()
    read: tuple[Form, ...] = ()
    by_flow: bool = False
    words: tuple[str, ...] = ()

    def about(self, *words: str) -> Fact[T]:
        """Return this fact with parameters."""
        return replace(self, words=words)

    @property
    def forms(self) -> tuple[tuple[str, ...], ...]:
        """The argvs for a shell or an agent, best first."""
        return tuple(form.argv + self.words for form in self.asked)

    @property
    def answers(self) -> tuple[tuple[str, ...], ...]:
        """Every argv whose record answers the question, best first."""
        asked = (node_argv(self.node, *self.words),) if self.node else ()
        return asked + self.forms + tuple(form.argv + self.words for form in self.read)

    def parser(self, argv: Sequence[str]) -> str:
        """Return the name of the parser of a command. Raises KeyError for other commands."""
        parsers = {form.argv + self.words: form.parser for form in (*self.asked, *self.read)}
        return parsers[tuple(argv)]


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

_POD = (PlaceKind.POD,)
_NODE = (PlaceKind.AGENT, PlaceKind.NODE)
_AGENT = (PlaceKind.AGENT,)
_CLIENT = (PlaceKind.CLIENT, PlaceKind.AGENT)

# fmt: off
# --- the pod's own namespace ----------------------------------------------------------------------
POD_ADDRESSES   = Fact("pod-addresses", InterfaceAddress, _POD, "addresses",
    asked=_by("iproute.addresses",      "ip addr"),
    read =_by("iproute.addresses",      "ip a"))
POD_LINKS       = Fact("pod-links", Link, _POD, "links",
    asked=_by("iproute.links",          "ip addr"),
    read =_by("iproute.links",          "ip a"))
POD_ROUTES      = Fact("pod-routes", Route, _POD, "routes",
    asked=_by("iproute.routes",         "ip route")
        + _by("procfs.routes",          "cat /proc/net/route"),
    read =_by("nettools.routes",        "route -n"))
POD_ROUTES6     = Fact("pod-routes6", Route, _POD, "routes",
    asked=_by("iproute.routes6",        "ip -6 route")
        + _by("procfs.routes6",         "cat /proc/net/ipv6_route"))
POD_NEIGHBOURS  = Fact("pod-neighbours", Neighbour, _POD, "neighbours",
    asked=_by("iproute.neighbours",     "ip neigh")
        + _by("procfs.neighbours",      "cat /proc/net/arp"),
    read =_by("nettools.neighbours",    "arp -an"))
POD_IFLINK      = Fact("pod-iflink", int, _POD,
    asked=_by("procfs.number",          "cat /sys/class/net/eth0/iflink"))

# --- the node's namespace -------------------------------------------------------------------------
LINKS           = Fact("links", Link, _NODE, "links",
    asked=_by("iproute.links",          "ip -j -d link"),
    read =_by("iproute.links",          "ip -d link", "ip -j addr", "ip a"))
ADDRESSES       = Fact("addresses", InterfaceAddress, _NODE, "addresses",
    asked=_by("iproute.addresses",      "ip -j addr"),
    read =_by("iproute.addresses",      "ip a"))
ROUTER_DEVICE   = Fact("router-device", InterfaceAddress, _NODE,
    read =_by("nettools.addresses",     "ifconfig cilium_host"))
ROUTES          = Fact("routes", Route, _NODE, "routes",
    asked=_by("iproute.routes",         "ip -j route show table all", "ip route")
        + _by("procfs.routes",          "cat /proc/net/route"),
    read =_by("nettools.routes",        "route -n"))
RULES           = Fact("rules", Rule, _NODE, "rules",
    asked=_by("iproute.rules",          "ip -j rule"),
    read =_by("iproute.rules",          "ip rule"))
NEIGHBOURS      = Fact("neighbours", Neighbour, _NODE, "neighbours",
    asked=_by("iproute.neighbours",     "ip -j neigh", "ip neigh")
        + _by("procfs.neighbours",      "cat /proc/net/arp"),
    read =_by("nettools.neighbours",    "arp -an"))
NETFILTER       = Fact("netfilter", Ruleset, _NODE,
    asked=_by("netfilter.ruleset",      "iptables-save -c", "iptables-save",
                                        "iptables-legacy-save"))
NETFILTER6      = Fact("netfilter6", Ruleset, _NODE,
    asked=_by("netfilter.ruleset",      "ip6tables-save -c", "ip6tables-save"))
CONNTRACK       = Fact("conntrack", ConntrackEntry, _NODE, "conntrack", by_flow=True,
    asked=_by("conntrack.entry",        "cat /proc/net/nf_conntrack", "conntrack -L -o extended"),
    read =_by("conntrack.entry",        "conntrack -L"))
BPF_NET         = Fact("bpf-net", Attachment, _NODE,
    asked=_by("bpf.bpftool.net",        "bpftool -j net show"),
    read =_by("bpf.bpftool.net",        "bpftool net show"))
BPF_LINKS       = Fact("bpf-links", Attachment, _NODE,
    asked=_by("bpf.bpftool.links",      "bpftool -j -f link show", "bpftool -j link show"))
BPF_PROGRAMS    = Fact("bpf-programs", Program, _NODE, "programs",
    asked=_by("bpf.bpftool.programs",   "bpftool -j prog show"))
BPF_PINS        = Fact("bpf-pins", BpfPin, _NODE, "pins",
    asked=_by("bpf.bpffs.pins",         "ls -R /sys/fs/bpf"))
CGROUP_PROGRAMS = Fact("cgroup-programs", Attachment, _AGENT,
    asked=_by("bpf.bpftool.cgroup_tree", "bpftool cgroup tree /run/cilium/cgroupv2"))
# A device and `ingress` or `egress`: the clsact filters there. Without these words, of
# every device: the script finds them, and each has its record.
TC_FILTERS      = Fact("tc-filters", Attachment, _NODE,
    asked=_by("bpf.tc.filters",         "tc filter show dev"))

# --- of the node side alone; an agent is asked BPF_NET, BPF_LINKS and TC_FILTERS instead ----------
ATTACHMENTS     = Fact("attachments", Attachment, (PlaceKind.NODE, PlaceKind.POD), "attachments")
COUNTERS        = Fact("counters", Counter, (PlaceKind.NODE,), "counters")
KERNEL          = Fact("kernel", KernelFacts, (PlaceKind.NODE,), "kernel")
# `packet_words`: the kernel's routing decision for a packet of this namespace; on a node, for one
# that comes from a pod. The words of a probe are in node/probe/attempts.py.
FIB             = Fact("fib", FibAnswer, (PlaceKind.NODE, PlaceKind.POD), "fib")
FORWARD         = Fact("forward", FibAnswer, (PlaceKind.NODE,), "forward")
PROBE           = Fact("probe", ConnectAttempt, (PlaceKind.NODE,), "probe")

# --- Cilium ---------------------------------------------------------------------------------------
VERSION         = Fact("cilium-version", str, _AGENT,
    asked=_cilium("cilium.agent.version",      "version"))
STATUS          = Fact("cilium-status", DatapathConfig, _AGENT,
    asked=_cilium("cilium.agent.status",       "status -o json"))
ENDPOINTS       = Fact("cilium-endpoints", Endpoint, _AGENT,
    asked=_cilium("cilium.agent.endpoints",    "endpoint list -o json"))
ENDPOINT_MAP    = Fact("cilium-endpoint-map", LocalEndpoint, _AGENT, "endpoints",
    asked=_cilium("cilium.maps.endpoint_map",  "bpf endpoint list"))
IPCACHE         = Fact("cilium-ipcache", IpcacheEntry, _AGENT, "ipcache",
    asked=_cilium("cilium.maps.ipcache",       "bpf ipcache list"))
POLICY_MAPS     = Fact("cilium-policy-maps", PolicyEntry, _AGENT, "policy",
    asked=_cilium("cilium.policy.entries",     "bpf policy get --all -o json"),
    read =_cilium("cilium.policy.entries",     "bpf policy get --all -n", "bpf policy get --all"))
SERVICES        = Fact("cilium-services", Frontend, _AGENT,
    asked=_cilium("cilium.lb.services",        "service list -o json"))
LB_MAP          = Fact("cilium-lb-map", Frontend, _AGENT, "lb",
    asked=_cilium("cilium.lb.frontends",       "bpf lb list"))
CT              = Fact("cilium-ct", CtEntry, _AGENT, "ct", by_flow=True,
    asked=_cilium("cilium.ct.entry",           "bpf ct list global -d", "bpf ct list global"))
NAT             = Fact("cilium-nat", NatEntry, _AGENT, "nat", by_flow=True,
    asked=_cilium("cilium.nat.entry",          "bpf nat list"))
CILIUM_NODES    = Fact("cilium-nodes", CiliumNode, _AGENT,
    asked=_cilium("cilium.agent.nodes",        "node list -o json"))
IDENTITIES      = Fact("cilium-identities", Identity, _AGENT,
    asked=_cilium("cilium.agent.identities",   "identity list -o json"))
EGRESS_GATEWAY  = Fact("cilium-egress-gateway", EgressGatewayPolicy, _AGENT, "egress",
    asked=_cilium("cilium.maps.egress_gateway", "bpf egress list"))
IP_MASQ: Fact[Network] = Fact("cilium-ip-masq", Network, _AGENT, "ipmasq",
    asked=_cilium("cilium.maps.ip_masq",       "bpf ipmasq list"))
METRICS         = Fact("cilium-metrics", MetricRow, _AGENT, "metrics",
    asked=_cilium("cilium.maps.metrics",       "bpf metrics list"))
CONFIG_VIEW     = Fact("cilium-config-view", DatapathConfig, _CLIENT,
    read =_by("cilium.config.view",            "cilium config view"))
MONITOR         = Fact("cilium-monitor", MonitorEvent, _AGENT, by_flow=True,
    read =_cilium("cilium.monitor.event",      "monitor"))
# Addresses of a name, one first on each line: in the pod (nsswitch.conf, glibc and musl), and here.
NAME_LOOKUP: Fact[Address] = Fact("name-lookup", Address, _POD,
    asked=_by("lookup.addresses",              "getent ahosts"))
RESOLVE: Fact[Address] = Fact("resolve", Address, (PlaceKind.CLIENT,),
    asked=_by("lookup.addresses",              "resolve"))
TOOLS           = Fact("tools", str, _AGENT,
    asked=(Form("tools.found",                 ("sh", "-c", _WHICH, "sh", *TOOL_NAMES)),))
# fmt: on

FACTS: tuple[Fact[Any], ...] = tuple(row for row in globals().values() if isinstance(row, Fact))
"""Every row."""

NODE_FACTS: dict[str, Any] = {fact.node: fact.kind for fact in FACTS if fact.node}
"""The node side's questions, and the class of the facts in their answers."""


def packet_words(source: Address, destination: Address) -> tuple[str, ...]:
    """Return a packet in the words of FIB and FORWARD."""
    return (str(destination), "from", str(source))


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
