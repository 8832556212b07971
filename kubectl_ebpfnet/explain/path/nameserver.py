"""The way to the nameserver of a pod, as the cause of a name that was not resolved."""

from __future__ import annotations

from dataclasses import replace

from kubectl_ebpfnet.explain.path.endpoints import PathEnds
from kubectl_ebpfnet.explain.path.names import DNS
from kubectl_ebpfnet.explain.path.stages.proxy import REFUSES
from kubectl_ebpfnet.explain.path.verdict import Decision
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.net import UDP, Address, endpoint_text
from kubectl_ebpfnet.model.path import Finding, Fix, Path, PathRequest, Verdict
from kubectl_ebpfnet.model.resolver import LookupOutcome
from kubectl_ebpfnet.model.shell import word

_NO_ANSWER = (LookupOutcome.SILENT, LookupOutcome.NOTHING)
_MAY_BE_REFUSED = (LookupOutcome.FAILED, LookupOutcome.NO_SUCH_NAME, LookupOutcome.NOT_ASKED)
"""What also comes of a name that Cilium's DNS proxy refuses: REFUSED, or NXDOMAIN where it is set
so (tofqdns-dns-reject-response-code)."""


def query_to(request: PathRequest, ends: PathEnds) -> PathRequest | None:
    """Return the request for the pod's query to its nameserver, None where it was answered.

    Args:
        request: for a DNS name.
        ends: the request as it was resolved.
    """
    name = ends.name
    if name is None or name.nameserver is None:
        return None
    if name.outcome not in (*_NO_ANSWER, *_MAY_BE_REFUSED):
        return None
    return replace(
        request,
        destination=str(name.nameserver),
        destination_kind="address",
        destination_namespace="",
        destination_name="",
        destination_address=name.nameserver,
        port=DNS,
        port_name="",
        protocol=UDP,
        ip_version=None,
        size=None,
        note="",
        query=name.names,
    )


def decided(decision: Decision, ends: PathEnds, query: Path, cluster: ClusterView) -> Decision:
    """Return the verdict of a name that was not resolved, with its query's as the cause.

    Args:
        decision: without the query.
        ends: the request for the name.
        query: the path of the query.
        cluster: the bundle's indexes.
    """
    assert ends.name is not None
    assert ends.name.nameserver is not None
    server = ends.name.nameserver
    service = _service(cluster, server)
    of = f" of svc {'/'.join(service)}" if service else ""
    words = query.reason
    if query.verdict is Verdict.UNKNOWN and not words.startswith("unknown"):
        words = f"unknown: {words}"
    cause = f"DNS: {endpoint_text(server, DNS)}/UDP{of}: {words}"
    pod = f"-n {word(ends.source.namespace)} pod/{word(ends.source.name)}"
    to = f"{endpoint_text(server, DNS)}/udp"
    if service:
        to = f"svc/{word(service[1])}:{DNS} --protocol udp --to-namespace {word(service[0])}"
    text = "See the way of the pod's queries to its nameserver, hop by hop."
    if query.verdict is Verdict.DROPPED and query.fix is not None:
        text = query.fix.text
    command = f"kubectl ebpfnet path {pod} {to}"
    if ends.meant is not None:
        text = f"{ends.meant.text} {text}"
        command = command if query.verdict is Verdict.DROPPED else ends.meant.command
    fix = Fix(text, command)
    because = (decision.reason, *_of_the_query(server, of, query))
    decision = replace(
        decision, reason=f"{decision.reason}; {cause}", cause=cause, fix=fix, because=because
    )
    if query.verdict is not Verdict.DROPPED:
        return decision
    # What cannot ask for the address sends nothing: lost is the query, whose hops are shown.
    return replace(
        decision,
        verdict=Verdict.DROPPED,
        contradictions=query.contradictions,
        drop=query.drop,
    )


def _of_the_query(server: Address, of: str, query: Path) -> tuple[str, ...]:
    """Return the lines of a query's verdict, the first of which says whose they are."""
    first, *rest = query.because or (query.reason,)
    return (f"its query to {endpoint_text(server, DNS)}/UDP{of}: {first}", *rest)


def is_cause(ends: PathEnds, query: Path) -> bool:
    """Tell whether what becomes of a query is why its name has no address: where an error came, or
    nobody asked, only that Cilium's DNS proxy refuses it.

    Args:
        ends: the request for the name.
        query: the path of the query.
    """
    if ends.name is None or ends.name.outcome not in _MAY_BE_REFUSED:
        return True
    return query.verdict is Verdict.DROPPED and REFUSES in query.hops[-1].summary


def findings_of(query: Path) -> tuple[Finding, ...]:
    """Return what was found on the query's way, marked as such."""
    return tuple(replace(found, title=f"DNS: {found.title}") for found in query.findings)


def _service(cluster: ClusterView, server: Address) -> tuple[str, str] | None:
    service = next(iter(cluster.index.services_with(server)), None)
    return (service.namespace, service.name) if service is not None else None
