"""Indexes over a bundle: what each place said, parsed once, with the record it came from.

Nothing here has an opinion about packets. An answer that is missing carries the reason, in
words that a hop can show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address
from typing import Any, Generic, TypeVar

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain import readers
from kubectl_ebpfnet.model import questions as q
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
    MonitorEvent,
    NatEntry,
    PolicyEntry,
)
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    Place,
    PlaceKind,
    Record,
    agent_place,
    matching_lines,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.kernel import (
    Attachment,
    BpfPin,
    InterfaceAddress,
    Link,
    Neighbour,
    Program,
    Route,
    Rule,
    Ruleset,
)
from kubectl_ebpfnet.model.kube import KubeObjects, Node, Pod
from kubectl_ebpfnet.model.net import Address, Flow, Network
from kubectl_ebpfnet.parse import (
    cilium_config,
    cilium_ct,
    cilium_monitor,
    cilium_nat,
    conntrack,
    kube,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a place said to a question.

    Attributes:
        facts: parsed; () when nothing was said or the table is empty.
        record: where they stand, None when the question was never asked there.
        missing: why there are no facts, one sentence; "" when the place did answer.
    """

    facts: tuple[T, ...] = ()
    record: Record | None = None
    missing: str = ""

    @property
    def known(self) -> bool:
        """Whether the place answered, be it with an empty table."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class Said(Generic[T]):
    """One fact out of a table too long to be read whole, with the line that says it."""

    fact: T
    record: Record
    number: int
    text: str


class Netns:
    """The network namespace of a pod or a node, as its commands show it."""

    def __init__(self, bundle: Bundle, places: Sequence[Place]) -> None:
        self.bundle = bundle
        self.places = tuple(places)

    def ask(self, question: q.Question, table: Sequence[Any]) -> Answer[Any]:
        """The parsed answer of the first place that gives one."""
        missing = ""
        failed = None
        for place in self.places:
            record = q.answer(self.bundle, place, question)
            if record is None:
                continue
            if not record.ok:
                missing = missing or record.why_not()
                failed = failed or record
                continue
            try:
                return Answer(tuple(readers.read(record, table)), record)
            except ParseError as error:
                missing, failed = str(error), record
        return Answer((), failed, missing or self._never_asked(question))

    def _never_asked(self, question: q.Question) -> str:
        for place in self.places:
            for record in self.bundle.at(place):
                if not record.ran and record.error:
                    return record.error
        place = self.places[-1]
        if not any(self.bundle.at(place) for place in self.places):
            return f"nothing is recorded of {place}"
        return f"no `{' '.join(question.forms[0])}` of {place} is recorded"


class PodNetns(Netns):
    """A pod's own namespace."""

    def __init__(self, bundle: Bundle, namespace: str, name: str) -> None:
        super().__init__(bundle, (pod_place(namespace, name),))

    @cached_property
    def links(self) -> Answer[Link]:
        """Devices in the pod."""
        return self.ask(q.POD_ADDRESSES, readers.LINKS)

    @cached_property
    def addresses(self) -> Answer[InterfaceAddress]:
        """Addresses in the pod."""
        return self.ask(q.POD_ADDRESSES, readers.ADDRESSES)

    @cached_property
    def neighbours(self) -> Answer[Neighbour]:
        """The pod's neighbour table."""
        return self.ask(q.POD_NEIGHBOURS, readers.NEIGHBOURS)

    @cached_property
    def iflink(self) -> Answer[int]:
        """ifindex of the host side of eth0."""
        return self.ask(q.POD_IFLINK, readers.IFLINK)

    def routes(self, version: int) -> Answer[Route]:
        """The pod's routes of one IP version."""
        return self.ask(q.POD_ROUTES if version == 4 else q.POD_ROUTES6, readers.ROUTES)


class NodeView(Netns):
    """A node: its namespace, and what Cilium's agent there says."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world.bundle, (agent_place(name), node_place(name)))
        self.world = world
        self.name = name

    @cached_property
    def links(self) -> Answer[Link]:
        """Devices of the node."""
        return self.ask(q.LINKS, readers.LINKS)

    @cached_property
    def addresses(self) -> Answer[InterfaceAddress]:
        """Addresses of the node's devices."""
        return self.ask(q.ADDRESSES, readers.ADDRESSES)

    @cached_property
    def routes(self) -> Answer[Route]:
        """Every routing table that could be read."""
        return self.ask(q.ROUTES, readers.ROUTES)

    @cached_property
    def rules(self) -> Answer[Rule]:
        """The routing policy database."""
        return self.ask(q.RULES, readers.RULES)

    @cached_property
    def neighbours(self) -> Answer[Neighbour]:
        """The node's neighbour table."""
        return self.ask(q.NEIGHBOURS, readers.NEIGHBOURS)

    def ruleset(self, version: int) -> Answer[Ruleset]:
        """Netfilter's rules for one IP version; one fact, or none."""
        return self.ask(q.NETFILTER if version == 4 else q.NETFILTER6, readers.NETFILTER)

    @cached_property
    def bpf_net(self) -> Answer[Attachment]:
        """Programs at devices, by bpftool net."""
        return self.ask(q.BPF_NET, readers.BPF_NET)

    @cached_property
    def bpf_links(self) -> Answer[Attachment]:
        """Programs held by bpf_links."""
        return self.ask(q.BPF_LINKS, readers.BPF_LINKS)

    @cached_property
    def programs(self) -> Answer[Program]:
        """Loaded programs."""
        return self.ask(q.BPF_PROGRAMS, readers.BPF_PROGRAMS)

    @cached_property
    def pins(self) -> Answer[BpfPin]:
        """Files on bpffs."""
        return self.ask(q.BPF_PINS, readers.BPF_PINS)

    @cached_property
    def endpoints(self) -> Answer[Endpoint]:
        """Cilium's endpoints on this node."""
        return self.ask(q.ENDPOINTS, readers.ENDPOINTS)

    @cached_property
    def endpoint_map(self) -> Answer[LocalEndpoint]:
        """The datapath's own table of local endpoints."""
        return self.ask(q.ENDPOINT_MAP, readers.ENDPOINT_MAP)

    @cached_property
    def ipcache(self) -> Answer[IpcacheEntry]:
        """Prefix to identity and tunnel endpoint."""
        return self.ask(q.IPCACHE, readers.IPCACHE)

    @cached_property
    def policy(self) -> Answer[PolicyEntry]:
        """Every endpoint's policy map."""
        return self.ask(q.POLICY_MAPS, readers.POLICY)

    @cached_property
    def services(self) -> Answer[Frontend]:
        """Frontends as the agent knows them, with the state of backends."""
        return self.ask(q.SERVICES, readers.SERVICES)

    @cached_property
    def lb_map(self) -> Answer[Frontend]:
        """Frontends as the datapath's maps have them."""
        return self.ask(q.LB_MAP, readers.LB_MAP)

    @cached_property
    def egress_gateway(self) -> Answer[EgressGatewayPolicy]:
        """Egress gateway policies."""
        return self.ask(q.EGRESS_GATEWAY, readers.EGRESS_GATEWAY)

    @cached_property
    def ip_masq(self) -> Answer[Network]:
        """Destinations that ip-masq-agent spares."""
        return self.ask(q.IP_MASQ, readers.IP_MASQ)

    @cached_property
    def identities(self) -> Answer[Identity]:
        """Identities known to the agent."""
        return self.ask(q.IDENTITIES, readers.IDENTITIES)

    @cached_property
    def config(self) -> DatapathConfig:
        """How the datapath is set up: the agent's status, then the cluster's settings."""
        status = self.ask(q.STATUS, readers.STATUS)
        from_status = status.facts[0] if status.facts else DatapathConfig()
        return cilium_config.merge(from_status, self.world.settings)

    @cached_property
    def config_record(self) -> Record | None:
        """The record that `config` mostly comes from."""
        status = self.ask(q.STATUS, readers.STATUS)
        if status.known:
            return status.record
        return self.world.settings_record

    def ct(self, needles: Sequence[str]) -> Iterator[Said[CtEntry]]:
        """Entries of Cilium's conntrack whose line has one of the needles."""
        for record, number, line in self._streamed(q.CT, needles):
            try:
                entry = cilium_ct.entry(line, number)
            except ParseError:
                continue
            if entry is not None:
                yield Said(entry, record, number, line.decode("utf-8", "replace"))

    def nat(self, needles: Sequence[str]) -> Iterator[Said[NatEntry]]:
        """Entries of Cilium's NAT whose line has one of the needles."""
        for record, number, line in self._streamed(q.NAT, needles):
            try:
                entry = cilium_nat.entry(line, number)
            except ParseError:
                continue
            if entry is not None:
                yield Said(entry, record, number, line.decode("utf-8", "replace"))

    def nf(self, needles: Sequence[str]) -> Iterator[Said[ConntrackEntry]]:
        """Entries of nf_conntrack whose line has one of the needles."""
        for record, number, line in self._streamed(q.CONNTRACK, needles):
            try:
                entry = conntrack.entry(line, number)
            except ParseError:
                continue
            if entry is not None:
                yield Said(entry, record, number, line.decode("utf-8", "replace"))

    def drops(self, flow: Flow) -> Iterator[Said[MonitorEvent]]:
        """Drops of a flow that `cilium monitor` showed, where a capture has its output."""
        for record, number, line in self._streamed(q.MONITOR, [str(flow.source)]):
            try:
                event = cilium_monitor.event(line, number)
            except ParseError:
                continue
            if event is not None and event.kind == "drop" and event.flow is not None:
                same = (flow.source, flow.destination, flow.protocol, flow.destination_port)
                seen = event.flow
                if same == (
                    seen.source, seen.destination, seen.protocol, seen.destination_port,
                ):  # fmt: skip
                    yield Said(event, record, number, line.decode("utf-8", "replace"))

    def table_state(self, question: q.Question) -> Answer[None]:
        """Whether a streamed table could be read; `missing` says why not."""
        for place in self.places:
            record = q.answer(self.bundle, place, question)
            if record is not None:
                return Answer((), record, "" if record.ok else record.why_not())
        return Answer((), None, self._never_asked(question))

    def _streamed(
        self, question: q.Question, needles: Sequence[str]
    ) -> Iterator[tuple[Record, int, bytes]]:
        encoded = [needle.encode() for needle in needles]
        for place in self.places:
            record = q.answer(self.bundle, place, question)
            if record is None or not record.ok:
                continue
            for number, line in matching_lines(record.stdout, encoded):
                yield record, number, line
            return

    def local_endpoint(self, address: Address) -> Endpoint | None:
        """The endpoint with this address, by the agent, then by the endpoints map."""
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

    def link_name(self, index: int | None) -> str:
        """The device with this ifindex, "" when there is none."""
        for link in self.links.facts:
            if link.index == index:
                return link.name
        return ""

    def link(self, name: str) -> Link | None:
        """The device of this name."""
        return next((link for link in self.links.facts if link.name == name), None)

    def addresses_of(self, device: str, version: int) -> tuple[Address, ...]:
        """Global addresses of a device."""
        return tuple(
            fact.address
            for fact in self.addresses.facts
            if fact.device == device and fact.scope == "global" and fact.address.version == version
        )

    @cached_property
    def router_addresses(self) -> frozenset[Address]:
        """Addresses of cilium_host: what the pods here have as their gateway."""
        facts = (*self.addresses.facts, *self.ask(q.ROUTER_DEVICE, readers.ADDRESSES).facts)
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
        """The longest prefix of the ipcache that holds the address."""
        holding = (
            entry
            for entry in self.ipcache.facts
            if address.version == entry.prefix.version and address in entry.prefix
        )
        return max(holding, key=lambda entry: entry.prefix.prefixlen, default=None)


class World:
    """A bundle and everything that can be looked up in it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._nodes: dict[str, NodeView] = {}
        self._pods: dict[tuple[str, str], PodNetns] = {}

    @cached_property
    def kube(self) -> KubeObjects:
        """Every Kubernetes object of the bundle."""
        merged = KubeObjects()
        for record in self.bundle.records:
            if record.place.kind is PlaceKind.API and record.ok:
                try:
                    merged = merged.merged(kube.objects(record.stdout.read()))
                except ParseError:
                    continue
        return merged

    def node(self, name: str) -> NodeView:
        """The view of a node; every answer in it says what is missing when nothing is known."""
        if name not in self._nodes:
            self._nodes[name] = NodeView(self, name)
        return self._nodes[name]

    def pod_netns(self, namespace: str, name: str) -> PodNetns:
        """A pod's own namespace."""
        key = (namespace, name)
        if key not in self._pods:
            self._pods[key] = PodNetns(self.bundle, namespace, name)
        return self._pods[key]

    @cached_property
    def node_names(self) -> tuple[str, ...]:
        """Nodes that anything is recorded of, or that the API named."""
        names = [
            place.node
            for kind in (PlaceKind.AGENT, PlaceKind.NODE)
            for place in self.bundle.places(kind)
        ]
        names += [node.name for node in self.kube.nodes]
        return tuple(dict.fromkeys(names))

    def pod(self, namespace: str, name: str) -> Pod | None:
        """The pod object."""
        for pod in self.kube.pods:
            if (pod.namespace, pod.name) == (namespace, name):
                return pod
        return None

    def pod_with(self, address: Address) -> Pod | None:
        """The pod that has this address of its own (not one that shares the node's)."""
        for pod in self.kube.pods:
            if address in pod.addresses and not pod.host_network:
                return pod
        return None

    def kube_node(self, name: str) -> Node | None:
        """The node object."""
        return next((node for node in self.kube.nodes if node.name == name), None)

    @cached_property
    def _address_nodes(self) -> dict[Address, str]:
        found: dict[Address, str] = {}
        for node in self.kube.nodes:
            for address in (*node.internal_addresses, *node.external_addresses):
                found[address] = node.name
        for cilium_node in self.cilium_nodes:
            for address in (*cilium_node.addresses, *cilium_node.router_addresses):
                found.setdefault(address, cilium_node.name)
        return found

    @cached_property
    def cilium_nodes(self) -> tuple[CiliumNode, ...]:
        """Nodes as Cilium knows them: objects first, then what agents list."""
        nodes = {node.name: node for node in self.kube.cilium_nodes}
        for name in self.node_names:
            for node in self.node(name).ask(q.CILIUM_NODES, readers.NODES).facts:
                nodes.setdefault(node.name, node)
        return tuple(nodes.values())

    def node_of(self, address: Address) -> str:
        """The node that owns an address of its own; "" when none does."""
        return self._address_nodes.get(address, "")

    @property
    def node_addresses(self) -> frozenset[Address]:
        """Every node's own addresses."""
        return frozenset(self._address_nodes)

    @cached_property
    def pod_cidrs(self) -> tuple[Network, ...]:
        """Prefixes that pods get their addresses from."""
        prefixes = [cidr for node in self.kube.nodes for cidr in node.pod_cidrs]
        prefixes += [cidr for node in self.cilium_nodes for cidr in node.pod_cidrs]
        return tuple(dict.fromkeys(prefixes))

    def in_cluster(self, address: Address) -> bool:
        """Whether an address belongs to a pod, a node or a pod prefix."""
        return (
            address in self.node_addresses
            or any(address.version == cidr.version and address in cidr for cidr in self.pod_cidrs)
            or self.pod_with(address) is not None
        )

    @cached_property
    def _settings(self) -> tuple[DatapathConfig, Record | None]:
        for _, name, data in self.kube.config_maps:
            if name == "cilium-config":
                return cilium_config.datapath(dict(data)), self._record_with("cilium-config")
        for place in self.bundle.places(PlaceKind.CLIENT) + self.bundle.places(PlaceKind.AGENT):
            record = q.answer(self.bundle, place, q.CONFIG_VIEW)
            if record is not None and record.ok:
                try:
                    return cilium_config.datapath(
                        cilium_config.settings(record.stdout.read())
                    ), record
                except ParseError:
                    continue
        return DatapathConfig(), None

    @property
    def settings(self) -> DatapathConfig:
        """The cluster's settings for Cilium."""
        return self._settings[0]

    @property
    def settings_record(self) -> Record | None:
        """Where the settings stand."""
        return self._settings[1]

    def _record_with(self, word: str) -> Record | None:
        for record in self.bundle.records:
            if record.place.kind is PlaceKind.API and word in record.argv:
                return record
        return None

    def api_record(self, *words: str) -> Record | None:
        """The first API record whose argv has one of the words."""
        for record in self.bundle.records:
            if record.place.kind is PlaceKind.API and record.ok and set(words) & set(record.argv):
                return record
        return None

    @cached_property
    def identity_labels(self) -> dict[int, tuple[str, ...]]:
        """Labels of identities, from every source that names them."""
        found: dict[int, tuple[str, ...]] = {}
        for identity in self.kube.identities:
            found.setdefault(identity.id, identity.labels)
        for endpoint, _ in self.kube.cilium_endpoints:
            found.setdefault(endpoint.identity, endpoint.labels)
        for name in self.node_names:
            node = self.node(name)
            for endpoint in node.endpoints.facts:
                found.setdefault(endpoint.identity, endpoint.labels)
            for identity in node.identities.facts:
                found.setdefault(identity.id, identity.labels)
        return found


def expanded(address: Address) -> str:
    """The address as nf_conntrack's procfs file prints it: IPv6 in full."""
    return address.exploded if isinstance(address, IPv6Address) else str(address)
