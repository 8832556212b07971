"""A node: its network namespace and the state of Cilium's agent, each parsed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from ipaddress import IPv6Address
from typing import TypeVar

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import readers
from kubectl_ebpfnet.explain.views.answer import Answer, FactLine
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import (
    CtEntry,
    DatapathConfig,
    EgressGatewayPolicy,
    Endpoint,
    Frontend,
    Identity,
    IpcacheEntry,
    LocalEndpoint,
    MonitorEvent,
    NatEntry,
    PolicyEntry,
)
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Bundle, Record, agent_place, matching_lines, node_place
from kubectl_ebpfnet.model.kernel import (
    Attachment,
    BpfPin,
    Counter,
    InterfaceAddress,
    Link,
    Neighbour,
    Program,
    Route,
    Rule,
    Ruleset,
)
from kubectl_ebpfnet.model.net import Address, Flow, Network
from kubectl_ebpfnet.parse import conntrack, node_side
from kubectl_ebpfnet.parse.cilium import config as cilium_config
from kubectl_ebpfnet.parse.cilium import ct as cilium_ct
from kubectl_ebpfnet.parse.cilium import monitor
from kubectl_ebpfnet.parse.cilium import nat as cilium_nat

T = TypeVar("T")


class NodeView(Netns):
    """A node: its network namespace and the state of Cilium's agent."""

    def __init__(
        self, bundle: Bundle, name: str, settings: DatapathConfig, settings_record: Record | None
    ) -> None:
        """View a node.

        Args:
            bundle: all records.
            name: of the node, as in Kubernetes.
            settings: Cilium's in the whole cluster; the agent's own status overrides them.
            settings_record: the record of these settings, None when there is none.
        """
        super().__init__(bundle, (agent_place(name), node_place(name)))
        self.name = name
        self._settings = settings
        self._settings_record = settings_record
        self._rulesets: dict[int, Answer[Ruleset]] = {}

    @cached_property
    def links(self) -> Answer[Link]:
        """Devices of the node."""
        return self.answer(q.LINKS, readers.LINKS)

    @cached_property
    def addresses(self) -> Answer[InterfaceAddress]:
        """Addresses of the node's devices."""
        return self.answer(q.ADDRESSES, readers.ADDRESSES)

    @cached_property
    def routes(self) -> Answer[Route]:
        """Routes of every table that was read."""
        return self.answer(q.ROUTES, readers.ROUTES)

    @cached_property
    def rules(self) -> Answer[Rule]:
        """The routing policy database."""
        return self.answer(q.RULES, readers.RULES)

    @cached_property
    def neighbours(self) -> Answer[Neighbour]:
        """The node's neighbour table."""
        return self.answer(q.NEIGHBOURS, readers.NEIGHBOURS)

    def ruleset(self, version: int) -> Answer[Ruleset]:
        """Return netfilter's rules of one IP version; one fact, or none."""
        if version not in self._rulesets:
            question = q.NETFILTER if version == 4 else q.NETFILTER6
            self._rulesets[version] = self.answer(question, readers.NETFILTER)
        return self._rulesets[version]

    @cached_property
    def attachments(self) -> Answer[Attachment]:
        """Programs at every hook, in the order in which they run, by the node side."""
        return self.answer(q.ATTACHMENTS, readers.NODE_SIDE)

    @cached_property
    def counters(self) -> Answer[Counter]:
        """Counters of drops, by the node side."""
        return self.answer(q.COUNTERS, readers.NODE_SIDE)

    @cached_property
    def cgroup_programs(self) -> Answer[Attachment]:
        """Programs of cgroups, by bpftool cgroup."""
        return self.answer(q.CGROUP_PROGRAMS, readers.CGROUP_PROGRAMS)

    @cached_property
    def bpf_net(self) -> Answer[Attachment]:
        """Programs at devices, by bpftool net."""
        return self.answer(q.BPF_NET, readers.BPF_NET)

    @cached_property
    def bpf_links(self) -> Answer[Attachment]:
        """Programs held by bpf_links.

        bpftool lists the links of every network namespace, and looks the number of a device up in
        its own: such a link seems to be at a device of the node. Where bpftool knows a link's type,
        its `net show` lists only links of this namespace.
        """
        answer, net = self.answer(q.BPF_LINKS, readers.BPF_LINKS), self.bpf_net
        if not net.known:
            return answer
        here = {(a.device, a.program_id) for a in net.facts}
        facts = tuple(
            a for a in answer.facts if not (a.hook and a.device) or (a.device, a.program_id) in here
        )
        return replace(answer, facts=facts)

    @cached_property
    def programs(self) -> Answer[Program]:
        """Loaded programs."""
        return self.answer(q.BPF_PROGRAMS, readers.BPF_PROGRAMS)

    @cached_property
    def pins(self) -> Answer[BpfPin]:
        """Files on bpffs."""
        return self.answer(q.BPF_PINS, readers.BPF_PINS)

    @cached_property
    def endpoints(self) -> Answer[Endpoint]:
        """Cilium's endpoints on this node."""
        return self.answer(q.ENDPOINTS, readers.ENDPOINTS)

    @cached_property
    def endpoint_map(self) -> Answer[LocalEndpoint]:
        """The datapath's own table of local endpoints."""
        return self.answer(q.ENDPOINT_MAP, readers.ENDPOINT_MAP)

    @cached_property
    def ipcache(self) -> Answer[IpcacheEntry]:
        """Prefix to identity and tunnel endpoint."""
        return self.answer(q.IPCACHE, readers.IPCACHE)

    @cached_property
    def policy(self) -> Answer[PolicyEntry]:
        """Every endpoint's policy map."""
        return self.answer(q.POLICY_MAPS, readers.POLICY)

    @cached_property
    def services(self) -> Answer[Frontend]:
        """Frontends as the agent knows them, with the state of backends."""
        return self.answer(q.SERVICES, readers.SERVICES)

    @cached_property
    def lb_map(self) -> Answer[Frontend]:
        """Frontends as the datapath's maps have them."""
        return self.answer(q.LB_MAP, readers.LB_MAP)

    @cached_property
    def egress_gateway(self) -> Answer[EgressGatewayPolicy]:
        """Egress gateway policies."""
        return self.answer(q.EGRESS_GATEWAY, readers.EGRESS_GATEWAY)

    @cached_property
    def ip_masq(self) -> Answer[Network]:
        """Destinations that ip-masq-agent exempts from masquerading."""
        return self.answer(q.IP_MASQ, readers.IP_MASQ)

    @cached_property
    def identities(self) -> Answer[Identity]:
        """Identities known to the agent."""
        return self.answer(q.IDENTITIES, readers.IDENTITIES)

    @cached_property
    def config(self) -> DatapathConfig:
        """How the datapath is set up: the agent's status, then the cluster's settings."""
        status = self.answer(q.STATUS, readers.STATUS)
        from_status = status.facts[0] if status.facts else DatapathConfig()
        return cilium_config.merge(from_status, self._settings)

    @cached_property
    def config_record(self) -> Record | None:
        """The record that `config` mostly comes from."""
        status = self.answer(q.STATUS, readers.STATUS)
        if status.known:
            return status.record
        return self._settings_record

    def ct(self, needles: Sequence[str]) -> Iterator[FactLine[CtEntry]]:
        """Yield entries of Cilium's conntrack whose line has any of the needles."""
        yield from self._parsed_lines(q.CT, cilium_ct.entry, needles)

    def nat(self, needles: Sequence[str]) -> Iterator[FactLine[NatEntry]]:
        """Yield entries of Cilium's NAT whose line has any of the needles."""
        yield from self._parsed_lines(q.NAT, cilium_nat.entry, needles)

    def nf(self, needles: Sequence[str]) -> Iterator[FactLine[ConntrackEntry]]:
        """Yield entries of nf_conntrack whose line has any of the needles."""
        yield from self._parsed_lines(q.CONNTRACK, conntrack.entry, needles)

    def _parsed_lines(
        self, question: q.Fact, read: Callable[[bytes, int], T | None], needles: Sequence[str]
    ) -> Iterator[FactLine[T]]:
        """Yield the facts of a streamed table; skip lines without a fact."""
        for record, number, line in self._matching_lines(question, needles):
            try:
                if node_side.is_node_question(record.argv):
                    entry: T | None = node_side.fact(line, number, record.argv)
                else:
                    entry = read(line, number)
            except ParseError:
                continue
            if entry is not None:
                yield FactLine(entry, record, number, line.decode("utf-8", "replace"))

    def drops(self, flow: Flow) -> Iterator[FactLine[MonitorEvent]]:
        """Yield drops of a flow that `cilium monitor` shows, where a capture has its output."""
        wanted = (flow.source, flow.destination, flow.protocol, flow.destination_port)
        for line in self._parsed_lines(q.MONITOR, monitor.event, [str(flow.source)]):
            seen = line.fact.flow
            if line.fact.kind != "drop" or seen is None:
                continue
            if wanted == (seen.source, seen.destination, seen.protocol, seen.destination_port):
                yield line

    def table_state(self, question: q.Fact) -> Answer[None]:
        """Return an answer without facts that tells whether a streamed table was read."""
        for place in self.places:
            record = q.best_record(self.bundle, place, question)
            if record is not None:
                return Answer((), record, "" if record.ok else record.why_not())
        return Answer((), None, self._never_asked(question))

    def _matching_lines(
        self, question: q.Fact, needles: Sequence[str]
    ) -> Iterator[tuple[Record, int, bytes]]:
        encoded = [needle.encode() for needle in needles]
        for place in self.places:
            record = q.best_record(self.bundle, place, question)
            if record is None or not record.ok:
                continue
            for number, line in matching_lines(record.stdout, encoded):
                yield record, number, line
            return

    def local_endpoint(self, address: Address) -> Endpoint | None:
        """Return the endpoint with this address, by the agent, then by the endpoints map."""
        for endpoint in self.endpoints.facts:
            if address in endpoint.addresses:
                return endpoint
        for row in self.endpoint_map.facts:
            if row.address == address and not row.host and row.endpoint_id is not None:
                return Endpoint(
                    id=row.endpoint_id,
                    identity=row.identity or 0,
                    addresses=(address,),
                    mac=row.mac,
                    host_mac=row.node_mac,
                    ifindex=row.ifindex,
                    interface=self.link_name(row.ifindex),
                    line=row.line,
                )
        return None

    def endpoint_at(self, device: str) -> int | None:
        """Return the id of the endpoint with this host side device, None without one."""
        for endpoint in self.endpoints.facts:
            if endpoint.interface == device:
                return endpoint.id
        link = self.link(device)
        for row in self.endpoint_map.facts:
            if link is not None and row.ifindex == link.index and not row.host:
                return row.endpoint_id
        return None

    def link_name(self, index: int | None) -> str:
        """Return the name of the device with this ifindex, "" without one."""
        return next((link.name for link in self.links.facts if link.index == index), "")

    def link(self, name: str) -> Link | None:
        """Return the device of this name, None without one."""
        return next((link for link in self.links.facts if link.name == name), None)

    def addresses_of(self, device: str, version: int) -> tuple[Address, ...]:
        """Return the global addresses of a device in one IP version."""
        return tuple(
            fact.address
            for fact in self.addresses.facts
            if fact.device == device and fact.scope == "global" and fact.address.version == version
        )

    @cached_property
    def router_addresses(self) -> frozenset[Address]:
        """Addresses of cilium_host, the gateway of the node's pods."""
        facts = (*self.addresses.facts, *self.answer(q.ROUTER_DEVICE, readers.ADDRESSES).facts)
        return frozenset(fact.address for fact in facts if fact.device == "cilium_host")

    @cached_property
    def own_addresses(self) -> frozenset[Address]:
        """Addresses that are delivered to the node itself."""
        own = {fact.address for fact in self.addresses.facts}
        own.update(
            route.destination.network_address
            for route in self.routes.facts
            if route.type == "local" and route.destination.num_addresses == 1
        )
        return frozenset(own)

    def ipcache_of(self, address: Address) -> IpcacheEntry | None:
        """Return the ipcache entry with the longest prefix that holds the address."""
        holding = (entry for entry in self.ipcache.facts if address in entry.prefix)
        return max(holding, key=lambda entry: entry.prefix.prefixlen, default=None)


def expanded(address: Address) -> str:
    """Return the address as nf_conntrack's procfs file prints it: IPv6 in full."""
    return address.exploded if isinstance(address, IPv6Address) else str(address)
