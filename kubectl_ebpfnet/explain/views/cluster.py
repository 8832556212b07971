"""Indexes over a bundle: its objects, nodes and pods, and the owners of addresses.

Nothing here has an opinion about packets.
"""

from __future__ import annotations

from functools import cached_property

from kubectl_ebpfnet.explain.views.kube_objects import KubeObjectsView
from kubectl_ebpfnet.explain.views.netns import Netns, PodNetns
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import CiliumNode
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.evidence import Bundle, PlaceKind, Record
from kubectl_ebpfnet.model.kube import NodeRow
from kubectl_ebpfnet.model.net import Address, Network
from kubectl_ebpfnet.parse.cilium import config

NODE_IDENTITIES = range(1 << 24, 2 << 24)
"""Identities that each node gives for itself, of CIDRs and DNS names (Cilium pkg/identity)."""
REMOTE_NODE_IDENTITIES = range(2 << 24, 3 << 24)
"""Identities that each node gives for itself to the other nodes (enable-node-selector-labels): the
same number may mean another node elsewhere."""
_BY_PREFIX = ("", "kubernetes", "cluster-pool", "cluster-pool-v2beta")
"""Values of `ipam` with which each node gives pods addresses of prefixes of its own; "" unread.
Source: Cilium pkg/ipam/option."""


class ClusterView(KubeObjectsView):
    """Indexes over a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._nodes: dict[str, NodeView] = {}
        self._pods: dict[tuple[str, str], PodNetns] = {}

    def node(self, name: str) -> NodeView:
        """Return the view of a node; of an unknown node, every answer says what is missing."""
        if name not in self._nodes:
            self._nodes[name] = NodeView(
                self.bundle, name, self.settings, self.settings_record,
                lambda: self.index.agents.get(name),
            )  # fmt: skip
        return self._nodes[name]

    @property
    def unasked(self) -> tuple[tuple[str, str, Address], ...]:
        """(node, fact, address) of tables of addresses, for rows that were left out at the node."""
        nodes = self._nodes.values()
        return tuple((n.name, fact, of) for n in nodes for fact, of in n.wanted.items())

    def pod_netns(self, namespace: str, name: str) -> PodNetns:
        """Return the view of a pod's network namespace."""
        key = (namespace, name)
        if key not in self._pods:
            self._pods[key] = PodNetns(self.bundle, namespace, name)
        return self._pods[key]

    @cached_property
    def node_names(self) -> tuple[str, ...]:
        """Nodes with records, and nodes that the API listed."""
        return tuple(dict.fromkeys((*self.recorded_nodes, *self.listed_nodes)))

    @cached_property
    def recorded_nodes(self) -> tuple[str, ...]:
        """Nodes with records: `node` tells nothing of others."""
        kinds = (PlaceKind.AGENT, PlaceKind.NODE)
        names = (place.node for kind in kinds for place in self.bundle.places(kind))
        return tuple(dict.fromkeys(names))

    @cached_property
    def only_node(self) -> str:
        """The node of the bundle where records are of one node alone, else "": that of a pod of
        which no object is recorded."""
        places = (*self.bundle.places(PlaceKind.AGENT), *self.bundle.places(PlaceKind.NODE))
        names = {place.node for place in places}
        return names.pop() if len(names) == 1 else ""

    @cached_property
    def _address_nodes(self) -> dict[Address, str]:
        found: dict[Address, str] = {}
        for name, node in self.listed_nodes.items():
            for address in (*node.internal_addresses, *node.external_addresses):
                found[address] = name
        for cilium_node in self.cilium_nodes:
            for address in (*cilium_node.addresses, *cilium_node.router_addresses):
                found.setdefault(address, cilium_node.name)
        if not self.listed_nodes:
            found |= self._own_addresses | found
        return found

    @property
    def _own_addresses(self) -> dict[Address, str]:
        """The nodes' addresses as their devices have them, each on one node alone."""
        holders: dict[Address, set[str]] = {}
        for name in self.recorded_nodes:
            for fact in self.node(name)[q.ADDRESSES].facts:
                if fact.scope == "global":
                    holders.setdefault(fact.address, set()).add(name)
        return {address: names.pop() for address, names in holders.items() if len(names) == 1}

    @cached_property
    def cilium_nodes(self) -> tuple[CiliumNode, ...]:
        """Nodes as Cilium knows them: CiliumNode objects, then the agents' node lists."""
        nodes = {node.name: node for node in self.kube.cilium_nodes}
        for name in self.recorded_nodes:
            for node in self._of_this_cluster(name):
                nodes.setdefault(node.name, node)
        return tuple(nodes.values())

    def _of_this_cluster(self, name: str) -> list[CiliumNode]:
        """Return the nodes that an agent lists, without those of other clusters of a clustermesh,
        which may have the same names.

        An agent names the cluster before a node (Cilium pkg/node/types, Fullname), but for one
        that is called `default`. Which one is its own tells the setting, else the agent's node.
        """
        listed = self.node(name)[q.CILIUM_NODES].facts
        clusters = {node.cluster for node in listed}
        if len(clusters) < 2:
            return list(listed)
        said = [dict(data).get("cluster-name") for _, key, data in self.kube.config_maps
                if key == "cilium-config"]  # fmt: skip
        own = {"" if each == "default" else each for each in said if each} & clusters
        addresses = self.node(name).own_addresses
        own = own or {n.cluster for n in listed if set(n.addresses) & set(addresses)}
        own = own or {node.cluster for node in listed if node.name == name}
        return [node for node in listed if own == {node.cluster}]

    def node_of(self, address: Address) -> str:
        """Return the name of the node that has this address, "" without one."""
        return self._address_nodes.get(address, "")

    def owner_of(self, address: Address) -> str:
        """Return the node that has an address, by its objects or its own devices; "" for none."""
        named = self.node_of(address)
        if named:
            return named
        own = (name for name in self.recorded_nodes if address in self.node(name).own_addresses)
        return next(own, "")

    def internal_addresses(self, name: str) -> tuple[Address, ...]:
        """Return the InternalIPs of a node by its Node and its CiliumNode. ExternalIPs, which a
        CiliumNode does not tell apart, nodes may share."""
        return self._internal_addresses.get(name, ())

    @cached_property
    def _internal_addresses(self) -> dict[str, tuple[Address, ...]]:
        found = {name: node.internal_addresses for name, node in self.listed_nodes.items()}
        for each in self.cilium_nodes:
            listed = self.listed_nodes.get(each.name)
            if listed is None and self.listed_nodes:
                continue  # of another cluster, or of a node that is gone
            external = listed.external_addresses if listed is not None else ()
            told = each.internal_addresses if isinstance(listed, NodeRow) else each.addresses
            own = tuple(address for address in told if address not in external)
            found[each.name] = (*found.get(each.name, ()), *own)
        return found

    @cached_property
    def _holders(self) -> dict[Address, list[str]]:
        found: dict[Address, list[str]] = {}
        for name, addresses in self._internal_addresses.items():
            cilium = self._cilium_nodes_by_name.get(name)
            if cilium is None and self.cilium_nodes:
                continue  # a virtual node (Fargate, KWOK …) has a pod's address, or that of others
            router = cilium.router_addresses if cilium is not None else ()
            for address in {*addresses, *router}:
                if not address.is_link_local:  # cilium_host's is on all nodes (local-router-ipv4)
                    found.setdefault(address, []).append(name)
        return found

    def nodes_with(self, address: Address) -> tuple[str, ...]:
        """Return the nodes whose objects have an InternalIP or CiliumInternalIP: more than one
        only by a fault."""
        return tuple(self._holders.get(address, ()))

    def may_move(self, address: Address) -> bool:
        """Tell whether an address of several nodes may be a virtual one, which moves between them:
        each Node that has it has another InternalIP too."""
        told = (
            self.internal_addresses(name) if isinstance(node, NodeRow) else node.internal_addresses
            for name, node in self.listed_nodes.items()
        )
        holders = [addresses for addresses in told if address in addresses]
        return bool(holders) and all(
            any(one != address and one.version == address.version for one in addresses)
            for addresses in holders
        )

    @property
    def shared_node_addresses(self) -> dict[Address, list[str]]:
        """Addresses of `nodes_with` that several nodes have."""
        return {one: names for one, names in self._holders.items() if len(names) > 1}

    def cilium_node(self, name: str) -> CiliumNode | None:
        """Return the node as Cilium knows it, None where nothing says."""
        return self._cilium_nodes_by_name.get(name)

    @cached_property
    def _cilium_nodes_by_name(self) -> dict[str, CiliumNode]:
        return {node.name: node for node in self.cilium_nodes}

    @cached_property
    def node_addresses(self) -> frozenset[Address]:
        """Addresses of all nodes."""
        return frozenset(self._address_nodes)

    @cached_property
    def pod_cidrs(self) -> tuple[Network, ...]:
        """Prefixes of pod addresses, of all nodes."""
        prefixes = [cidr for node in self.kube.nodes for cidr in node.pod_cidrs]
        prefixes += [cidr for node in self.cilium_nodes for cidr in node.pod_cidrs]
        return tuple(dict.fromkeys(prefixes))

    @cached_property
    def prefixes(self) -> tuple[tuple[str, Network], ...]:
        """Prefixes of which nodes give pods addresses, each with its node.

        CiliumNodes say it; where none has a prefix, the Nodes do. Where Cilium allocates by itself,
        nobody looks at those of the Nodes. Without prefixes of nodes (ENI, Azure, multi-pool, a
        plugin that allocates) what stands in these fields says nothing: agents then make up one
        of the last byte of the node's address, which others may have as well.
        """
        if self.settings.ipam not in _BY_PREFIX:
            return ()
        for nodes in (self.kube.cilium_nodes, self.cilium_nodes, self.kube.nodes):
            found = tuple((node.name, cidr) for node in nodes for cidr in node.pod_cidrs)
            if found:
                return found
        return ()

    def prefix_owners(self, address: Address) -> list[tuple[str, Network]]:
        """Return the nodes that give pods addresses of a prefix with an address, and the prefix:
        more than one only by a fault."""
        found: dict[str, Network] = {}
        for name, cidr in self.prefixes:
            if address in cidr:
                found.setdefault(name, cidr)
        return list(found.items())

    def in_cluster(self, address: Address) -> bool:
        """Tell whether an address belongs to a pod, a node or a pod prefix."""
        return (
            address in self.node_addresses
            or any(address in cidr for cidr in self.pod_cidrs)
            or self.pod_with(address) is not None
        )

    @cached_property
    def _settings(self) -> tuple[DatapathConfig, Record | None]:
        for _, name, data in self.kube.config_maps:
            if name == "cilium-config":
                return config.datapath(dict(data)), self.api_record("cilium-config")
        places = (*self.bundle.places(PlaceKind.CLIENT), *self.bundle.places(PlaceKind.AGENT))
        view = Netns(self.bundle, places)[q.CONFIG_VIEW]
        return (view.facts[0], view.record) if view.facts else (DatapathConfig(), None)

    @property
    def settings(self) -> DatapathConfig:
        """The cluster's settings for Cilium."""
        return self._settings[0]

    @property
    def settings_record(self) -> Record | None:
        """The record of the settings, None without one."""
        return self._settings[1]

    @cached_property
    def identity_labels(self) -> dict[int, tuple[str, ...]]:
        """Labels of security identities, from every source."""
        found: dict[int, tuple[str, ...]] = {}
        for identity in self.kube.identities:
            found.setdefault(identity.id, identity.labels)
        for endpoint, _ in self.kube.cilium_endpoints:
            found.setdefault(endpoint.identity, endpoint.labels)
        of_nodes: dict[int, set[tuple[str, ...]]] = {}
        for name in self.recorded_nodes:
            node = self.node(name)
            for endpoint in node[q.ENDPOINTS].facts:
                found.setdefault(endpoint.identity, endpoint.labels)
            listed = {identity.id: identity.labels for identity in node[q.IDENTITIES].facts}
            for number, labels in listed.items():
                if number in NODE_IDENTITIES or number in REMOTE_NODE_IDENTITIES:
                    of_nodes.setdefault(number, set()).add(labels)
                else:
                    found.setdefault(number, labels)
            for entry in node[q.IPCACHE].facts:
                if entry.identity in NODE_IDENTITIES and entry.identity not in listed:
                    named = (f"cidr:{entry.prefix}",)
                    of_nodes.setdefault(entry.identity, set()).add(named)
        # Nodes number these identities for themselves: a number may mean two things.
        found.update(
            {number: labels.pop() for number, labels in of_nodes.items() if len(labels) == 1}
        )
        return found
