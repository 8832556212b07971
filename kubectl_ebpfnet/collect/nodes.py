"""What a live `path` reads of nodes: all of a few; of many, the Nodes on the way.

Who has an address no selector of the API server can ask: of many nodes a table tells it, with the
CiliumNodes, which have every address and prefix of pods that Cilium takes from the Nodes (Cilium
pkg/nodediscovery). The object of a node is then read where the packet comes to it, by its name.
Nodes without a CiliumNode, as virtual ones, are read as well: `lists.of_nodes`
(explain/views/lists.py) asks for this. docs/architecture.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import cached_property, partial

from kubectl_ebpfnet.cluster.client.api import CILIUM, CORE, Made, MoreThanWanted, Objects, T
from kubectl_ebpfnet.collect.ask.api import RecordingApi
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.errors import ApiError, ClusterError, NotFound
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.kube import Node
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse import kube

FEW = 200
"""Nodes up to which all are read whole: a Node with 50 images costs the client 0.4 ms."""
WITHOUT_CILIUM = 20
"""Nodes without a CiliumNode that are read one by one."""
_NODES, _CILIUM_NODES = f"{CORE}/nodes", f"{CILIUM}/ciliumnodes"


@dataclass(frozen=True, slots=True)
class ListedNodes:
    """All nodes; `by_rows`: with the addresses alone that the server's table has."""

    nodes: list[Node]
    by_rows: bool = False


@dataclass(frozen=True, slots=True)
class _Named:
    """A CiliumNode's name and its addresses, as texts."""

    name: str
    addresses: frozenset[str]


def listed_nodes(api: RecordingApi) -> ListedNodes:
    """Return all nodes; none where they cannot be listed, as the record says."""
    whole = partial(api.list_of, _NODES, lambda page: [*map(kube.node, page)])
    try:
        found = _few(whole)
        return ListedNodes(found) if found is not None else _by_rows(api, whole)
    except ClusterError:
        return ListedNodes([])


def _few(read: Callable[..., Made[T]]) -> Made[T] | None:
    """Return what a list of few objects gives, None where they are many."""
    try:
        return read(most=FEW)
    except MoreThanWanted:
        return None


def _by_rows(api: RecordingApi, whole: Callable[[], list[Node]]) -> ListedNodes:
    try:
        rows = api.node_rows()
    except ApiError:  # no table
        return ListedNodes(whole())
    nodes = [Node(name, js.addresses([own]), js.addresses([out])) for name, own, out in rows]
    return ListedNodes(nodes, by_rows=True)


class NodeReads:
    """The reads of a run. Its methods run in the run's thread."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer, self._api = gatherer, gatherer.api
        self._first: Future[Objects | None] = gatherer.start(self._few_of_cilium)
        self._all: Future[list[_Named]] | None = None
        self._read: set[str] = set()

    def _few_of_cilium(self) -> Objects | None:
        try:
            return _few(partial(self._api.list_of, _CILIUM_NODES, lambda page: page))
        except NotFound:
            return []  # no Cilium, or another one

    @cached_property
    def _told(self) -> tuple[Objects | None, str]:
        """The CiliumNodes of a few, None of many; and why they are not known. They are waited for
        once: places have to be asked, too."""
        return self._gatherer.tried(self._first, 0.5)

    @cached_property
    def many(self) -> bool:
        """There are many CiliumNodes: those on the way are read by name, beside the list of all."""
        found, failed = self._told
        many = found is None and not failed
        if many:
            named = partial(self._api.list_of, _CILIUM_NODES, lambda page: [*map(_named, page)])
            self._all = self._gatherer.start(named)
        return many

    def cilium_nodes(self, names: Iterable[str]) -> Objects:
        """Return all CiliumNodes of a few, or of many those of the named nodes; [] where they
        cannot be read."""
        if not self.many:
            return self._told[0] or []
        reads = self.by_name(names)
        return [each for read in reads for each in self._gatherer.tried(read, 0.5)[0] or []]

    def by_name(self, names: Iterable[str]) -> list[Future[Objects]]:
        """Start to read Node and CiliumNode of nodes on the way, where not all are read whole;
        return the reads of the CiliumNodes."""
        if not self.many:
            return []
        new = [name for name in dict.fromkeys(names) if name and name not in self._read]
        self._read.update(new)
        self._gatherer.read(partial(self._named, _NODES, name) for name in new)
        return [self._gatherer.start(partial(self._named, _CILIUM_NODES, n)) for n in new]

    def _named(self, path: str, name: str) -> Objects:
        return self._api.list(path, field_selector=f"metadata.name={name}")

    def complete(self, listed: ListedNodes, address: Address | None) -> list[Node]:
        """Read what the tables of many nodes do not tell; return the nodes that have an address by
        their CiliumNodes alone.

        Args:
            listed: all nodes.
            address: of the destination, None for an object.
        """
        if not listed.by_rows:
            return []
        told = self._gatherer.tried(self._all)[0] if self.many and self._all is not None else None
        known = self._read.union(each.name for each in told or ())
        left = [node.name for node in listed.nodes if node.name not in known]
        if len(left) > WITHOUT_CILIUM:
            self._gatherer.read([partial(self._api.list_of, _NODES, lambda _: [])])
        else:
            self._gatherer.read(partial(self._named, _NODES, name) for name in left)
        if address is None:
            return []
        text = str(address)
        return [Node(one.name, (address,)) for one in told or () if text in one.addresses]


def _named(value: object) -> _Named:
    addresses = (js.text(item, "ip") for item in js.items(value, "spec", "addresses"))
    return _Named(js.text(value, "metadata", "name"), frozenset(addresses))
