"""Read the bundle of a command: from a live cluster, or from a capture with --from."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli.agreement import agreement
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.evidence import Bundle

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.collect.ask.access import NodeAccess
    from kubectl_ebpfnet.collect.lists import ListReader


_OTHERWISE = "--yes or --node-access pod deploys node pods"


@contextlib.contextmanager
def connect(
    global_flags: GlobalFlags, progress: Progress, *, reads: bool = True
) -> Iterator[tuple[Session, NodeAccess]]:
    """Give a session with the cluster, and the node access of the flags.

    Args:
        global_flags: of the command.
        progress: shows the current step.
        reads: the command only reads, so it asks before it deploys what no flag asks for.

    Raises:
        EbpfnetError: a flag is wrong, or the kubeconfig cannot be used.
    """
    options, access = global_flags.connection(), global_flags.nodes.access()
    from kubectl_ebpfnet.cluster.client.session import Session

    if reads and not global_flags.nodes.yes:
        access = replace(access, agree=agreement(progress, _OTHERWISE))
    progress.show("connecting")
    with Session.open(options) as session:
        yield session, access


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
        namespace = global_flags.namespace or "default"
        yield CapturedLists(open_capture(capture), namespace, progress.warn)
        return
    with (
        connect(global_flags, progress) as (session, access),
        Gatherer(session, access, warn=progress.warn, progress=progress.show) as gatherer,
    ):
        yield LiveLists(gatherer, timeout)


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
