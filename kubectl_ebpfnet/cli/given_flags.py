"""kubectl's flags and those for node access as they were given, before they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.cli.arguments import duration
from kubectl_ebpfnet.cli.asked import Asked, asked
from kubectl_ebpfnet.cli.kubectl_flags import CONNECTION
from kubectl_ebpfnet.cli.terminal import Progress, log_line
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.dry_run import DryRun

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.access import ConnectionOptions
    from kubectl_ebpfnet.collect.ask.access import NodeAccess

WATCH_SECONDS = 8 * 3600
"""Lifetime of node pods of a --watch run."""


@dataclass(frozen=True, slots=True)
class NodeAccessFlags:
    """The flags for node access, as given.

    Attributes:
        mode: `agent`, `pod`, `none` or `auto`.
        image: image of node pods, "" for the default.
        keep: keep node pods for reuse.
        pull_secret: `NAMESPACE/NAME` or `NAME`, "" for none.
        seconds: lifetime of node pods, None for the default.
        dry_run: of --dry-run.
        yes: deploy node pods without a question.
    """

    mode: str = "auto"
    image: str = ""
    keep: bool = False
    pull_secret: str = ""
    seconds: int | None = None
    dry_run: DryRun = DryRun.NONE
    yes: bool = False

    def access(self) -> NodeAccess:
        """Return the node access that the flags describe.

        Raises:
            UsageError: an unknown mode, or --keep with a mode that deploys nothing.
        """
        from kubectl_ebpfnet.cluster.nodepods.manifest import DEFAULT_IMAGE, NodePodOptions
        from kubectl_ebpfnet.collect.ask.access import Mode, NodeAccess

        if self.mode not in list(Mode):
            raise UsageError(
                f"--node-access {self.mode!r}: no such mode", hint=f"one of: {', '.join(Mode)}"
            )
        if self.keep and self.mode in (Mode.AGENT, Mode.NONE):
            raise UsageError(
                f"--keep and --node-access {self.mode}: no node pod is deployed that could be kept",
                hint="--node-access pod deploys node pods",
            )
        image = self.image or DEFAULT_IMAGE
        options = NodePodOptions(image, self.pull_secret, self.keep, self.seconds)
        return NodeAccess(Mode(self.mode), options, self.dry_run)


@dataclass(frozen=True, slots=True)
class GlobalFlags:
    """kubectl's flags as given.

    Attributes:
        values: field of ConnectionOptions → value, of the given flags alone.
        verbosity: 0 to 10.
        nodes: node access, for commands that read nodes.
        warnings: takes those of the API server, None without --warnings-as-errors.
    """

    values: Mapping[str, Any]
    verbosity: int = 0
    nodes: NodeAccessFlags = NodeAccessFlags()
    warnings: list[str] | None = None

    def within(self, namespace: str, text: str) -> GlobalFlags:
        """Return the flags for an object whose word names its namespace.

        Args:
            namespace: of `NAMESPACE/POD`, "" for other forms.
            text: the object, for the error.

        Raises:
            UsageError: -n names another namespace.
        """
        if not namespace or namespace == self.namespace:
            return self
        if self.namespace:
            raise UsageError(
                f"-n {self.namespace} and {text} in {namespace}: two namespaces",
                hint="leave one of them out",
            )
        return replace(self, values={**self.values, "namespace": namespace})

    def watching(self) -> GlobalFlags:
        """Return the flags for a run that lasts until an interrupt, with long-lived node pods.

        A node pod ends a minute after its run, however the run ends.
        """
        return replace(self, nodes=replace(self.nodes, seconds=WATCH_SECONDS))

    @property
    def namespace(self) -> str:
        """The -n flag, "" when not given."""
        return str(self.values.get("namespace", ""))

    def asked(self, capture: str = "") -> Asked:
        """Return what is asked; `capture` is the value of --from."""
        return asked(self.values, capture)

    def progress(self) -> Progress:
        """Return what shows the run's steps and warnings, their commands for what is asked."""
        return Progress(self.asked().prose)

    def connection(self, within: float | None = None) -> ConnectionOptions:
        """Return the options for `Session.open`.

        Args:
            within: seconds that one request may take at most, None for no limit of the run's.

        Raises:
            UsageError: --request-timeout is not a duration.
        """
        from kubectl_ebpfnet.cluster.client.access import ConnectionOptions

        values: dict[str, Any] = dict(self.values)
        for flag in CONNECTION:
            if flag.repeated and flag.field in values:
                values[flag.field] = tuple(values[flag.field])
        if "request_timeout" in values:
            values["request_timeout"] = duration(values["request_timeout"], "--request-timeout")
        limits = [each for each in (values.get("request_timeout"), within) if each]
        values["request_timeout"] = min(limits, default=None)
        warn = self.warnings.append if self.warnings is not None else None
        return ConnectionOptions(**values, log_level=self.verbosity, log=log_line, warn=warn)
