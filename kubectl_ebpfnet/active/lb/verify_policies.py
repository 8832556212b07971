"""Both externalTrafficPolicies of a Service, tried on copies of it.

Nodes take a while until they serve a Service that is new, so a copy that does not behave yet is
probed again, for some seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

from kubectl_ebpfnet.active.lb.copies import Copy, copies
from kubectl_ebpfnet.active.lb.run import Means, Probe
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.probe import Judgement, ProbeReport, ProbeRequest

SETTLING_SECONDS = 20.0
_PAUSE_SECONDS = 1.0


@contextlib.contextmanager
def verifier(
    means: Means, request: ProbeRequest
) -> Iterator[Callable[[], list[tuple[ProbeReport, Bundle]]]]:
    """Gives a function that probes a copy for each policy; the copies are gone at the end.

    Raises:
        NotFound: there is no such Service.
        ClusterError: as lb_copies.copies.
    """
    api = Api(means.session)
    with copies(api, request.namespace, request.service, means.warn) as made:
        begun = time.monotonic()
        yield lambda: [_probed(means, request, copy, begun) for copy in made]


def _probed(
    means: Means, request: ProbeRequest, copy: Copy, begun: float
) -> tuple[ProbeReport, Bundle]:
    # Node ports are Service-wide too: without an address they show what the policy does.
    asked = dataclasses.replace(
        request, service=copy.name, node_ports=request.node_ports or not copy.has_address
    )
    if not copy.has_address:
        means.warn(f"svc/{copy.name} got no address: its node ports are probed")
    while True:
        report, bundle = Probe(means, asked).run()
        late = time.monotonic() - begun > SETTLING_SECONDS
        # Over UDP a node that does not serve yet may be as silent as a server.
        unsettled = report.verdict is Judgement.CONTRADICTED or any(
            row.judgement is Judgement.UNKNOWN and row.silent for row in report.rows
        )
        if late or not unsettled:
            return report, bundle
        time.sleep(_PAUSE_SECONDS)
