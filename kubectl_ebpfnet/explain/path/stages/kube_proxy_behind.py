"""kube-proxy's rules against the EndpointSlices of a Service: endpoints that are gone, or lacking.

Source: Kubernetes pkg/proxy/topology.go: ready endpoints; those that terminate and serve where none
is ready; of these the node's own with a traffic policy Local, and those hinted to its zone.
"""

from __future__ import annotations

from collections.abc import Collection

from kubectl_ebpfnet.explain.path import backends as kinds
from kubectl_ebpfnet.explain.path import unnamed_backend
from kubectl_ebpfnet.explain.path.backends import Place
from kubectl_ebpfnet.explain.path.service_address import ServiceAddress
from kubectl_ebpfnet.explain.path.stages.kube_proxy_cause import listed, policy_of, restart, title
from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.path.wrong_port import Remedy
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.kube import ServiceEndpoint
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Evidence, Severity

_NAMED = 3
"""Endpoints that a sentence names."""


@dataclass(frozen=True, slots=True)
class Meets:
    """What the rules do with a packet.

    Attributes:
        chosen: where the walk goes on to.
        places: all that they may choose.
        answered: `chosen` answered the newest attempt.
    """

    chosen: Place
    places: Collection[Place]
    answered: bool


def report(
    walk: PathBuilder,
    node: str,
    service: ServiceAddress,
    meets: Meets,
    proof: tuple[Evidence, ...],
) -> None:
    """Report rules of kube-proxy that are behind the Service's EndpointSlices.

    Args:
        walk: takes the finding, and a doubt where the packet goes to an endpoint that is gone.
        node: whose rules they are.
        service: that the packet is for.
        meets: what they do with it.
        proof: the rules.
    """
    if service.sliced is None or service.owner is None:
        return
    places, cluster = meets.places, walk.cluster
    known = {kinds.place(end): end for end in service.sliced}
    gone = [place for place in places if place not in known]
    lacking = _lacking(service, places, node)
    idle = _idle(service, known, places)
    if not gone and not lacking and not idle:
        return
    words = []
    if gone:
        words.append(f"they send to {_texts(gone)}, which no EndpointSlice names")
    if idle:
        words.append(f"they send to {_texts(idle)}, which is not ready")
    if lacking:
        words.append(f"they lack {listed(lacking)}, which is ready")
    useless = len(gone) + len(idle) == len(places)
    useless = useless and any(unnamed_backend.why_open(cluster, service, each) for each in gone)
    text = f"kube-proxy's rules on {node} are behind {service.owner_title}"
    walk.finding(
        Severity.ERROR if useless else Severity.WARNING,
        text,
        f"By them, {'; '.join(words)}. kube-proxy does not run there, or does not hear from the "
        f"API server: its log tells, and a restart writes them anew: `{restart(node).command}`",
        proof,
    )
    if meets.chosen in (*gone, *idle):
        _followed(walk, node, service, meets, text)


def _followed(
    walk: PathBuilder, node: str, service: ServiceAddress, meets: Meets, text: str
) -> None:
    """Keep in mind that the packet goes to an endpoint that is gone, or not ready."""
    chosen, cluster = meets.chosen, walk.cluster
    ends = [end for end in service.sliced or () if kinds.place(end) == chosen]
    what = "which is not ready" if ends else "which no EndpointSlice names"
    cause = f"{text}: they send it to {endpoint_text(*chosen)}, {what}"
    walk.stale = Remedy(cause, restart(node), title(node))
    walk.outdate()  # an answer may be older than the slices
    if not ends:
        why = unnamed_backend.why_open(cluster, service, chosen, answered=meets.answered)
    elif any(end.serving for end in ends) or unnamed_backend.sockets_read(cluster, service, chosen):
        why = ""
    else:
        why = ", and its sockets were not read"
    if why:
        walk.doubt(f"{cause}{why}", fix=restart(node))


def _lacking(
    service: ServiceAddress, places: Collection[Place], node: str
) -> list[ServiceEndpoint]:
    """Return the ready endpoints that the rules lack, where no policy or hint leaves them out."""
    ready = [end for end in service.sliced or () if end.ready]
    if policy_of(service) == "Local" or any(end.zones for end in ready):
        return []
    there = (end for end in ready if not kinds.kept_out(service.owner, end, node))
    return [end for end in there if kinds.place(end) not in places]


def _idle(
    service: ServiceAddress, known: dict[Place, ServiceEndpoint], places: Collection[Place]
) -> list[Place]:
    """Return the places of endpoints that the rules should not use: others are ready. Of a node's
    own, one that terminates may serve although other nodes have ready ones."""
    if not any(end.ready for end in known.values()) or policy_of(service) == "Local":
        return []
    return [place for place in places if place in known and not known[place].ready]


def _texts(places: Collection[Place]) -> str:
    return few(places, _NAMED, lambda place: endpoint_text(*place))
