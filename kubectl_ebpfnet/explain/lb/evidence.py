"""Evidence for an expectation: the Service and its endpoints, as the API returned them.

Also lines of netfilter rules, for the causes of contradictions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.answer import Answer
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import NetfilterRule, Ruleset
from kubectl_ebpfnet.model.kube import Service, ServiceEndpoint
from kubectl_ebpfnet.model.path import Evidence
from kubectl_ebpfnet.model.untrusted import json_value

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
        self._record = cluster.api_record("services", "service")
        self._slices = cluster.api_record("endpointslices", "endpointslice")

    @cached_property
    def service(self) -> tuple[Evidence, ...]:
        """The members of the Service's spec that decide."""
        if self._record is None or not self._service.cluster_addresses:
            return ()
        where = {"clusterIP": str(self._service.cluster_addresses[0])}
        return cite.json_object(self._record, where, _SPEC)

    @cached_property
    def _quotes(self) -> dict[str, str]:
        return _endpoints(self._slices) if self._slices is not None else {}

    def of(self, endpoints: Sequence[ServiceEndpoint], node: str) -> tuple[Evidence, ...]:
        """Cite the spec and the endpoints on a node; the slices as a whole where it has none."""
        if self._slices is None:
            return self.service
        mine = dict.fromkeys(str(e.address) for e in endpoints if e.node == node)
        quotes = [self._quotes[address] for address in mine if address in self._quotes]
        return (*self.service, Evidence(self._slices.number, (), tuple(quotes[:_MOST])))


def _endpoints(record: Record) -> dict[str, str]:
    """Return address → the endpoint object of a slice, as one line."""
    try:
        value = json_value(record.stdout.read(), "a record")
    except ParseError:
        return {}
    found: dict[str, str] = {}
    for slice_ in js.items(value, "items") or [value]:
        for item in js.items(slice_, "endpoints"):
            for address in js.items(item, "addresses"):
                shown = {key: item[key] for key in _ENDPOINT if key in item}
                text = json.dumps(shown, separators=(", ", ": "), ensure_ascii=False)
                found.setdefault(str(address), text[: cite.LONGEST_EXCERPT])
    return found


def rules(answer: Answer[Ruleset], *found: NetfilterRule | None) -> tuple[Evidence, ...]:
    """Cite netfilter rules of a ruleset; None stands for no rule."""
    numbers = [rule.line for rule in found if rule is not None]
    return cite.lines(answer.record, numbers) if numbers else ()


def joined(*parts: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Join evidence, each piece once."""
    return tuple(dict.fromkeys(item for part in parts for item in part))
