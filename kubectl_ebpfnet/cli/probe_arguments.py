"""The words of `probe-lb` → a frozen request, and a run of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.net import TCP, UDP
from kubectl_ebpfnet.model.probe import Judgement, ProbeRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.probe import ProbeReport
    from kubectl_ebpfnet.render.text.view import View

EXIT_CODES = {Judgement.AS_ASKED: 0, Judgement.CONTRADICTED: 3, Judgement.UNKNOWN: 4}
_PROTOCOLS = {"": None, "tcp": TCP, "udp": UDP}
_MOST_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class ProbeFlags:
    """The command line of `probe-lb`."""

    service: str
    port: str = ""
    nodes: str = ""
    sender: str = ""
    protocol: str = ""
    wait: str = "5s"
    http_path: str = ""
    attempts: int = 1
    node_ports: bool = False

    def request(self, namespace: str) -> ProbeRequest:
        """What is asked. Raises UsageError."""
        if self.protocol.lower() not in _PROTOCOLS:
            raise UsageError(
                f"--protocol {self.protocol!r}: it cannot be probed", hint="it is tcp or udp"
            )
        if not 1 <= self.attempts <= _MOST_ATTEMPTS:
            raise UsageError(f"--attempts {self.attempts}: 1 to {_MOST_ATTEMPTS}")
        if self.http_path and not self.http_path.startswith("/"):
            raise UsageError(
                f"--http-path {self.http_path!r} does not begin with /", hint="e.g. /clientip"
            )
        seconds = arguments.duration(self.wait, "--wait")
        if seconds is None or not 0.1 <= seconds <= 60:
            raise UsageError(f"--wait {self.wait}: from 100ms to 60s")
        return ProbeRequest(
            namespace=namespace,
            service=_service(self.service),
            port=self.port,
            protocol=_PROTOCOLS[self.protocol.lower()],
            nodes=self.nodes,
            from_node=_node(self.sender),
            node_ports=self.node_ports,
            wait=seconds,
            http_path=self.http_path,
            attempts=self.attempts,
        )


def _service(word: str) -> str:
    """The name of `svc/x`, or of a bare name. Raises UsageError."""
    if "/" not in word:
        word = f"svc/{word}"
    found = arguments.destination(word)
    if found.kind != "service" or found.port is not None or found.port_name:
        raise UsageError(f"{word!r} is no Service", hint="e.g. svc/web-lb; --port names its port")
    return found.name


def _node(word: str) -> str:
    if not word:
        return ""
    found = arguments.target(word if "/" in word else f"node/{word}")
    if found.kind != "node":
        raise UsageError(f"--from {word!r}: probes are sent from a node", hint="--from node/NAME")
    return found.name


Reports = list[tuple["ProbeReport", "Bundle"]]


@contextlib.contextmanager
def prober(
    asked: ProbeFlags, given: GlobalFlags, dry_run: bool, copies: bool, progress: Progress
) -> Iterator[Callable[[], Reports]]:
    """Gives a function that probes once.

    Args:
        dry_run: nothing is sent: what is expected.
        copies: not the Service itself is probed but a copy of it for each policy.

    Raises:
        EbpfnetError: as the function does.
    """
    asked.request("default")  # wrong words are told before anything is asked
    connection, access = given.connection(), given.nodes.access()
    from kubectl_ebpfnet.active.lb import run as lb
    from kubectl_ebpfnet.active.lb import verify_policies
    from kubectl_ebpfnet.cluster.client.session import Session

    progress.show("connecting")
    with (
        Session.open(connection) as session,
        lb.means(session, access, progress.warn, progress.show) as means,
    ):
        request = asked.request(session.namespace)
        if copies and not dry_run:
            with verify_policies.verifier(means, request) as verify:
                yield verify
            return
        probe = lb.Probe(means, request)
        yield lambda: [probe.plan() if dry_run else lb.Probe(means, request).run()]


def worst(reports: Reports) -> Judgement:
    """The verdict of several."""
    verdicts = [report.verdict for report, _ in reports]
    for verdict in (Judgement.CONTRADICTED, Judgement.UNKNOWN):
        if verdict in verdicts:
            return verdict
    return Judgement.AS_ASKED


def text_of(reports: Reports, output: str, view: View) -> str:
    """One report as it is; several one after the other, or in one document."""
    from kubectl_ebpfnet.render.lb import report as probe

    if len(reports) == 1:
        return probe.render(*reports[0], output, view)
    if output in ("json", "yaml"):
        return probe.render_all(reports, output)
    return "\n".join(probe.render(report, bundle, output, view) for report, bundle in reports)


def watched(probe: Callable[[], Reports], output: str, view: View) -> Callable[[], str]:
    """Gives a function that probes once more and shows what changed since the last time."""
    from datetime import datetime

    from kubectl_ebpfnet.render.lb.changes import Changes

    changes = Changes()

    def text() -> str:
        reports = probe()
        said = text_of(reports, output, view)
        if output in ("json", "yaml"):
            return said
        now = datetime.now().astimezone()
        lines = changes.lines((report for report, _ in reports), now, view.width)
        return said + "".join(f"{line}\n" for line in ["", *lines]) if lines else said

    return text
