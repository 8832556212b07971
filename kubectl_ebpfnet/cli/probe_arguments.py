"""Read the command line of `probe-lb` into a frozen request, and run it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.sources import connect, open_capture
from kubectl_ebpfnet.cli.terminal import Progress
from kubectl_ebpfnet.errors import BundleError, UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.dry_run import DryRun
from kubectl_ebpfnet.model.net import TCP, UDP
from kubectl_ebpfnet.model.probe import Judgement, ProbeRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.collect.gatherer import Gatherer
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.probe import ProbeReport
    from kubectl_ebpfnet.render.text.view import View

EXIT_CODES = {Judgement.AS_ASKED: 0, Judgement.CONTRADICTED: 3, Judgement.UNKNOWN: 4}
_PROTOCOLS = {"": None, "tcp": TCP, "udp": UDP}
_MOST_ATTEMPTS = 100
_NODE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(?<!\.zip)(?<!\.json)(?<!\.gz)")


@dataclass(frozen=True, slots=True)
class ProbeFlags:
    """The flags of `probe-lb` as typed; each field is a flag, `service` the argument."""

    service: str
    port: str = ""
    nodes: str = ""
    from_node: str = ""
    protocol: str = ""
    wait: str = "5s"
    http_path: str = ""
    attempts: int = 1
    node_ports: bool = False

    def request(self, namespace: str) -> ProbeRequest:
        """Return the request. Raises UsageError."""
        if self.protocol.lower() not in _PROTOCOLS:
            raise UsageError(
                f"--protocol {self.protocol!r}: probe-lb does not send it", hint="one of: tcp, udp"
            )
        if not 1 <= self.attempts <= _MOST_ATTEMPTS:
            raise UsageError(f"--attempts {self.attempts}: 1 to {_MOST_ATTEMPTS}")
        if self.http_path and not self.http_path.startswith("/"):
            raise UsageError(
                f"--http-path {self.http_path!r} does not start with /", hint="e.g. /clientip"
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
            from_node=_node(self.from_node),
            node_ports=self.node_ports,
            wait=seconds,
            http_path=self.http_path,
            attempts=self.attempts,
        )


def _service(word: str) -> str:
    """Return the name in `svc/x` or in a bare name. Raises UsageError."""
    if "/" not in word:
        word = f"svc/{word}"
    named = arguments.destination(word)
    if named.kind != "service" or named.port is not None or named.port_name:
        raise UsageError(
            f"{word!r} is not a Service", hint="e.g. svc/web-lb; use --port for its port"
        )
    return named.name


def _node(word: str) -> str:
    if not word:
        return ""
    named = arguments.target(word if "/" in word else f"node/{word}")
    if named.kind != "node":
        hint = "e.g. --from-node node/NAME"
        raise UsageError(f"--from-node {word!r}: probes are sent from a node", hint=hint)
    return named.name


Reports = list[tuple["ProbeReport", "Bundle"]]


@contextlib.contextmanager
def prober(
    probe_flags: ProbeFlags,
    global_flags: GlobalFlags,
    capture: str,
    verify: bool,
) -> Iterator[Callable[[], Reports]]:
    """Give a function that probes once and returns the reports.

    Args:
        probe_flags: flags of `probe-lb`.
        global_flags: kubectl's flags and node access.
        capture: file of --from, of which the expected results are reported, "" for the cluster.
        verify: probe a copy of the Service for each externalTrafficPolicy instead of the Service.

    Raises:
        EbpfnetError: the request is wrong or the cluster cannot be reached; also from the function.
    """
    probe_flags.request("default")  # refuse a wrong request before the cluster is contacted
    if capture:
        bundle = _opened(capture, verify=verify)
        from kubectl_ebpfnet.explain.lb.judge import judge

        request = probe_flags.request(global_flags.namespace or "default")
        reports: Reports = [(judge(request, bundle), bundle)]
        Progress().warn("a capture holds no probes: these are the expected results")
        yield lambda: reports
        return
    from kubectl_ebpfnet.active.lb import run, verify_policies
    from kubectl_ebpfnet.collect.gatherer import Gatherer

    with (
        global_flags.progress() as progress,
        connect(global_flags, progress, reads=False) as (session, access),
        Gatherer(session, access, warn=progress.warn, progress=progress.show) as gatherer,
    ):
        request = probe_flags.request(session.namespace)
        if access.dry_run is DryRun.SERVER:
            _rehearse(gatherer, progress)
        dry_run = access.dry_run is not DryRun.NONE
        if verify and not dry_run:
            with verify_policies.verifier(gatherer, request) as probe_copies:
                yield probe_copies
            return
        probe = run.Probe.plan if dry_run else run.Probe.run
        yield lambda: [probe(run.Probe(gatherer, request))]


def _opened(capture: str, *, verify: bool) -> Bundle:
    """Read a capture; the hint where there is none names the flag that --from once was."""
    if verify:
        raise UsageError("--verify-policies copies the Service: it needs a cluster, not --from")
    try:
        return open_capture(capture)
    except BundleError as error:
        old = capture.startswith(("node/", "no/", "nodes/"))
        if os.path.exists(capture) or not (old or _NODE_NAME.fullmatch(capture)):
            raise
        hint = f"the sending node is --from-node {shlex.quote(capture)}"
        if old:
            raise UsageError(f"--from {capture}: no such capture", hint=hint) from None
        error.hint = f"{hint}; {error.hint}"
        raise


def _rehearse(gatherer: Gatherer, progress: Progress) -> None:
    """Let the server check what a probe would create; its senders are chosen only then."""
    from kubectl_ebpfnet.cluster.nodepods.rehearsal import rehearse

    options = gatherer.access.options
    for line in rehearse(gatherer.api, (), options, DryRun.SERVER, gatherer.deadline.left):
        progress.warn(line)


def exit_code(reports: Reports, *, asked: bool, dry_run: bool) -> int:
    """Return the exit code of a run.

    Args:
        reports: of all probes.
        asked: --exit-code was given.
        dry_run: nothing was sent.
    """
    if dry_run:
        return 0
    rows = [row.judgement for report, _ in reports for row in report.rows]
    nothing_known = bool(rows) and set(rows) == {Judgement.UNKNOWN}
    return EXIT_CODES[worst_verdict(reports)] if asked or nothing_known else 0


def worst_verdict(reports: Reports) -> Judgement:
    """Return the worst verdict of all reports."""
    worst_first = (Judgement.CONTRADICTED, Judgement.UNKNOWN, Judgement.AS_ASKED)
    return min((report.verdict for report, _ in reports), key=worst_first.index)


def render_reports(reports: Reports, output: str, view: View) -> str:
    """Render one report, or several: text one after the other, JSON and YAML in one document.

    Args:
        reports: each with the bundle that proves it.
        output: name of the format.
        view: width, colour and verbosity.
    """
    if output == "html":
        from kubectl_ebpfnet.render.lb.page import page

        return page(reports)
    from kubectl_ebpfnet.render.lb import report

    if len(reports) == 1:
        return report.render(*reports[0], output, view)
    if output not in ("table", "wide"):
        return report.render_all(reports, output)
    return "\n".join(report.render(each, bundle, output, view) for each, bundle in reports)


def render_watched(probe: Callable[[], Reports], output: str, view: View) -> Callable[[], str]:
    """Give a function that probes once more and renders the result with the changes since the last.

    Args:
        probe: probes once.
        output: name of the format; changes are listed in text formats only.
        view: width, colour and verbosity.
    """
    from datetime import datetime

    from kubectl_ebpfnet.render.lb.changes import Changes

    changes = Changes()

    def text() -> str:
        reports = probe()
        shown = render_reports(reports, output, view)
        if output not in ("table", "wide"):
            return shown
        now = datetime.now().astimezone()
        lines = changes.lines((report for report, _ in reports), now, view)
        return shown + "".join(f"{line}\n" for line in ["", *lines]) if lines else shown

    return text
