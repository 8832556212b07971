"""Whether this user may deploy node pods, as the API server tells beforehand."""

from __future__ import annotations

from functools import partial

from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.pool import Pool
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, Forbidden

NEEDED = (("create", "namespaces"), ("create", "pods"), ("create", "pods/exec"))
"""Verb and resource of what every deployment creates (tier deploy, model/tiers.py)."""


def check_rights(api: Api, seconds: float | None) -> None:
    """Ask the API server whether this user may deploy node pods. Who may not ask learns it by
    trying.

    Args:
        api: the API server.
        seconds: longest time to wait; None for no limit.

    Raises:
        Forbidden: this user may not.
        ApiUnreachable: no answer came in time.
    """
    pool = Pool()
    reviews = [(*right, pool.start(partial(api.allowed, *right))) for right in NEEDED]
    for verb, resource, review in reviews:
        try:
            allowed = review.result(seconds)
        except TimeoutError:
            raise ApiUnreachable(f"no access review was answered within {seconds:g} s") from None
        except ClusterError:
            continue
        if not allowed:
            raise Forbidden(verb, resource)
