"""Read the bundle of a command: from a live cluster, or from a capture with --from."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.request import Further, PathRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.collect.ask.access import NodeAccess
    from kubectl_ebpfnet.collect.lists import ListReader
    from kubectl_ebpfnet.model.path import Path

RequestOf = Callable[[str], PathRequest]
"""Namespace of the run → the request."""


@contextlib.contextmanager
def connect(global_flags: GlobalFlags, progress: Progress) -> Iterator[tuple[Session, NodeAccess]]:
    """Give a session with the cluster, and the node access of the flags.

    Raises:
        EbpfnetError: a flag is wrong, or the kubeconfig cannot be used.
    """
    options, access = global_flags.connection(), global_flags.nodes.access()
    from kubectl_ebpfnet.cluster.client.session import Session

    progress.show("connecting")
    with Session.open(options) as session:
        yield session, access


Look = Callable[[RequestOf], "tuple[Path, Bundle]"]
"""Asks and explains once; raises EbpfnetError."""


def gather(
    request_of: RequestOf,
    capture: str,
    global_flags: GlobalFlags,
    timeout: float | None,
    progress: Progress,
    preload: Sequence[str] = (),
) -> tuple[Path, Bundle]:
    """Read what `path` needs, and explain it; return the path and the bundle.

    Args:
        request_of: makes the request from the namespace of the run.
        capture, global_flags, timeout, progress, preload: as of `open_paths`.

    Raises:
        EbpfnetError: the capture or the cluster cannot be read.
    """
    with open_paths(capture, global_flags, timeout, progress, preload) as look:
        return look(request_of)


@contextlib.contextmanager
def open_paths(
    capture: str,
    global_flags: GlobalFlags,
    timeout: float | None,
    progress: Progress,
    preload: Sequence[str] = (),
) -> Iterator[Look]:
    """Give what answers questions of `path`, one after the other; node pods serve all of them.

    Args:
        capture: file of --from, `demo` for the built-in capture, "" for the live cluster.
        global_flags: kubectl's flags and node access.
        timeout: seconds to wait for answers to one question, None for no limit.
        progress: shows the current step and warnings.
        preload: modules to import while places answer.

    Raises:
        EbpfnetError: the capture or the cluster cannot be read.
    """
    paths: list[Path] = []

    def further(request: PathRequest, bundle: Bundle) -> Further:
        from kubectl_ebpfnet.explain.path.walk import explained

        progress.show("explaining")
        path, more = explained(request, bundle)
        paths[:] = [path]
        return more

    if capture:
        bundle = open_capture(capture)
        namespace = global_flags.namespace or "default"

        def read(request_of: RequestOf) -> tuple[Path, Bundle]:
            further(request_of(namespace), bundle)
            return paths[0], bundle

        yield read
        return
    with connect(global_flags, progress) as (session, access):
        from kubectl_ebpfnet.collect.gatherer import Gatherer
        from kubectl_ebpfnet.collect.path import look

        with Gatherer(session, access, warn=progress.warn, progress=progress.show) as gatherer:

            def asked(request_of: RequestOf) -> tuple[Path, Bundle]:
                gatherer.restart(timeout)
                _, bundle = look(
                    gatherer,
                    request_of(session.namespace),
                    meanwhile=lambda: _import(preload),
                    further=further,
                )
                return paths[0], bundle

            yield asked


@contextlib.contextmanager
def open_reader(
    capture: str, global_flags: GlobalFlags, timeout: float | None, progress: Progress
) -> Iterator[ListReader]:
    """Give what reads pods or a node, from the cluster or from a capture.

    Args:
        capture, global_flags, timeout, progress: as for `gather`.

    Raises:
        EbpfnetError: the capture or the cluster cannot be read; from the reader: the pod or node
            does not exist.
    """
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.collect.lists import CapturedLists, LiveLists

    if capture:
        yield CapturedLists(open_capture(capture), global_flags.namespace or "default")
        return
    with (
        connect(global_flags, progress) as (session, access),
        Gatherer(session, access, warn=progress.warn, progress=progress.show) as gatherer,
    ):
        yield LiveLists(gatherer, timeout)


def _import(modules: Sequence[str]) -> None:
    """Import modules while places answer."""
    # The code that needs the module imports it again, and raises the error there.
    with contextlib.suppress(Exception):
        for module in modules:
            importlib.import_module(module)


def open_capture(capture: str) -> Bundle:
    """Return the bundle of --from: `demo` is a built-in capture, `-` standard input, `./demo` and
    `./-` files of these names."""
    from kubectl_ebpfnet.capture.demo import is_demo, open_demo
    from kubectl_ebpfnet.capture.open import open_bundle, read_stream

    if capture == "-":
        if sys.stdin is None:
            raise UsageError("--from -: standard input is closed", hint="name a file instead")
        return read_stream(sys.stdin.buffer, "standard input")
    return open_demo(capture) if is_demo(capture) else open_bundle(capture)
