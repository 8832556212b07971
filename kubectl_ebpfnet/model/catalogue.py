"""The catalogue of questions: facts, the places that have them, and the commands that print them.

`collect` asks these questions and `explain` looks their answers up, so neither has to know the
other. A question has forms: the same fact by another command, of an older version, or in a
poorer image. Forms stand in order of preference; the first that succeeded is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_ebpfnet.model.evidence import Bundle, Place, PlaceKind, Record
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol import questions


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact that a place can be asked for.

    Attributes:
        name: unique, for tasks and tests.
        places: the kinds of place that can answer.
        forms: argv alternatives for a shell or an agent, best first.
        read: argvs of captures that other people made: `collect` never runs them, since one of
            `forms` succeeds wherever they would.
        asks: name of the node side's question (model/protocol/questions.py), "" for none.
        by_flow: its output grows with the cluster's traffic: a live run brings home only lines
            with the flow's addresses, a reader streams it.
    """

    name: str
    places: tuple[PlaceKind, ...]
    forms: tuple[tuple[str, ...], ...]
    by_flow: bool = False
    asks: str = ""
    read: tuple[tuple[str, ...], ...] = ()

    @property
    def answers(self) -> tuple[tuple[str, ...], ...]:
        """Every argv whose record answers the question, best first."""
        return ((questions.node_argv(self.asks),) if self.asks else ()) + self.forms + self.read


_AGENT = (PlaceKind.AGENT,)
_NETNS = (PlaceKind.AGENT, PlaceKind.NODE)
_POD = (PlaceKind.POD,)


def _cilium(*words: str) -> tuple[tuple[str, ...], ...]:
    # The binary was renamed in Cilium 1.15; the old name stays as a symlink (cilium-facts 1.3).
    return (("cilium-dbg", *words), ("cilium", *words))


# --- the pod's own namespace ------------------------------------------------------------------
POD_ADDRESSES = Fact(
    "pod-addresses", _POD, (("ip", "addr"),), asks="addresses", read=(("ip", "a"),)
)
POD_LINKS = Fact("pod-links", _POD, POD_ADDRESSES.forms, asks="links", read=POD_ADDRESSES.read)
POD_ROUTES = Fact(
    "pod-routes",
    _POD,
    (("ip", "route"), ("cat", "/proc/net/route")),
    asks="routes",
    read=(("route", "-n"),),
)
POD_ROUTES6 = Fact(
    "pod-routes6", _POD, (("ip", "-6", "route"), ("cat", "/proc/net/ipv6_route")), asks="routes"
)
POD_NEIGHBOURS = Fact(
    "pod-neighbours",
    _POD,
    (("ip", "neigh"), ("cat", "/proc/net/arp")),
    asks="neighbours",
    read=(("arp", "-an"),),
)
POD_IFLINK = Fact("pod-iflink", _POD, (("cat", "/sys/class/net/eth0/iflink"),))

# --- the node's namespace -----------------------------------------------------------------------
LINKS = Fact(
    "links",
    _NETNS,
    (("ip", "-j", "-d", "link"),),
    asks="links",
    read=(("ip", "-d", "link"), ("ip", "-j", "addr"), ("ip", "a")),
)
ADDRESSES = Fact(
    "addresses", _NETNS, (("ip", "-j", "addr"),), asks="addresses", read=(("ip", "a"),)
)
ROUTER_DEVICE = Fact("router-device", _NETNS, (), read=(("ifconfig", "cilium_host"),))
ROUTES = Fact(
    "routes",
    _NETNS,
    (
        ("ip", "-j", "route", "show", "table", "all"),
        ("ip", "route"),
        ("cat", "/proc/net/route"),
    ),
    asks="routes",
    read=(("route", "-n"),),
)
RULES = Fact("rules", _NETNS, (("ip", "-j", "rule"),), asks="rules", read=(("ip", "rule"),))
NEIGHBOURS = Fact(
    "neighbours",
    _NETNS,
    (("ip", "-j", "neigh"), ("ip", "neigh"), ("cat", "/proc/net/arp")),
    asks="neighbours",
    read=(("arp", "-an"),),
)
NETFILTER = Fact(
    "netfilter", _NETNS, (("iptables-save", "-c"), ("iptables-save",), ("iptables-legacy-save",))
)
NETFILTER6 = Fact("netfilter6", _NETNS, (("ip6tables-save", "-c"), ("ip6tables-save",)))
CONNTRACK = Fact(
    "conntrack",
    _NETNS,
    (("cat", "/proc/net/nf_conntrack"), ("conntrack", "-L", "-o", "extended")),
    by_flow=True,
    asks="conntrack",
    read=(("conntrack", "-L"),),
)
BPF_NET = Fact(
    "bpf-net", _NETNS, (("bpftool", "-j", "net", "show"),), read=(("bpftool", "net", "show"),)
)
BPF_LINKS = Fact(
    "bpf-links",
    _NETNS,
    (("bpftool", "-j", "-f", "link", "show"), ("bpftool", "-j", "link", "show")),
)
BPF_PROGRAMS = Fact("bpf-programs", _NETNS, (("bpftool", "-j", "prog", "show"),), asks="programs")
BPF_PINS = Fact("bpf-pins", _NETNS, (("ls", "-R", "/sys/fs/bpf"),), asks="pins")
# Only the node side has these facts; an agent is asked BPF_NET, BPF_LINKS and tc instead.
ATTACHMENTS = Fact("attachments", (PlaceKind.NODE, PlaceKind.POD), (), asks="attachments")
COUNTERS = Fact("counters", (PlaceKind.NODE,), (), asks="counters")
KERNEL = Fact("kernel", (PlaceKind.NODE,), (), asks="kernel")


def packet_words(source: Address, destination: Address) -> tuple[str, ...]:
    """Return a packet in the words of the node side's look-ups `fib` and `forward`."""
    return (str(destination), "from", str(source))


def tc_filters(device: str, direction: str) -> Fact:
    """Return the question for a device's clsact filters; direction is `ingress` or `egress`."""
    words = ("tc", "filter", "show", "dev", device, direction)
    return Fact(f"tc-{device}-{direction}", _NETNS, (words,))


# --- Cilium ---------------------------------------------------------------------------------------
VERSION = Fact("cilium-version", _AGENT, _cilium("version"))
STATUS = Fact("cilium-status", _AGENT, _cilium("status", "-o", "json"))
ENDPOINTS = Fact("cilium-endpoints", _AGENT, _cilium("endpoint", "list", "-o", "json"))
ENDPOINT_MAP = Fact(
    "cilium-endpoint-map", _AGENT, _cilium("bpf", "endpoint", "list"), asks="endpoints"
)
IPCACHE = Fact("cilium-ipcache", _AGENT, _cilium("bpf", "ipcache", "list"), asks="ipcache")
POLICY_MAPS = Fact(
    "cilium-policy-maps",
    _AGENT,
    _cilium("bpf", "policy", "get", "--all", "-o", "json"),
    asks="policy",
    read=(
        *_cilium("bpf", "policy", "get", "--all", "-n"),
        *_cilium("bpf", "policy", "get", "--all"),
    ),
)
SERVICES = Fact("cilium-services", _AGENT, _cilium("service", "list", "-o", "json"))
LB_MAP = Fact("cilium-lb-map", _AGENT, _cilium("bpf", "lb", "list"), asks="lb")
CT = Fact(
    "cilium-ct",
    _AGENT,
    (
        *_cilium("bpf", "ct", "list", "global", "-d"),
        *_cilium("bpf", "ct", "list", "global"),
    ),
    by_flow=True,
    asks="ct",
)
NAT = Fact("cilium-nat", _AGENT, _cilium("bpf", "nat", "list"), by_flow=True, asks="nat")
CILIUM_NODES = Fact("cilium-nodes", _AGENT, _cilium("node", "list", "-o", "json"))
IDENTITIES = Fact("cilium-identities", _AGENT, _cilium("identity", "list", "-o", "json"))
EGRESS_GATEWAY = Fact(
    "cilium-egress-gateway", _AGENT, _cilium("bpf", "egress", "list"), asks="egress"
)
IP_MASQ = Fact("cilium-ip-masq", _AGENT, _cilium("bpf", "ipmasq", "list"), asks="ipmasq")
METRICS = Fact("cilium-metrics", _AGENT, _cilium("bpf", "metrics", "list"), asks="metrics")
CONFIG_VIEW = Fact(
    "cilium-config-view",
    (PlaceKind.CLIENT, PlaceKind.AGENT),
    (),
    read=(("cilium", "config", "view"),),
)
CGROUP_PROGRAMS = Fact(
    "cgroup-programs", _AGENT, (("bpftool", "cgroup", "tree", "/run/cilium/cgroupv2"),)
)
MONITOR = Fact("cilium-monitor", _AGENT, (), by_flow=True, read=_cilium("monitor"))


def best_record(bundle: Bundle, place: Place, question: Fact) -> Record | None:
    """Return the best record that answers a question at a place.

    Args:
        bundle: all records.
        place: where the question was asked.
        question: of this catalogue.

    Returns:
        The first form that exited with 0; else the first form that was tried, whose `why_not()`
        has the reason; None when the question was never asked there.
    """
    tried = None
    for form in question.answers:
        record = bundle.record(place, form)
        if record is None:
            continue
        if record.ok:
            return record
        tried = tried or record
    return tried
