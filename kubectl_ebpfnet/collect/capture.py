"""Run `capture`: ask some places every question of `path`, for any destination.

No packet narrows the tables. Records are written as they come, so a capture of long tables needs
little memory.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from kubectl_ebpfnet.capture.open import open_bundle, write_bundle
from kubectl_ebpfnet.capture.redact import text as redaction
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.collect.ask.node_access import BY_AGENT, NodeAccess
from kubectl_ebpfnet.collect.gatherer import Gatherer, Notify
from kubectl_ebpfnet.collect.scope import EVERYTHING
from kubectl_ebpfnet.collect.survey import SurveyTarget, survey
from kubectl_ebpfnet.errors import BundleError


def capture(
    session: Session,
    targets: Iterable[SurveyTarget],
    file: str | Path,
    *,
    redact: bool = False,
    overwrite: bool = False,
    access: NodeAccess = BY_AGENT,
    timeout: float | None = None,
    warn: Notify = lambda _: None,
    progress: Notify = lambda _: None,
) -> int:
    """Record a cluster into a file.

    Args:
        session: the connection; pods and workloads are looked for in its namespace.
        targets: the places; without any, every node with an agent.
        file: the zip to write, see capture/open.py.
        redact: replace addresses and names.
        overwrite: replace an existing file.
        access: how nodes may be asked; node pods that it deploys are removed at the end.
        timeout: seconds for the whole run; late answers are left out.
        warn: takes lines that the user must read.
        progress: takes a line about the current step.

    Returns:
        The number of records in the file.

    Raises:
        BundleError: the file exists already, or cannot be written.
        NotFound: a target does not exist.
        ClusterError: the API server cannot be reached, or does not let this user read a place.
    """
    target = Path(file)
    if not overwrite and target.exists():
        raise BundleError(f"{target} is there already", hint="give another name, or --force")
    substitutes: dict[str, str] = {}
    with (
        _sigterm_raises(),
        Gatherer(
            session, access, timeout=timeout, folder=target.parent, warn=warn, progress=progress
        ) as gatherer,
    ):
        survey(gatherer, targets, lambda _: EVERYTHING)
        records = gatherer.records()
        if not redact:
            return write_bundle(target, records, overwrite=overwrite)
        # The names to replace are known only when every record is there.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
            whole = Path(name) / "whole.zip"
            write_bundle(whole, records)
            progress("replacing addresses and names")
            original = open_bundle(whole)
            bundle = redaction.redact(original)
            count = write_bundle(target, bundle.records, bundle.note, overwrite=overwrite)
            # On stderr alone: the maker of the file has to know how to ask it.
            for before, after in zip(original.records, bundle.records, strict=True):
                if before.place != after.place:
                    substitutes[str(before.place)] = str(after.place)
            for name, substitute in substitutes.items():
                warn(f"{name} is called {substitute} in it")
            return count


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no part of a file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_: int, __: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
