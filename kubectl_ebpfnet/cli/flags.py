"""kubectl's own flags, once: every command that asks a cluster takes them all.

Names, short forms and meanings: `kubectl options` 1.37. kubectl hands a plugin only the words
after its name, so each flag has to be read again here. The first few are in every `--help`, the
rest in `kubectl ebpfnet options`; all are accepted everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubectl_ebpfnet.cli.arguments import duration
from kubectl_ebpfnet.errors import UsageError

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.kubeconfig import ConnectionOptions
    from kubectl_ebpfnet.collect.ask.node_access import NodeAccess


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        field: of ConnectionOptions.
        spellings: as on the command line.
        metavar: what stands for its value in a help text, "" for a switch.
        help: one sentence.
        repeated: may be given several times.
        shown: in every command's help, and not only in `options`.
    """

    field: str
    spellings: tuple[str, ...]
    metavar: str
    help: str
    repeated: bool = False
    shown: bool = False

    @property
    def annotation(self) -> Any:
        """The type as typer reads it."""
        option = typer.Option(
            *self.spellings,
            metavar=self.metavar or None,
            help=self.help,
            hidden=not self.shown,
            show_default=False,
        )
        kind: Any = bool if not self.metavar else list[str] if self.repeated else str
        return Annotated[kind if kind is bool else kind | None, option]


CONNECTION = (
    Flag("namespace", ("-n", "--namespace"), "NAME", "Namespace of the source", shown=True),
    Flag("context", ("--context",), "NAME", "Context of the kubeconfig to use", shown=True),
    Flag("kubeconfig", ("--kubeconfig",), "FILE", "Kubeconfig file to use", shown=True),
    Flag("cluster", ("--cluster",), "NAME", "Cluster of the kubeconfig to use"),
    Flag("user", ("--user",), "NAME", "User of the kubeconfig to use"),
    Flag("server", ("-s", "--server"), "URL", "Address and port of the API server"),
    Flag("token", ("--token",), "TOKEN", "Bearer token for the API server"),
    Flag("as_user", ("--as",), "NAME", "User to impersonate"),
    Flag("as_groups", ("--as-group",), "NAME", "Group to impersonate; may be repeated", True),
    Flag("as_uid", ("--as-uid",), "UID", "UID to impersonate"),
    Flag(
        "as_user_extra",
        ("--as-user-extra",),
        "KEY=VALUE",
        "Extra of the user to impersonate; may be repeated",
        True,
    ),
    Flag("certificate_authority", ("--certificate-authority",), "FILE", "CA of the API server"),
    Flag("client_certificate", ("--client-certificate",), "FILE", "Client certificate for TLS"),
    Flag("client_key", ("--client-key",), "FILE", "Client key for TLS"),
    Flag(
        "insecure_skip_tls_verify",
        ("--insecure-skip-tls-verify",),
        "",
        "Do not verify the API server's certificate: the connection is insecure",
    ),
    Flag("tls_server_name", ("--tls-server-name",), "NAME", "Name in the server's certificate"),
    Flag("proxy_url", ("--proxy-url",), "URL", "Proxy on the way to the API server"),
    Flag(
        "request_timeout",
        ("--request-timeout",),
        "TIME",
        "How long one request to the API server may take: 10s, 1m; 0 is no limit",
    ),
)

VERBOSITY = Flag(
    "verbosity",
    ("-v", "--v"),
    "[N]",
    "Show the evidence of each hop: -v, -v=1, --v=1; from 9 on also tracebacks of this tool",
    shown=True,
)


# How nodes may be asked: flags of ours that each command has which asks them.
NODES = (
    Flag(
        "mode",
        ("--node-access",),
        "HOW",
        "How to read nodes: agent (exec in Cilium's agent), pod (a node pod, deployed for this "
        "run), none, or auto: a kept node pod, else agent, else pod (default: auto)",
        shown=True,
    ),
    Flag(
        "image",
        ("--image",),
        "NAME",
        "Image of node pods; it must have this program's version",
        shown=True,
    ),
    Flag("keep", ("--keep",), "", "Keep node pods for reuse", shown=True),
    Flag(
        "pull_secret",
        ("--image-pull-secret",),
        "NAMESPACE/NAME",
        "Secret to pull the image of node pods with; copied for the run",
        shown=True,
    ),
)

# Arguments and flags of ours that several commands share.
Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="pod/NAME, NAME, or deploy/, sts/, ds/NAME")
]
Destination = Annotated[
    str,
    typer.Argument(
        metavar="DESTINATION",
        help="An IPv4 or IPv6 address, pod/NAME, svc/NAME, node/NAME or a DNS name, with :PORT",
    ),
]
Protocol = Annotated[str, typer.Option("--protocol", metavar="NAME", help="One of: tcp, udp, icmp")]
ToNamespace = Annotated[
    str,
    typer.Option(
        "--to-namespace",
        metavar="NAME",
        help="Namespace of the destination, if it is not -n's",
        show_default=False,
    ),
]
Capture = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read this capture instead of a cluster; `demo` is built in",
        show_default=False,
    ),
]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Refresh until interrupted")]
ListOutput = Annotated[
    str, typer.Option("-o", "--output", metavar="FORMAT", help="One of: table, wide, json, yaml")
]
Color = Annotated[str, typer.Option("--color", metavar="WHEN", help="One of: auto, always, never")]
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="TIME", help="Stop waiting after this long and show what is known"
    ),
]


WATCH_SECONDS = 8 * 3600
"""That node pods of a --watch may live."""


def check_list_output(name: str) -> None:
    """Raises UsageError for a format that lists do not have."""
    from kubectl_ebpfnet.render.lists.listing import FORMATS

    if name not in FORMATS:
        raise UsageError(f"-o {name!r}: no such format", hint=f"one of: {', '.join(FORMATS)}")


@dataclass(frozen=True, slots=True)
class NodeAccessFlags:
    """How nodes may be asked, as it was said on the command line.

    Attributes:
        mode, image, keep, pull_secret: of the flags.
        seconds: that node pods may live; None for what is usual.
    """

    mode: str = "auto"
    image: str = ""
    keep: bool = False
    pull_secret: str = ""
    seconds: int | None = None

    def access(self) -> NodeAccess:
        """For the runs that ask nodes.

        Raises:
            UsageError: there is no such mode.
        """
        from kubectl_ebpfnet.cluster.nodepods.deployment import DEFAULT_IMAGE, NodePodOptions
        from kubectl_ebpfnet.collect.ask.node_access import Mode, NodeAccess

        if self.mode not in list(Mode):
            raise UsageError(
                f"--node-access {self.mode!r}: no such mode", hint=f"one of: {', '.join(Mode)}"
            )
        if self.keep and self.mode in (Mode.AGENT, Mode.NONE):
            raise UsageError(
                f"--keep and --node-access {self.mode}: no node pod is deployed that could be kept",
                hint="--node-access pod deploys node pods",
            )
        options = NodePodOptions(
            image=self.image or DEFAULT_IMAGE,
            pull_secret=self.pull_secret,
            keep=self.keep,
            seconds=self.seconds,
        )
        return NodeAccess(Mode(self.mode), options)


@dataclass(frozen=True, slots=True)
class GlobalFlags:
    """kubectl's flags as they were given.

    Attributes:
        values: field of ConnectionOptions → value; only what was given.
        verbosity: 0 to 10.
        nodes: how nodes may be asked, for commands that do.
    """

    values: Mapping[str, Any]
    verbosity: int = 0
    nodes: NodeAccessFlags = NodeAccessFlags()

    def watching(self) -> GlobalFlags:
        """The same for a run that goes on until the user ends it: its node pods may live as long.

        They end a minute after the run does, however that is.
        """
        return replace(self, nodes=replace(self.nodes, seconds=WATCH_SECONDS))

    @property
    def namespace(self) -> str:
        """The -n flag, "" when it was not given."""
        return str(self.values.get("namespace", ""))

    def connection(self) -> ConnectionOptions:
        """For `Session.open`.

        Raises:
            UsageError: --request-timeout is not a duration.
        """
        from kubectl_ebpfnet.cluster.client.kubeconfig import ConnectionOptions

        values: dict[str, Any] = dict(self.values)
        for flag in CONNECTION:
            if flag.repeated and flag.field in values:
                values[flag.field] = tuple(values[flag.field])
        if "request_timeout" in values:
            values["request_timeout"] = duration(values["request_timeout"], "--request-timeout")
        return ConnectionOptions(**values)


def flags_behind(words: list[str]) -> list[str]:
    """Put kubectl's flags that stand before the command behind it; kubectl takes both."""
    values = {s: bool(f.metavar) for f in CONNECTION for s in f.spellings}
    at = 0
    while at < len(words) and words[at].partition("=")[0] in values:
        at += 2 if values.get(words[at]) else 1
    return [*words[at : at + 1], *words[:at], *words[at + 1 :]] if at < len(words) else words


def with_kubectl_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command all of kubectl's flags; it gets them as `given: Given`, its first parameter.

    Typer reads flags from a function's signature, so the signature is made longer.
    """
    return _with_flags(function, ())


def with_node_flags(function: Callable[..., int]) -> Callable[..., int]:
    """The same for a command that asks nodes: how it may is in `given.nodes`."""
    return _with_flags(function, NODES)


def with_pod_flags(function: Callable[..., int]) -> Callable[..., int]:
    """The same for a command that node pods alone can do: how they are to be."""
    return _with_flags(function, tuple(flag for flag in NODES if flag.field != "mode"))


def _with_flags(function: Callable[..., int], more: tuple[Flag, ...]) -> Callable[..., int]:
    def command(**values: Any) -> int:
        theirs = {f.field: values.pop(f.field) for f in CONNECTION}
        nodes = {f.field: values.pop(f.field) for f in more}
        verbosity = int(values.pop(VERBOSITY.field) or 0)
        given = GlobalFlags(
            {k: v for k, v in theirs.items() if v},
            verbosity,
            NodeAccessFlags(**{k: v for k, v in nodes.items() if v}),
        )
        return function(given, **values)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    flags = [
        inspect.Parameter(
            flag.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if flag.metavar else False,
            annotation=flag.annotation,
        )
        for flag in (*more, VERBOSITY, *CONNECTION)
    ]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    command.__signature__ = inspect.Signature([*keyword_only, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command
