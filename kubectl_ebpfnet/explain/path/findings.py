"""Rules across hops: contradictions between facts that no single stage sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kubectl_ebpfnet.errors import tier_of_words
from kubectl_ebpfnet.explain.flows.notes import no_snat_map
from kubectl_ebpfnet.explain.path import former_backends, from_inside
from kubectl_ebpfnet.explain.path.endpoints import PathEnds
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import PlaceKind, pod_place
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.net import endpoint_text
from kubectl_ebpfnet.model.path import Finding, Outcome, Severity, TrackedFlow
from kubectl_ebpfnet.model.shell import word


@dataclass(frozen=True, slots=True)
class WholePath:
    """The input of the rules: the facts, the resolved ends, the tracked flows of every node, the
    verdict's reason, whether the verdict is a drop, and whether it lets the packet through."""

    cluster: ClusterView
    ends: PathEnds
    flows: Sequence[TrackedFlow]
    reason: str = ""
    dropped: bool = False
    let_through: bool = False


def across(whole: WholePath) -> list[Finding]:
    """Apply every rule to the whole path."""
    rules = (
        _agents,
        _full_table,
        _masquerade_mode,
        _unanswered,
        _identities,
        _translations,
        _backends,
        _target_port,
        _outside,
    )
    return [finding for rule in rules for finding in rule(whole)]


def _agents(whole: WholePath) -> Iterator[Finding]:
    """Report each place that could not be asked, and each question that it left unanswered, once
    for a reason, with the remedy."""
    reported: set[str] = set()
    bundle, source = whole.cluster.bundle, whole.ends.source
    sender = pod_place(source.namespace, source.name)
    for record in bundle.records:
        if record.ran or not record.error or record.error in reported:
            continue
        if record.place.kind not in (PlaceKind.AGENT, PlaceKind.POD, PlaceKind.NODE):
            continue
        if record.place.kind is PlaceKind.POD and record.place != sender:
            continue  # at the far end: what the answer and the listener presume is said there
        why = record.error.removeprefix("not asked: ")
        if any(known.endswith(why) for known in reported):
            continue  # what was not run after that
        reported.add(record.error)
        title = f"{record.place} could not be asked: {record.error}"
        hint = "What this place would have told is not known."
        if any(other.ran for other in bundle.at(record.place)):
            title = f"{record.place} left `{record.command}` unanswered: {record.error}"
            hint = "The rest of it was read."
        if record.denied:
            hint = f"Missing permission: {record.denied} ({tier_of_words(record.denied)})."
        said = bool(why) and why in whole.reason
        yield Finding(Severity.WARNING, title, hint, cite.whole(record), decides=said)


FULL = 0.95
"""Part of nf_conntrack_max above which new connections are about to be refused."""


def _full_table(whole: WholePath) -> Iterator[Finding]:
    """Report a full nf_conntrack, which drops new connections (`table full, dropping packet`)."""
    for name in whole.cluster.recorded_nodes:
        node = whole.cluster.node(name)
        answer: Answer[Any] = node[q.SYSCTLS]
        named = {fact.name.rpartition("/")[2]: fact for fact in answer.facts}
        if "nf_conntrack_max" not in named:
            answer = node[q.COUNTERS]
            named = {fact.name: fact for fact in answer.facts if fact.group == "conntrack"}
        count, most = named.get("nf_conntrack_count"), named.get("nf_conntrack_max")
        if count is None or most is None or not most.value or count.value < FULL * most.value:
            continue
        full = count.value >= most.value  # a packet that BPF forwards passes it by
        yield Finding(
            Severity.ERROR if full and not whole.let_through else Severity.WARNING,
            f"nf_conntrack of {name} holds {count.value} of at most {most.value} connections",
            "The kernel drops the first packet of a connection that has no room. Raise "
            "net.netfilter.nf_conntrack_max, or find who opens them: "
            f"`kubectl ebpfnet flows node/{word(name)}`.",
            cite.of(answer.record, count.span, most.span),
        )


def _masquerade_mode(whole: WholePath) -> Iterator[Finding]:
    """Report a mode of masquerading in the configuration that the tables contradict."""
    if not whole.ends.first_node:
        return
    node = whole.cluster.node(whole.ends.first_node)
    tracked = whole.ends.tracked
    if node.config.masquerade == "bpf" and no_snat_map(node):
        inside = whole.cluster.in_cluster(whole.ends.flow.destination)
        yield Finding(
            Severity.WARNING if inside else Severity.ERROR,
            f"Cilium is set to masquerade by BPF, but {node.name} has no SNAT map",
            "The agent runs with other settings than the cluster's ConfigMap, or failed to set "
            f"its datapath up: `{node.cilium('status --verbose')}`, and the agent's log.",
            cite.whole(node.config_record),
        )
    nat = tracked.cilium_nat if tracked is not None else None
    if tracked is None or nat is None or nat.address == tracked.flow.source:
        return
    if node.config.masquerade == "iptables":
        yield Finding(
            Severity.WARNING,
            "Cilium's NAT map has the flow although netfilter is set to masquerade",
            "The setting changed while the flow lived, or the agent was not restarted.",
            tracked.evidence,
        )


def _unanswered(whole: WholePath) -> Iterator[Finding]:
    """Report that nothing came back to the newest attempt, unless it is an old one or the verdict
    says it."""
    attempt = whole.ends.attempt
    if attempt is None or attempt.outcome is not Outcome.UNANSWERED:
        return
    if attempt.text in whole.reason:
        return
    if attempt.age is not None and not attempt.now:
        return
    if whole.dropped:
        title = "the newest attempt agrees: no answer came"
        yield Finding(Severity.INFO, title, f"{attempt.text}.", attempt.evidence, decides=True)
    else:
        yield Finding(
            Severity.WARNING,
            f"no answer was seen to {attempt.flow.flow}",
            f"{attempt.text}. The other side is silent, or its answer is lost or dropped on the "
            "way. Run the path from the other side as well.",
            attempt.evidence,
        )


def _identities(whole: WholePath) -> Iterator[Finding]:
    """Report a conntrack entry whose identity is not the endpoint's present one."""
    endpoint, tracked = whole.ends.source_endpoint, whole.ends.tracked
    if endpoint is None or tracked is None or tracked.cilium_ct is None or not endpoint.identity:
        return
    carried = tracked.cilium_ct.source_identity
    if carried and carried != endpoint.identity:
        yield Finding(
            Severity.WARNING,
            f"conntrack has identity {carried}, endpoint {endpoint.id} has {endpoint.identity}",
            "The pod's labels changed after the flow began, or the entry is of a former pod with "
            "the same address.",
            tracked.evidence[:1],
        )


def _translations(whole: WholePath) -> Iterator[Finding]:
    """Report a flow that Cilium and netfilter both translate, to different sources."""
    for tracked in whole.flows:
        nat, nf = tracked.cilium_nat, tracked.netfilter
        if nat is None or nf is None or not nf.source_nat or nat.address == tracked.flow.source:
            continue
        kernel = nf.translated()
        if (kernel.source, kernel.source_port) != (nat.address, nat.port):
            yield Finding(
                Severity.WARNING,
                f"two translations of one flow on {tracked.node}: Cilium to "
                f"{endpoint_text(nat.address, nat.port)}, netfilter to "
                f"{endpoint_text(kernel.source, kernel.source_port)}",
                "A rule outside Cilium masquerades pod traffic before cil_to_netdev sees it.",
                tracked.evidence,
            )


def _backends(whole: WholePath) -> Iterator[Finding]:
    """Report a flow to a backend that its service no longer has."""
    yield from former_backends.findings(whole.flows, whole.ends.service)


def _target_port(whole: WholePath) -> Iterator[Finding]:
    """Report EndpointSlices with another port than the one that their Service names."""
    service = whole.ends.service
    owner = service.owner if service is not None else None
    port = service.owner_port if service is not None else None
    if service is None or owner is None or port is None or not owner.selector:
        return
    if service.named_elsewhere:
        return
    wanted = port.target_port
    others = sorted({end.port for end in service.sliced or () if str(end.port) != wanted})
    if others and wanted.isdecimal():
        yield Finding(
            Severity.WARNING,
            f"EndpointSlices of svc {owner.namespace}/{owner.name} lead port {port.port} to "
            f"{few(others, 3)}, and its targetPort is {wanted}",
            "Load-balancers go by the slices. Kubernetes' controller manager writes them: it is "
            "behind the Service, or does not run.",
            cite.whole(whole.cluster.api_record("endpointslices", "services")),
        )


def _outside(whole: WholePath) -> Iterator[Finding]:
    """Report where a client outside meets something else."""
    if whole.ends.source.kind != "address":
        yield from from_inside.findings(whole.cluster, whole.ends.service)
