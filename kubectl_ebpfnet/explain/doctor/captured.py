"""What a capture lacks of what each command reads: counted by its records, of each node and pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.doctor import Lack
from kubectl_ebpfnet.model.evidence import PlaceKind, agent_place, node_place
from kubectl_ebpfnet.model.fact import Fact
from kubectl_ebpfnet.model.few import few

_NO_PROGRAM = 127
_NAMED = 3
_HELP = "a new capture; `capture pod/NAME` records a pod, --node-access pod every table"
# Facts that a command reads of a node; of the members of one row any will do.
_READS: dict[str, tuple[tuple[Fact[Any], ...], ...]] = {
    "path": (
        (q.LINKS, q.ADDRESSES),
        (q.ROUTES,),
        (q.RULES,),
        (q.NEIGHBOURS,),
        (q.NETFILTER,),
        (q.BPF_NET, q.BPF_LINKS, q.ATTACHMENTS),
        (q.POLICY_MAPS,),
        (q.ENDPOINTS, q.ENDPOINT_MAP),
        (q.SERVICES, q.LB_MAP),
        (q.IPCACHE,),
        (q.CT, q.CONNTRACK),
    ),
    "programs": (
        (q.LINKS,),
        (q.BPF_NET, q.BPF_LINKS, q.ATTACHMENTS),
        (q.BPF_PROGRAMS, q.ATTACHMENTS),
    ),
    "flows": ((q.CT,), (q.NAT,), (q.CONNTRACK,)),
}
_OF_PODS = ("path",)


def lacks_of_capture(command: str, node: str, cluster: ClusterView) -> Iterator[Lack]:
    """Yield what a command will not show of a node, or of its pods, since a capture lacks it.

    Args:
        command: of doctor's COMMANDS; `capture` asks a cluster, and lacks nothing here.
        node: name of the node.
        cluster: the capture's indexes.
    """
    rows = _READS.get(command, ())
    missing = [row for row in rows if not any(_has(cluster, node, fact) for fact in row)]
    if missing:
        words = [f"`{' '.join((row[0].forms or row[0].answers)[0])}`" for row in missing]
        shown = few(words, _NAMED)
        yield Lack(f"{len(missing)} of the {len(rows)} tables that it reads: {shown}", _HELP)
    if command in _OF_PODS:
        yield from _of_pods(node, cluster)


def _has(cluster: ClusterView, node: str, fact: Fact[Any]) -> bool:
    """Tell whether a record has an answer, be it that there is no such table."""
    places = (agent_place(node), node_place(node))
    records = (q.best_record(cluster.bundle, place, fact) for place in places)
    return any(record.ran and record.exit_code != _NO_PROGRAM for record in records if record)


def _of_pods(node: str, cluster: ClusterView) -> Iterator[Lack]:
    """Yield the pods of the node that cannot be a source: their own routes are not recorded."""
    own = [pod for pod in cluster.kube.pods if pod.node == node and not pod.host_network]
    names = [(pod.namespace, pod.name) for pod in own if pod.phase == "Running"]
    recorded = {(p.namespace, p.pod) for p in cluster.bundle.places(PlaceKind.POD)}
    if not cluster.kube.pods:
        names = sorted(recorded)
    without: dict[str, list[str]] = {}
    for namespace, name in names:
        netns = cluster.pod_netns(namespace, name)
        answers = (netns[q.POD_ROUTES], netns[q.POD_ROUTES6])
        if any(answer.known for answer in answers):
            continue
        why = answers[0].missing if (namespace, name) in recorded else "not recorded"
        without.setdefault(why, []).append(f"{namespace}/{name}")
    for why, pods in without.items():
        who = f"{len(pods)} of {len(names)} pods see themselves"
        who = who if len(names) > 1 else "a pod sees itself"
        yield Lack(f"what {who}: {few(pods, _NAMED)} ({why})", _HELP)
