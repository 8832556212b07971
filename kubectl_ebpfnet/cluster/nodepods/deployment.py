"""Deploy node pods for a run, and delete them at its end.

A run that deploys creates one namespace (manifest.py) and deletes it with all of its objects at the
run's end, on Ctrl-C and on SIGTERM. Node pods of a killed run end by themselves (the first process
when idle, the kubelet by activeDeadlineSeconds); the next run or `kubectl ebpfnet cleanup` deletes
their objects (leftovers.py).
"""

from __future__ import annotations

import getpass
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from datetime import timedelta
from functools import partial

from kubectl_ebpfnet.cluster.client.api import CORE, Api, Object
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods import leftovers, manifest
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod, node_pod
from kubectl_ebpfnet.cluster.nodepods.manifest import (
    DEFAULT_IMAGE,
    NodePodOptions,
    Run,
)
from kubectl_ebpfnet.cluster.nodepods.nodes import why_not_on
from kubectl_ebpfnet.cluster.nodepods.sides import packed
from kubectl_ebpfnet.cluster.nodepods.status import (
    POLL_SECONDS,
    Snapshot,
    failure_of,
    is_running,
    pod_deleted,
)
from kubectl_ebpfnet.cluster.pool import Pool
from kubectl_ebpfnet.cluster.signals import DeferredSignals
from kubectl_ebpfnet.errors import (
    ApiError,
    ApiUnreachable,
    ClusterError,
    EbpfnetError,
    Forbidden,
    RunEnded,
)

__all__ = ["DEFAULT_IMAGE", "Deployment", "NodePodOptions", "whoami"]

REMOVAL_SECONDS = 10.0
"""Longest time for the removal at a run's end, whatever the API server does."""
_CREATION_SECONDS = 3.0  # part of REMOVAL_SECONDS, to let started creations finish
_ACCOUNT_SECONDS = 15.0
_NODE_SECONDS = 3.0  # check the node of a pod that does not start
_PRIORITY = re.compile("priority", re.IGNORECASE)
_NO_ACCOUNT = re.compile("service ?account.*not found", re.IGNORECASE)


class Deployment:
    """The node pods of a run. Leaving its `with` deletes them. Threads may share it, except
    `start` and `__exit__`, which only the main thread calls.

    Attributes:
        run: the run's id and namespace.
    """

    def __init__(
        self, session: Session, options: NodePodOptions, warn: Callable[[str], object]
    ) -> None:
        """Prepare a deployment without contacting the cluster.

        Args:
            session: the connection; it must stay open until the `with` ends.
            options: image, lifetime and pull secret of the pods.
            warn: takes a line for stderr about pods that stay.

        Raises:
            UsageError: the name of the pull secret is invalid.
        """
        self._api = Api(session)
        self.run = Run(whoami(), session.clock.now())
        self._options = options
        self._warn = warn
        self._secret_path = manifest.secret_path(options.pull_secret, session.namespace)
        self._closing = threading.Event()
        self._pool = Pool()  # its own: removal must not wait for places that do not answer
        self._calls: list[Future[None]] = []
        self._namespace: Future[None] | None = None
        self._pods: dict[str, tuple[str, Future[None]]] = {}  # node → pod, creation
        self._numbers = itertools.count(1)
        self._ran_pods: set[str] = set()  # names of pods that run
        self._lost_pods: set[str] = set()  # names of pods that ran, and have ended
        self._namespace_refused = False  # creation of the namespace was forbidden
        self._snapshot = Snapshot(self._api, self._namespace_path)

    @property
    def _namespace_path(self) -> str:
        return f"{CORE}/namespaces/{self.run.namespace}"

    def __enter__(self) -> Deployment:
        return self

    # --- deploying --------------------------------------------------------------------------------

    def start(self, nodes: Iterable[str], seconds: float | None = None) -> None:
        """Create the pods of some nodes concurrently; `wait` returns each. Call it again for more
        nodes, and after an ApiUnreachable; a node whose pod is `lost` gets another one.

        Args:
            nodes: names.
            seconds: longest time to wait for the namespace; None for no limit.

        Raises:
            Forbidden: the namespace cannot be created, or the pull secret cannot be read.
            ApiUnreachable: the API server cannot be reached, or does not answer in time.
            ClusterError: it refused otherwise.
        """
        if self._namespace is None:
            self._pool.start(partial(leftovers.sweep, self._api))
            if self._options.image != DEFAULT_IMAGE:
                self._pool.start(packed)  # it will be needed: 0.15 s, while the pods start
            self._namespace = self._pool.start(self._create_namespace, self._calls)
        elif self._namespace.done() and self._namespace.exception() is not None:
            again = partial(self._create_namespace, again=True)
            self._namespace = self._pool.start(again, self._calls)
        try:
            self._namespace.result(seconds)
        except TimeoutError:
            raise ApiUnreachable(f"no namespace was created within {seconds:g} s") from None
        new = [node for node in dict.fromkeys(nodes) if node not in self._pods or self.lost(node)]
        # In threads: an interrupt must not hide which pods were created.
        for node in new:
            number = next(self._numbers)
            created = self._pool.start(partial(self._create_pod, node, number), self._calls)
            self._pods[node] = (f"node-{number}", created)

    def lost(self, node: str) -> bool:
        """Tell whether the pod of a node ran, and `wait` has found that it does not any more."""
        return node in self._pods and self._pods[node][0] in self._lost_pods

    def _create_namespace(self, *, again: bool = False) -> None:
        secret = None
        if self._secret_path is not None:
            secret = manifest.pull_secret(self.run, self._api.get(self._secret_path))
        try:
            self._create(f"{CORE}/namespaces", manifest.namespace(self.run, self._options), again)
        except Forbidden:
            self._namespace_refused = True  # so there is nothing to delete
            raise
        if secret is not None:
            self._create(f"{self._namespace_path}/secrets", secret, again)

    def _create(self, path: str, body: Object, again: bool = False) -> None:
        """Create an object with a name that is unique to this run; `again` if that was tried."""
        try:
            self._api.create(path, body)
        except ApiUnreachable:
            # The connection may have been stale; the request may have succeeded.
            if again or self._closing.is_set():
                raise
            self._create(path, body, again=True)
        except ApiError as error:
            if not again or error.status != 409:
                raise

    def _create_pod(self, node: str, number: int) -> None:
        until = time.monotonic() + _ACCOUNT_SECONDS
        priority = True
        while not self._closing.is_set():
            body = manifest.pod(self.run, node, number, self._options, priority)
            try:
                self._create(f"{self._namespace_path}/pods", body)
                return
            except ApiError as error:
                if error.status == 403 and priority and _PRIORITY.search(error.message):
                    priority = False  # a cluster may reserve the priority for its own namespaces
                elif _NO_ACCOUNT.search(error.message) and time.monotonic() < until:
                    # A controller creates the service account of a new namespace a moment later.
                    self._closing.wait(2 * POLL_SECONDS)
                else:
                    raise

    # --- waiting ----------------------------------------------------------------------------------

    def wait(self, node: str, seconds: float) -> NodePod:
        """Wait until the node pod of a started node runs, and return it.

        Raises:
            ClusterError: the pod does not run within `seconds`, or never will: its image cannot be
                pulled, it cannot be scheduled, a policy refuses it, its node is not ready, or it
                was deleted.
            Forbidden: pods cannot be created or listed.
        """
        started_at = time.monotonic()
        name, created = self._pods[node]
        try:
            created.result(timeout=seconds)
        except TimeoutError:
            raise ClusterError(f"the node pod on {node} was not created in time") from None
        created_at, node_checked = time.monotonic(), False
        while True:
            pod = self._snapshot.pod(name, created_at)
            if self._closing.is_set():
                raise ClusterError(f"the run ended before the node pod on {node} ran")
            if pod is None:
                self._lose(name)
                raise pod_deleted(node)
            if is_running(pod):
                self._ran_pods.add(name)
                return node_pod(pod)
            waited = time.monotonic() - created_at
            problem = failure_of(pod, node, waited)
            if problem is None and waited > _NODE_SECONDS and not node_checked:
                node_checked, why = True, why_not_on(self._api, node)
                problem = ClusterError(why) if why else None
            if problem is not None:
                self._lose(name)
                raise problem
            if time.monotonic() - started_at > seconds:
                raise ClusterError(
                    f"the node pod on {node} does not run in time: it is {pod.state}",
                    hint="--timeout allows more; a first run has to pull the image",
                )
            self._closing.wait(POLL_SECONDS)

    def _lose(self, name: str) -> None:
        if name in self._ran_pods:
            self._ran_pods.discard(name)
            self._lost_pods.add(name)

    # --- deleting ---------------------------------------------------------------------------------

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Delete all objects of the run, or with `keep` the pods that do not run.

        It ends within REMOVAL_SECONDS and warns about objects that stay.
        """
        with DeferredSignals() as signals:
            self._closing.set()
            if not self._calls or self._namespace_refused:
                return
            quiet = kind is None or issubclass(kind, EbpfnetError | RunEnded)
            keep = self._options.keep and quiet
            done = Pool().start(self._keep if keep and self._ran_pods else self._remove)
            until, warned = time.monotonic() + REMOVAL_SECONDS, False
            if kind is not None and not issubclass(kind, Exception):
                warned = True
                self._warn(f"interrupted: deleting node pods, up to {REMOVAL_SECONDS:g} s")
            while not done.done() and time.monotonic() < until:
                wait([done], timeout=POLL_SECONDS)
                if signals.received and not warned:
                    warned = True
                    self._warn(f"deleting node pods, up to {REMOVAL_SECONDS:g} s")
            if not done.done():
                self._warn_left_behind(
                    "may be left: the API server has not confirmed its deletion within "
                    f"{REMOVAL_SECONDS:g} s"
                )
            elif (problem := done.exception()) is not None:
                self._warn_left_behind(f"could not be deleted: {problem}")
            if signals.received and kind is not None:
                signals.received.clear()  # the run ends already

    def _remove(self) -> None:
        wait(self._calls, timeout=_CREATION_SECONDS)
        pods = {name: node for node, (name, _) in self._pods.items()}
        alive = leftovers.delete_run(self._api, self.run.namespace, pods)
        if alive:
            nodes = ", ".join(pods.get(name, name) for name in alive)
            self._warn(f"node pods on {nodes} were deleted, but their end is not confirmed")
        if self._namespace is not None and not self._namespace.done():
            self._warn_left_behind("may be left: the API server has not answered its creation")

    def _keep(self) -> None:
        wait(self._calls, timeout=_CREATION_SECONDS)
        for name, _ in self._pods.values():
            if name not in self._ran_pods:
                leftovers.delete(self._api, f"{self._namespace_path}/pods/{name}", 0)
        nodes = ", ".join(node for node, (name, _) in self._pods.items() if name in self._ran_pods)
        until = self.run.started + timedelta(seconds=self._options.lifetime)
        self._warn(
            f"kept until {until:%H:%M} UTC: node pods on {nodes}, in namespace "
            f"{self.run.namespace}; `kubectl ebpfnet cleanup` deletes them"
        )

    def _warn_left_behind(self, how: str) -> None:
        self._warn(
            f"namespace {self.run.namespace} {how}; its pods end by themselves, "
            "`kubectl ebpfnet cleanup` deletes the rest"
        )


def whoami() -> str:
    """Return user and host, which the objects of a run name as their owner."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
