"""Find leftovers of runs with node pods in a cluster, and delete them.

The namespace of a run is deleted first: then the cluster deletes the rest in any case. Its pods are
deleted at the same time, since the namespace controller starts only after 5 s
(pkg/controller/namespace, namespaceDeletionGracePeriod).
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from concurrent.futures import wait
from dataclasses import replace
from datetime import datetime
from functools import partial

from kubectl_ebpfnet.cluster.client.api import CORE, Api, Object, Objects
from kubectl_ebpfnet.cluster.nodepods.manifest import (
    LIFETIME,
    SECONDS,
    SELECTOR,
    STARTED_BY,
    VERSION,
    run_of,
)
from kubectl_ebpfnet.cluster.nodepods.status import has_ended
from kubectl_ebpfnet.cluster.pool import Pool
from kubectl_ebpfnet.errors import ApiUnreachable, ClusterError, Forbidden, NotFound, ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.model.untrusted import integer, moment
from kubectl_ebpfnet.parse import kube

GONE_SECONDS = 5.0
"""Seconds that a removal waits for the processes of node pods to end."""
CLOCK_SECONDS = 300
"""Seconds that a live run's time may be over before it counts as dead."""
_COPY = re.compile(r".+-ebpfnet-[0-9a-f]{8}-(?:local|cluster)")
_PAUSE_SECONDS = 0.15
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Leftover:
    """An object of a run that still exists.

    Attributes:
        kind: `namespace`, `pod` outside a run's namespace, or `service` for the copy of a probed
            Service.
        namespace: namespace of a pod or service, "" for namespaces.
        name: name of the object.
        age: seconds since its creation.
        run: id of its run, "" when unknown.
        expired: its lifetime is over, so no run can need it.
        version: version of the program that created it.
        who: user and host that created it.
        pods: names of the pods in a namespace.
        leaving: it is already being deleted.
    """

    kind: str
    namespace: str
    name: str
    age: float
    run: str
    expired: bool
    version: str
    who: str = ""
    pods: tuple[str, ...] = ()
    leaving: bool = False

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f" in {self.namespace}" if self.namespace else "")


def leftovers(api: Api) -> list[Leftover]:
    """Return all objects of runs that still exist, also of runs in progress.

    Raises:
        Forbidden: namespaces or pods cannot be listed.
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    namespaces = {each.name: each for each in _namespaces(api) if each.run}
    elsewhere = []
    for pod in _found(api, api.pods(label_selector=SELECTOR)):
        if home := namespaces.get(pod.namespace):
            pods = tuple(sorted((*home.pods, pod.name)))
            namespaces[home.name] = replace(home, pods=pods)
        else:
            elsewhere.append(pod)
    return [*namespaces.values(), *elsewhere, *_copies(api)]


def remove(api: Api, leftover: Leftover) -> list[str]:
    """Delete a leftover, and wait until its pods end, GONE_SECONDS at most. A missing object is no
    error.

    Returns:
        Names of the pods whose end is not confirmed.

    Raises:
        Forbidden: an RBAC verb is missing.
        ClusterError: the API server refused otherwise, or cannot be reached.
    """
    if leftover.kind == "namespace":
        return delete_run(api, leftover.name, leftover.pods)
    plural = {"pod": "pods", "service": "services"}[leftover.kind]
    delete(api, f"{CORE}/namespaces/{leftover.namespace}/{plural}/{leftover.name}")
    return []


def rehearse_removal(api: Api, leftover: Leftover) -> None:
    """Let the server check the deletion of a leftover, and delete nothing. Raises as `remove`."""
    where = f"{CORE}/namespaces/{leftover.namespace or leftover.name}"
    plural = {"pod": "pods", "service": "services"}.get(leftover.kind)
    path = f"{where}/{plural}/{leftover.name}" if plural else where
    with contextlib.suppress(NotFound):
        api.delete(path, DryRun.SERVER.query)


def sweep(api: Api) -> None:
    """Delete expired leftovers of earlier runs; ignore failures."""
    with contextlib.suppress(ClusterError):
        for found in _namespaces(api):
            if found.run and found.expired and not found.leaving:
                with contextlib.suppress(ClusterError):
                    delete(api, f"{CORE}/namespaces/{found.name}")


def delete_run(api: Api, namespace: str, pods: Iterable[str]) -> list[str]:
    """Delete a run's namespace and pods, and wait until the pods' processes end, GONE_SECONDS at
    most.

    Args:
        api: the API server.
        namespace: namespace of the run.
        pods: names of the pods in it.

    Returns:
        Names of the pods whose end is not confirmed: their nodes do not answer.

    Raises:
        ClusterError: the namespace could not be deleted; deletion of its pods was tried too.
    """
    until = time.monotonic() + GONE_SECONDS
    path = f"{CORE}/namespaces/{namespace}"
    calls = [partial(delete, api, path, None, until)]
    calls += [partial(delete, api, f"{path}/pods/{pod}", 1, until) for pod in pods]
    pool = Pool()
    started = [pool.start(call) for call in calls]
    for problem in [call.exception() for call in started]:  # waits for every call
        if problem is not None:
            raise problem
    return _until_ended(api, path, until, pool)


def _until_ended(api: Api, path: str, until: float, pool: Pool) -> list[str]:
    """Wait for the end of the pods' processes, and delete each ended pod's object."""
    alive: list[str] = []
    while True:
        try:
            there = [kube.pod(each) for each in api.list(f"{path}/pods")]
        except ApiUnreachable:
            if time.monotonic() >= until:
                return alive
            time.sleep(_PAUSE_SECONDS)
            continue
        except NotFound:
            return []
        over = time.monotonic() >= until
        alive = [pod.name for pod in there if not has_ended(pod)]
        # A kubelet confirms the deletion late, a dead one never.
        done = [pod.name for pod in there if over or has_ended(pod)]
        calls = [partial(delete, api, f"{path}/pods/{name}", 0) for name in done]
        wait([pool.start(call) for call in calls])
        if over or not alive:
            return alive
        time.sleep(_PAUSE_SECONDS)


def delete(api: Api, path: str, grace: int | None = None, until: float = 0.0) -> None:
    """Delete an object; a missing object is no error.

    Args:
        api: the API server.
        path: path of the object.
        grace: grace period of its processes in seconds, None for that of the object.
        until: time.monotonic() until which a lost connection is retried.

    Raises:
        ClusterError: the API server refused, or cannot be reached.
    """
    while True:
        try:
            api.delete(path, {} if grace is None else {"gracePeriodSeconds": str(grace)})
            return
        except NotFound:
            return
        except ApiUnreachable:
            if time.monotonic() + _RETRY_SECONDS >= until:
                raise
            time.sleep(_RETRY_SECONDS)


def _copies(api: Api) -> list[Leftover]:
    """Return copies of Services (probe-lb --verify-policies), by our labels and names."""
    with contextlib.suppress(Forbidden, NotFound):
        found = _found(api, api.list(f"{CORE}/services", label_selector=SELECTOR))
        return [each for each in found if _COPY.fullmatch(each.name)]
    return []  # a user who may not list Services made no copies


def _namespaces(api: Api) -> list[Leftover]:
    return _found(api, api.list(f"{CORE}/namespaces", label_selector=SELECTOR))


def _found(api: Api, objects: Objects) -> list[Leftover]:
    now = api.session.clock.now()  # of the server that listed them, which is never a laptop's
    return [_leftover(each, now) for each in objects]


def _leftover(found: Object, now: datetime) -> Leftover:
    metadata = js.dig(found, "metadata")
    labels, notes = dict(js.pairs(metadata, "labels")), dict(js.pairs(metadata, "annotations"))
    kind, name = js.text(found, "kind").lower() or "namespace", js.text(metadata, "name")
    age = (now - _time(js.text(metadata, "creationTimestamp"), now)).total_seconds()
    return Leftover(
        kind=kind,
        namespace=js.text(metadata, "namespace"),
        name=name,
        age=age,
        run=run_of(name, labels) if kind == "namespace" else "",
        expired=age > _seconds(notes.get(LIFETIME)) + CLOCK_SECONDS,
        version=labels.get(VERSION, ""),
        who=notes.get(STARTED_BY, ""),
        leaving=bool(js.text(metadata, "deletionTimestamp")),
    )


def _time(text: str, now: datetime) -> datetime:
    try:
        return moment(text, "creationTimestamp")
    except ParseError:
        return now


def _seconds(text: str | None) -> int:
    try:
        return SECONDS if text is None else integer(text, LIFETIME)
    except ParseError:
        return SECONDS
