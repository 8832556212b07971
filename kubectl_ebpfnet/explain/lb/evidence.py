"""Evidence for an expectation: the Service and its endpoints, as the API returned them.

Also lines of netfilter rules, for the causes of contradictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Record, Span
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint
from kubectl_ebpfnet.model.netfilter import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.path import Evidence

_SPEC = (
    "type", "externalTrafficPolicy", "healthCheckNodePort", "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
)  # fmt: skip
_ENDPOINT = ("addresses", "conditions", "nodeName", "topology")
_MOST = 3
"""Endpoints that are quoted for one row."""


class ApiProof:
    """The API's records of a Service and its endpoints; read once for all rows."""

    def __init__(self, cluster: ClusterView, service: Service) -> None:
        self._service = service
        self._cluster = cluster
        self._record = cluster.api_record_of(service)
        self._slices = cluster.api_record("endpointslices", "endpointslice")

    @cached_property
    def service(self) -> tuple[Evidence, ...]:
        """The members of the Service's spec that decide."""
        if self._record is None or not self._service.cluster_addresses:
            return ()
        return cite.of(self._record, self._service.span.member("spec"), keep=_SPEC)

    def of(self, endpoints: Sequence[ServiceEndpoint], node: str) -> tuple[Evidence, ...]:
        """Cite the spec and the endpoints on a node; the slices as a whole where it has none."""
        if self._slices is None:
            return self.service
        mine = {e.address: e for e in reversed(endpoints) if e.node == node}
        spans: dict[Record | None, list[Span]] = {}
        for end in [*reversed(mine.values())][:_MOST]:
            spans.setdefault(self._cluster.api_record_of(end), []).append(end.span)
        cited = [e for record, at in spans.items() for e in cite.of(record, *at, keep=_ENDPOINT)]
        return (*self.service, *(cited or cite.of(self._slices)))


def rules(answer: Answer[Ruleset], *found: NetfilterRule | None) -> tuple[Evidence, ...]:
    """Cite netfilter rules of a ruleset; None stands for no rule."""
    spans = [rule.span for rule in found if rule is not None]
    return cite.of(answer.record, *spans) if spans else ()


def joined(*parts: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Join evidence, each piece once."""
    return tuple(dict.fromkeys(item for part in parts for item in part))
