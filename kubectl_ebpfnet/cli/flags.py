"""kubectl's global flags and the flags that several commands share.

Names, short forms and meanings: `kubectl options` 1.37. kubectl passes a plugin only the words
after its name, so each flag is parsed again here. A few are in every `--help`, the rest in
`kubectl ebpfnet options`; every command that reads a cluster accepts all of them.
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
    from kubectl_ebpfnet.cluster.client.access import ConnectionOptions
    from kubectl_ebpfnet.collect.ask.access import NodeAccess


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that several commands share.

    Attributes:
        field: name of the field that takes its value, e.g. of ConnectionOptions.
        spellings: short and long form, e.g. `-n` and `--namespace`.
        metavar: name of the value in help texts, "" for a switch.
        help: one sentence.
        repeated: whether the flag may be repeated.
        shown: whether every command's help shows it, and not only `options`.
    """

    field: str
    spellings: tuple[str, ...]
    metavar: str
    help: str
    repeated: bool = False
    shown: bool = False

    @property
    def annotation(self) -> Any:
        """The annotation that typer reads."""
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


# Node access: flags of each command that reads nodes.
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

# Arguments and flags that several commands share.
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="pod/NAME, NAME, deploy/, sts/, ds/NAME, node/NAME, or the address of a client "
        "outside of the cluster",
    ),
]
Destination = Annotated[
    str,
    typer.Argument(
        metavar="DESTINATION",
        help="An IPv4 or IPv6 address, pod/NAME, svc/NAME, node/NAME, a DNS name or a URL, "
        "with :PORT and /udp",
    ),
]

To = Annotated[
    str,
    typer.Option("--to", metavar="ADDRESS[:PORT]", help="Address of the peer", show_default=False),
]
Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="One of: tcp, udp, sctp, icmp (default tcp)",
        show_default=False,
    ),
]
Ipv4 = Annotated[bool, typer.Option("-4", "--ipv4", help="Take IPv4 addresses of both ends")]
Ipv6 = Annotated[bool, typer.Option("-6", "--ipv6", help="Take IPv6 addresses of both ends")]
Size = Annotated[
    str,
    typer.Option(
        "--size",
        metavar="BYTES",
        help="Ask for one IP packet of this size, headers included (as of tracepath; ping -s adds "
        "28 to its number, 48 with IPv6), which must not be fragmented",
        show_default=False,
    ),
]
Via = Annotated[
    str,
    typer.Option(
        "--via",
        metavar="NODE",
        help="The node by which a client outside enters: node/NAME (default: each that it may "
        "enter by)",
        show_default=False,
    ),
]
ToNamespace = Annotated[
    str,
    typer.Option(
        "--to-namespace",
        metavar="NAME",
        help="Namespace of the destination (default: -n)",
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
"""Lifetime of node pods of a --watch run."""


def check_list_output(name: str) -> None:
    """Check the format of a list. Raises UsageError for an unknown format."""
    from kubectl_ebpfnet.render.lists.listing import FORMATS

    if name not in FORMATS:
        raise UsageError(f"-o {name!r}: no such format", hint=f"one of: {', '.join(FORMATS)}")


@dataclass(frozen=True, slots=True)
class NodeAccessFlags:
    """The flags for node access, as given.

    Attributes:
        mode: `agent`, `pod`, `none` or `auto`.
        image: image of node pods, "" for the default.
        keep: keep node pods for reuse.
        pull_secret: `NAMESPACE/NAME` or `NAME`, "" for none.
        seconds: lifetime of node pods, None for the default.
    """

    mode: str = "auto"
    image: str = ""
    keep: bool = False
    pull_secret: str = ""
    seconds: int | None = None

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
        return NodeAccess(Mode(self.mode), options)


@dataclass(frozen=True, slots=True)
class GlobalFlags:
    """kubectl's flags as given.

    Attributes:
        values: field of ConnectionOptions → value, of the given flags alone.
        verbosity: 0 to 10.
        nodes: node access, for commands that read nodes.
    """

    values: Mapping[str, Any]
    verbosity: int = 0
    nodes: NodeAccessFlags = NodeAccessFlags()

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
        return ConnectionOptions(**values)


def move_flags_behind_command(words: list[str]) -> list[str]:
    """Move kubectl's flags before the command behind it; kubectl accepts both orders."""
    values = {s: bool(f.metavar) for f in CONNECTION for s in f.spellings}
    at = 0
    while at < len(words) and words[at].partition("=")[0] in values:
        at += 2 if values.get(words[at]) else 1
    return [*words[at : at + 1], *words[:at], *words[at + 1 :]] if at < len(words) else words


def with_kubectl_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add kubectl's flags to a command, whose first parameter takes them as `GlobalFlags`.

    typer reads flags from a function's signature, so the signature is extended.
    """
    return _with_flags(function, ())


def with_node_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add kubectl's flags and those for node access, which `GlobalFlags.nodes` holds."""
    return _with_flags(function, NODES)


def with_pod_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add kubectl's flags and those for node pods, for a command that needs a node pod."""
    return _with_flags(function, tuple(flag for flag in NODES if flag.field != "mode"))


def _with_flags(function: Callable[..., int], more: tuple[Flag, ...]) -> Callable[..., int]:
    def command(**values: Any) -> int:
        theirs = {f.field: values.pop(f.field) for f in CONNECTION}
        nodes = {f.field: values.pop(f.field) for f in more}
        verbosity = int(values.pop(VERBOSITY.field) or 0)
        for flag in more:
            if nodes[flag.field] == "":
                raise UsageError(f"{flag.spellings[-1]} is empty", hint="leave it out")
        global_flags = GlobalFlags(
            {k: v for k, v in theirs.items() if v},
            verbosity,
            NodeAccessFlags(**{k: v for k, v in nodes.items() if v}),
        )
        return function(global_flags, **values)

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
