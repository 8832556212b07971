"""Collect the records of a live `path`: ask the API server, then the places the packet passes.

    1  the API server: source, destination, agents, nodes, settings, policies; side by side
    2  the source pod and its node; the nodes at the far end as soon as they are known (survey.py)
    3  a third node, only where the records of the first two lead the packet, or its answer, there:
       an egress gateway, a node that routes or load-balances for others

Only a missing source, or a missing object as destination, can end the run; every other failure is a
record with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.cluster.client.api import CILIUM
from kubectl_ebpfnet.collect.ask.unasked import EXEC, unavailable_record
from kubectl_ebpfnet.collect.destination import (
    FarEnd,
    destination_object,
    far_end_of_address,
    far_end_of_object,
)
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.collect.nodes import ListedNodes, NodeReads, listed_nodes
from kubectl_ebpfnet.collect.policies import PolicyReads
from kubectl_ebpfnet.collect.sender import Sender, find_sender, of_its_pod
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    Place,
    Record,
    agent_place,
    node_place,
    pod_place,
)
from kubectl_ebpfnet.model.fact import Need
from kubectl_ebpfnet.model.kube import Pod, Service
from kubectl_ebpfnet.model.net import UDP, Address
from kubectl_ebpfnet.model.request import Further, PathRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.scope import Scope
    from kubectl_ebpfnet.model.fact import Fact

FAR_NODES = 3
"""How many nodes of the far end are asked, and how many of its pods."""
MORE_FACTS = 8
"""How many facts a round asks of nodes that were asked before."""
MORE_ROUNDS = 3
"""How often a walk through the records may lead to nodes that were not asked."""
FurtherOf = Callable[[PathRequest, Bundle], Further]
"""Explains what was read, and tells what the walk needs besides."""


def look(
    gatherer: Gatherer,
    request: PathRequest,
    *,
    meanwhile: Callable[[], object] = lambda: None,
    further: FurtherOf = lambda *_: Further(),
) -> tuple[PathRequest, Bundle]:
    """Collect every record that can explain the path of one packet.

    Args:
        gatherer: asks; one that looked before was told to `begin` anew.
        request: the packet; its source may be a workload, which is resolved to a pod.
        meanwhile: is called once all places are asked.
        further: is called with what was read, again after each round of further places.

    Returns:
        The request, with a pod in place of a workload as its source, and the bundle.

    Raises:
        NotFound: the source, the node of --via, or the object that is the destination, is not
            there.
        UsageError: the destination is a Service without the port, or with several and none named;
            or the address of a client outside is the cluster's own.
        ClusterError: the API server cannot be reached, or does not let this user read the source
            or the destination.
    """
    request = of_its_pod(gatherer, request)
    run = _Run(gatherer, request)
    first = run.ask_from_outside() if request.from_outside else []
    sender = run.ask() if not request.from_outside else None
    meanwhile()
    if sender is not None and sender.pod is not None:
        name = sender.pod.name
        typed = request.source if request.source_kind == "pod" else f"pod/{name}"
        request = replace(request, source_kind="pod", source_name=name, source=typed)
    bundle = gatherer.bundle(*first)
    for _ in range(MORE_ROUNDS):
        if not run.ask_further(further(request, bundle)):
            break
        bundle = gatherer.bundle(*bundle.records)
    else:
        further(request, bundle)
    return request, bundle


class _Run:
    """One run: the steps that choose whom to ask. Its methods run in the caller's thread."""

    def __init__(self, gatherer: Gatherer, request: PathRequest) -> None:
        self.gatherer, self.request = gatherer, request
        self.policies = PolicyReads(gatherer.api)
        self.scope: Scope | None = None
        self.reads: NodeReads | None = None
        self.asked_nodes: set[str] = set()
        self.asked_ends: set[Place] = set()
        """Pods and nodes that are asked what is needed where the packet may end."""
        self.whole_tables: set[tuple[str, str]] = set()
        """(node, fact) of tables that are asked again, without a selection of rows."""
        self.asked_facts: set[tuple[str, Fact[Any]]] = set()

    def ask(self) -> Sender:
        """Ask the API server, then the places; return who sends."""
        gatherer, request, api = self.gatherer, self.request, self.gatherer.api
        lines: list[str] = []  # warnings of a thread, printed below
        address = request.destination_address
        gatherer.look_for_answerers(few=True)
        source = gatherer.start(lambda: find_sender(api, request, lines.append))
        nodes = gatherer.start(lambda: self._nodes_and_owner(address))
        reads = self.reads = NodeReads(gatherer)
        destination = gatherer.start(lambda: destination_object(api, request))
        gatherer.read(self._policies())
        # Imported while the API server answers: what asks places takes 60 ms.
        from kubectl_ebpfnet.cluster.exec.connection import prepare
        from kubectl_ebpfnet.collect.packet import packet_scope, row_addresses
        from kubectl_ebpfnet.collect.survey import ask_places

        prepare()
        sender, found = gatherer.needed(source), gatherer.needed(destination)
        for line in lines:
            gatherer.warn(line)
        listed, owner = ListedNodes([]), None
        alias = found.external_name if isinstance(found, Service) else ""
        if sender.pod is not None and (request.destination_kind == "name" or alias):
            self.request, found = self._named(sender.pod, f"{alias.rstrip('.')}." if alias else "")
            address = self.request.destination_address
            listed = (gatherer.tried(nodes)[0] or (listed, None))[0]
            if address is not None:
                owner = gatherer.start(partial(self._owner, address, listed))
        end = gatherer.start(lambda: far_end_of_object(api, found, self.request.port))
        many = reads.many
        gatherer.find_answerers()
        far_end = gatherer.tried(owner or end, 0.5)[0] or FarEnd()
        # A list of many objects is not waited for: CiliumNodes tell most of the addresses, and the
        # whole table is asked for where a row is wanted that was not.
        known = gatherer.tried(nodes, 0.5)[0] if many or nodes.done() else None
        at, found_at = known or (ListedNodes([]), FarEnd())
        near = {sender.node, *far_end.nodes[:FAR_NODES], *found_at.nodes[:FAR_NODES]}
        known_nodes = reads.cilium_nodes(sorted(near))
        near_nodes = [node for node in at.nodes if node.name in near or not at.by_rows]
        versions = frozenset((address.version,)) if address else far_end.versions
        if request.ip_version is not None:
            versions = frozenset((request.ip_version,))
        scope = packet_scope(sender, self.request, versions, far_end, knows_nodes=bool(known_nodes))
        rows = row_addresses(scope, sender, (far_end, found_at), near_nodes, known_nodes)
        scope = replace(scope, rows=rows)

        self.scope = scope
        if Need.LEAVES in scope.need:
            gatherer.read([partial(api.cilium, "ciliumegressgatewaypolicies")])
        gatherer.progress(f"asking {sender.title}")
        self.asked_nodes.add(sender.node)
        if self._ends_here(far_end, sender):
            own = {pod_place(pod.namespace, pod.name) for pod in sender.pods}
            self.asked_ends |= {node_place(sender.node), *own}
            ask_places(gatherer, scope.at_end, [sender.node], sender.pods)
        else:
            ask_places(gatherer, scope, [sender.node], sender.pods)
        gatherer.read(self._endpoints(sender.pods))
        self._ask_far(far_end, scope)
        at, found_at = gatherer.tried(nodes)[0] or (at, FarEnd())
        named = request.destination_kind == "name" or bool(alias)
        if not named:
            self._ask_far(found_at, scope)
        owners = reads.complete(at, address)
        if owners and address is not None and not (far_end.nodes or found_at.nodes):
            by_cilium = gatherer.start(partial(self._owner, address, ListedNodes(owners)))
            self._ask_far(gatherer.tried(by_cilium)[0] or FarEnd(), scope)
        return sender

    def ask_from_outside(self) -> list[Record]:
        """Ask the API server, then the nodes by which a client outside may enter, and the far end;
        return the API server's records, which choose the nodes."""
        from kubectl_ebpfnet.collect.outside import first_reads, places_to_ask
        from kubectl_ebpfnet.collect.survey import ask_places

        found = first_reads(self.gatherer, self.request, self._policies())
        entries, scope = places_to_ask(self.request, found)
        self.scope = scope
        self.gatherer.progress(f"asking {', '.join(entries) or 'no node'}")
        ends_here = found.far_end.ends_on_node
        self.asked_nodes.update(entries)
        if ends_here:
            self.asked_ends |= {node_place(name) for name in entries}
        ask_places(self.gatherer, scope.at_end if ends_here else scope, entries)
        self._ask_far(found.far_end, scope)
        return found.records

    def _ask_far(self, far_end: FarEnd, scope: Scope) -> None:
        """Ask the nodes of the far end, and its pods, at most FAR_NODES of each."""
        from kubectl_ebpfnet.collect.packet import far_scope
        from kubectl_ebpfnet.collect.scope import Scope
        from kubectl_ebpfnet.collect.survey import ask_places

        far_pods = far_end.pods[:FAR_NODES]
        self.gatherer.read(self._endpoints(far_pods))
        self.gatherer.read(self.policies.of_namespaces(pod.namespace for pod in far_pods))
        others = [node for node in dict.fromkeys(far_end.nodes) if node not in self.asked_nodes]
        if far_end.ends_on_node:
            again = self.asked_nodes.intersection(far_end.nodes)
            again = {name for name in again if self._is_new_end(node_place(name))}
            ask_places(self.gatherer, Scope(scope.ends), again)
        self.asked_nodes.update(others[:FAR_NODES])
        self._read_objects(others[:FAR_NODES])
        pods = [pod for pod in far_end.running_pods if pod.node in self.asked_nodes][:FAR_NODES]
        pods = [pod for pod in pods if self._is_new_end(pod_place(pod.namespace, pod.name))]
        ask_places(self.gatherer, far_scope(scope, far_end), others[:FAR_NODES], ends=pods)
        reason = f"not asked: the far end is on {len(others)} nodes, {FAR_NODES} of them are asked"
        for node in others[FAR_NODES:]:
            self.gatherer.ask(unavailable_record(agent_place(node), EXEC, reason), ())

    def ask_further(self, further: Further) -> bool:
        """Ask what a walk through the records needs besides; return whether anything was asked that
        was not before."""
        from kubectl_ebpfnet.collect.survey import ask_places, ask_tables

        tables = [table for table in further.tables if table not in self.whole_tables]
        self.whole_tables.update(tables)
        ask_tables(self.gatherer, tables)
        asked = self._ask_facts(further) or bool(tables)
        nodes = [name for name in further.nodes if name not in self.asked_nodes][:FAR_NODES]
        if not nodes or self.scope is None:
            return asked
        self.asked_nodes.update(nodes)
        self._read_objects(nodes)
        self.gatherer.progress(f"asking {', '.join(nodes)}, where the packet comes to")
        ask_places(self.gatherer, replace(self.scope, rows=()), nodes)
        return True

    def _ask_facts(self, further: Further) -> bool:
        """Ask nodes that were asked before for facts that decide after all; tell whether any was
        not asked for before."""
        new = [each for each in further.facts if each not in self.asked_facts][:MORE_FACTS]
        self.asked_facts.update(new)
        if not new:
            return False
        from kubectl_ebpfnet.collect.ask.question import Question

        gatherer = self.gatherer
        nodes = dict.fromkeys(node for node, _ in new)
        answerers = gatherer.answerers.for_nodes(nodes, gatherer.deadline)
        for node, answerer in answerers.items():
            if not isinstance(answerer, Record):
                facts = [fact for name, fact in new if name == node]
                gatherer.ask(answerer, [Question(fact, answerer.place) for fact in facts])
        return True

    def _is_new_end(self, place: Place) -> bool:
        """Tell whether a place was not asked as an end before; it is from now on."""
        known = place in self.asked_ends
        self.asked_ends.add(place)
        return not known

    def _ends_here(self, far_end: FarEnd, sender: Sender) -> bool:
        """Tell whether a packet may end in the pod that sends it, or on the sender's node."""
        address = self.request.destination_address
        named = {(other.namespace, other.name) for other in far_end.pods}
        return (
            any((pod.namespace, pod.name) in named for pod in sender.pods)
            or (far_end.ends_on_node and sender.node in far_end.nodes)
            or (address is not None and (address.is_loopback or address in sender.addresses))
        )

    # --- reads beside others ----------------------------------------------------------------------

    def _nodes_and_owner(self, address: Address | None) -> tuple[ListedNodes, FarEnd]:
        """Return all nodes, and who has the address; nodes that cannot be listed are none."""
        listed = listed_nodes(self.gatherer.api)
        return listed, self._owner(address, listed) if address else FarEnd()

    def _read_objects(self, nodes: list[str]) -> None:
        """Read the objects of nodes on the way, where not all nodes were read."""
        if self.reads is not None:
            self.reads.by_name(nodes)

    def _owner(self, address: Address, listed: ListedNodes) -> FarEnd:
        return far_end_of_address(
            self.gatherer.api, address, listed.nodes, self.request.port, whole=not listed.by_rows
        )

    def _policies(self) -> list[Callable[[], object]]:
        """Return calls that read the policies which may allow or deny the packet."""
        named = (self.request.source_namespace, self.request.destination_namespace)
        return [*self.policies.clusterwide(), *self.policies.of_namespaces(named)]

    def _endpoints(self, pods: list[Pod]) -> list[Callable[[], object]]:
        """Return calls that read the CiliumEndpoints of pods."""
        return [
            partial(
                self.gatherer.api.get,
                f"{CILIUM}/namespaces/{pod.namespace}/ciliumendpoints/{pod.name}",
            )
            for pod in pods
            if not pod.host_network
        ]

    def _named(self, pod: Pod, alias: str = "") -> tuple[PathRequest, Service | None]:
        """Look the destination's name up; return what to ask places about: the packet to its
        address, or the pod's query to its nameserver where nothing came back."""
        # Imported late: the API server is asked first, and few destinations are names.
        from kubectl_ebpfnet.collect.names import NameRun
        from kubectl_ebpfnet.explain.path.names import DNS, preferred
        from kubectl_ebpfnet.model.resolver import LookupOutcome

        request, name = self.request, alias or self.request.destination_name
        self.gatherer.progress(f"looking {name} up in pod {pod.name}")
        answer = NameRun(self.gatherer, pod, name).run()
        if answer.outcome is LookupOutcome.FOUND:
            address = preferred(answer, pod.addresses, request.ip_version)
            return replace(request, destination_address=address), answer.service
        server = answer.nameserver
        return replace(request, destination_address=server, port=DNS, protocol=UDP), None
