"""A pod that the API server does not have any more, and that EndpointSlices, a CiliumEndpoint or
the agent of its node still name as the one with an address.

Its container may still run (`kubectl delete --force`, a node that was cut off): so it is open
whether somebody answers. Who was asked after the list of pods may name one that was made since.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite, lists
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import API, Record
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Fix, Severity
from kubectl_ebpfnet.model.shell import word

_SLICES = "EndpointSlices"
_AT_ONCE = timedelta(seconds=2)
"""Within this time of the list of pods no slice and no CiliumEndpoint names a newer one: it is
scheduled, and gets its address, first. An agent may, as soon as it is asked later."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A pod's name for an address, who has it, the command that shows that, and where it was read;
    whether it is the agent's."""

    namespace: str
    pod: str
    held_by: str
    command: str
    record: Record | None
    by_agent: bool = False

    def is_older(self, listed: Record) -> bool:
        """Tell whether the pod was named before the pods were listed, or at once with them."""
        if self.record is None:
            return not self.by_agent
        try:
            read, list_read = (datetime.fromisoformat(r.started) for r in (self.record, listed))
        except ValueError:
            return not self.by_agent
        return read < list_read if self.by_agent else read <= list_read + _AT_ONCE


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a pod.

    Attributes:
        title: which pod is gone, and who still names it.
        fix: what to do.
        listed: the list that lacks it.
        may_be_new: who names it was asked after that list was read: it may have been made since.
    """

    title: str
    fix: Fix
    listed: Record
    may_be_new: bool = False


def report(walk: PathBuilder, node: NodeView, address: Address) -> None:
    """Report a pod that is not there any more, and to which a packet is handed.

    Args:
        walk: takes the finding, and the doubt.
        node: whose endpoint has the address.
        address: of the packet's destination.
    """
    found = left_of(walk, node, address)
    if found is None:
        return
    severity, detail = Severity.WARNING, found.fix.text
    if not found.may_be_new:
        walk.outdate()  # who answered may be the pod that is gone
        severity, detail = Severity.ERROR, (
            f"No pod of the API server has {address}: nobody answers, unless its container still "
            f"runs. `{found.fix.command}` shows what is left of it."
        )  # fmt: skip
    walk.finding(severity, found.title, detail, cite.whole(found.listed))
    walk.doubt(found.title, Decides.DROP, found.fix)


def left_of(walk: PathBuilder, node: NodeView, address: Address) -> Left | None:
    """Return what is left of a pod; None where a pod has the address, or nobody knows.

    Args:
        walk: in progress.
        node: whose pod it was.
        address: of the pod.
    """
    if walk.cluster.pods_with(address):
        return None
    names = list(_names(walk, node, address))
    if len({(one.namespace, one.pod) for one in names}) != 1:
        return None
    first, pod = names[0], walk.cluster.pod(names[0].namespace, names[0].pod)
    # Other networks of a pod (Multus) have addresses that its status does not name.
    moved = pod is not None and bool(pod.addresses) and first.held_by == _SLICES
    listed = _listed(walk, node, first, address)
    if listed is None or (pod is not None and not moved):
        return None
    holders = few(list(dict.fromkeys(one.held_by for one in names)), 3)
    name, now = f"pod {first.namespace}/{first.pod}", "is gone from the API server"
    if pod is not None:
        now = f"has {few(pod.addresses, 2)} now"
    elif not any(one.is_older(listed) for one in names):
        title = (
            f"{name} is not in the list of pods, and {address} is its address by {holders}, asked "
            "later: it is gone, or was made since"
        )
        fix = Fix("Ask again: the list of pods has it then, or it is gone.")
        return Left(title, fix, listed, may_be_new=True)
    title = f"{name} {now}, and {address} is still its address by {holders}"
    fix = Fix(
        f"See whether its container still runs on {node.name} (`crictl ps`): kubelet there, or "
        "who wrote the object, did not clean up.",
        first.command,
    )
    return Left(title, fix, listed)


def _names(walk: PathBuilder, node: NodeView, address: Address) -> Iterator[_Name]:
    """Yield which pod has the address, by whoever names one."""
    asked = walk.ends.service.name if walk.ends.service is not None else ""
    for end in sorted(walk.cluster.kube.endpoints, key=lambda end: end.service != asked):
        if end.address == address and end.pod and end.node in ("", node.name):
            command = commands.list_slices(end.namespace, end.service)
            record = walk.cluster.api_record_of(end)
            yield _Name(end.namespace, end.pod, _SLICES, command, record)
    for endpoint, _ in walk.cluster.kube.cilium_endpoints:
        if address in endpoint.addresses and endpoint.pod:
            namespace, pod = endpoint.namespace, endpoint.pod
            command = f"kubectl get ciliumendpoints -n {word(namespace)} {word(pod)}"
            record = walk.cluster.api_record("ciliumendpoints")
            yield _Name(namespace, pod, "its CiliumEndpoint", command, record)
    listed = node.listed_endpoint(address)
    if listed is not None and listed.pod:
        command = node.in_agent(f"endpoint get {listed.id}")
        held_by, record = f"the agent of {node.name}", node[q.ENDPOINTS].record
        yield _Name(listed.namespace, listed.pod, held_by, command, record, by_agent=True)


def _listed(walk: PathBuilder, node: NodeView, name: _Name, address: Address) -> Record | None:
    """Return the record of a list that would have the pod, None without one."""
    cluster = walk.cluster
    found = lists.read(cluster, "pods", name.namespace)
    owner = walk.ends.service.owner if walk.ends.service is not None else None
    own = () if owner is None else cluster.index.endpoints_of(owner.namespace, owner.name)
    if owner is not None and owner.selector and any(end.pod == name.pod for end in own):
        selector = ",".join(f"{key}={value}" for key, value in owner.selector)
        found = found or lists.read(cluster, "pods", owner.namespace, selector)
    fields = {f"spec.nodeName={node.name}"}
    if _is_single_stack(cluster):
        fields.add(f"status.podIP={address}")  # of several, the first one alone is selected
    for record in () if found is not None else cluster.bundle.at(API):
        selected = record.argv[:4] == ("get", "pods", "-A", "--field-selector")
        if selected and fields & {*record.argv[4:]} and record.number in cluster.understood:
            return record
    return found


def _is_single_stack(cluster: ClusterView) -> bool:
    """Tell whether all nodes have addresses of one IP version."""
    nodes = [each.internal_addresses for each in cluster.listed_nodes.values()]
    if cluster.kube.node_rows:  # which have one address each
        nodes += [each.internal_addresses for each in cluster.kube.cilium_nodes]
    return len({address.version for addresses in nodes for address in addresses}) == 1
