"""kubectl's global flags: those that act as in kubectl, and those that have no effect here.

Names, short forms and meanings: `kubectl options` 1.37; a test compares. kubectl passes a plugin
only the words after its name, so each flag is parsed again here. A few are in every `--help`, the
rest in `kubectl ebpfnet options`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kubectl_ebpfnet.model.dataclass import dataclass


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
    Flag("namespace", ("-n", "--namespace"), "NAME", "Namespace of what is named", shown=True),
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
    Flag("username", ("--username",), "NAME", "Name for basic authentication to the API server"),
    Flag("password", ("--password",), "TEXT", "Password for basic authentication"),
    Flag("proxy_url", ("--proxy-url",), "URL", "Proxy on the way to the API server"),
    Flag(
        "request_timeout",
        ("--request-timeout",),
        "TIME",
        "How long one request to the API server may take: 10s, 1m; 0 is no limit",
    ),
    Flag(
        "disable_compression",
        ("--disable-compression",),
        "",
        "Ask the API server for answers that are not compressed",
    ),
    Flag(
        "warnings_as_errors",
        ("--warnings-as-errors",),
        "",
        "Print the API server's warnings, and exit with 1 if there were any",
    ),
)

VERBOSITY = Flag(
    "verbosity",
    ("-v", "--v"),
    "[N]",
    "Show evidence, e.g. of each hop; -v=6 to -v=9 also log HTTP requests on stderr",
    shown=True,
)

OPTIONAL_VALUE = (*VERBOSITY.spellings, "--dry-run")
"""Flags whose value may be left out; that of --dry-run stands behind = alone."""
_NO_PROFILE = "no profile of this program is written"
_NO_LOG = "only -v changes what is logged"
NO_EFFECT = {
    "--cache-dir": ("DIR", "nothing is cached"),
    "--kuberc": ("FILE", "preferences are not read"),
    "--log-flush-frequency": ("TIME", "each line is written at once"),
    "--match-server-version": ("", "no version of the API server is the one to match"),
    "--profile": ("NAME", _NO_PROFILE),
    "--profile-output": ("FILE", _NO_PROFILE),
    "--vmodule": ("LIST", _NO_LOG),
    # Of kubectl until 1.25.
    "--add-dir-header": ("", _NO_LOG),
    "--alsologtostderr": ("", _NO_LOG),
    "--log-backtrace-at": ("LINE", _NO_LOG),
    "--log-dir": ("DIR", _NO_LOG),
    "--log-file": ("FILE", _NO_LOG),
    "--log-file-max-size": ("N", _NO_LOG),
    "--logtostderr": ("", _NO_LOG),
    "--one-output": ("", _NO_LOG),
    "--skip-headers": ("", _NO_LOG),
    "--skip-log-headers": ("", _NO_LOG),
    "--stderrthreshold": ("N", _NO_LOG),
}
"""Flag of kubectl that has no effect here → name of its value, "" for a switch; and why."""


def takes_value() -> dict[str, bool]:
    """Return every spelling of kubectl's flags but -v, and whether it takes a value."""
    found = {s: bool(f.metavar) for f in CONNECTION for s in f.spellings}
    return found | {flag: bool(metavar) for flag, (metavar, _) in NO_EFFECT.items()}
