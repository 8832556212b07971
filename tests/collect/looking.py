"""Collect a path as the program does: one look of a gatherer."""

from __future__ import annotations

from collections.abc import Callable

from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.collect.ask.access import BY_AGENT, NodeAccess
from kubectl_ebpfnet.collect.gatherer import Gatherer, Notify
from kubectl_ebpfnet.collect.path import FurtherOf, look
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.request import Further, PathRequest


def looked(
    session: Session,
    request: PathRequest,
    *,
    access: NodeAccess = BY_AGENT,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
    meanwhile: Callable[[], object] = lambda: None,
    further: FurtherOf = lambda *_: Further(),
) -> tuple[PathRequest, Bundle]:
    """Return what one look gives; arguments as of Gatherer and look."""
    with Gatherer(session, access, warn=warn, progress=progress) as gatherer:
        gatherer.begin(timeout)
        return look(gatherer, request, meanwhile=meanwhile, further=further)
