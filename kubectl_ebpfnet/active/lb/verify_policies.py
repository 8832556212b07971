"""Probe copies of a Service, one with each externalTrafficPolicy.

Nodes serve a new Service only after a while, so a copy that does not behave yet is probed again,
for some seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

from kubectl_ebpfnet.active.lb.copies import Copy, copies
from kubectl_ebpfnet.active.lb.run import Probe
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.collect.gatherer import Gatherer
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.probe import Judgement, ProbeReport, ProbeRequest

SETTLING_SECONDS = 20.0
_PAUSE_SECONDS = 1.0


@contextlib.contextmanager
def verifier(
    gatherer: Gatherer, request: ProbeRequest
) -> Iterator[Callable[[], list[tuple[ProbeReport, Bundle]]]]:
    """Yield a function that probes a copy for each policy; the copies are removed at the end.

    Raises:
        NotFound: there is no such Service.
        ClusterError: as copies.copies.
    """
    api = Api(gatherer.session)
    with copies(api, request.namespace, request.service, gatherer.warn) as made:
        begun = time.monotonic()
        yield lambda: [_probed(gatherer, request, copy, begun) for copy in made]


def _probed(
    gatherer: Gatherer, request: ProbeRequest, copy: Copy, begun: float
) -> tuple[ProbeReport, Bundle]:
    # The policy governs node ports too: they are probed where the copy has no address.
    copy_request = dataclasses.replace(
        request, service=copy.name, node_ports=request.node_ports or not copy.has_address
    )
    if not copy.has_address:
        gatherer.warn(f"svc/{copy.name} got no address: its node ports are probed")
    while True:
        report, bundle = Probe(gatherer, copy_request).run()
        late = time.monotonic() - begun > SETTLING_SECONDS
        # Over UDP a node that does not serve yet may look like a silent server.
        unsettled = report.verdict is Judgement.CONTRADICTED or any(
            row.judgement is Judgement.UNKNOWN and row.silent for row in report.rows
        )
        if late or not unsettled:
            return report, bundle
        time.sleep(_PAUSE_SECONDS)
