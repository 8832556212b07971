"""Give a command kubectl's flags, and those for node access: its first parameter takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from kubectl_ebpfnet.cli.dry_run import dry_run
from kubectl_ebpfnet.cli.given_flags import GlobalFlags, NodeAccessFlags
from kubectl_ebpfnet.cli.kubectl_flags import CONNECTION, VERBOSITY, Flag
from kubectl_ebpfnet.cli.terminal import Progress, print_error
from kubectl_ebpfnet.errors import EbpfnetError, UsageError

# Flags of each command that reads nodes.
NODES = (
    Flag(
        "mode",
        ("--node-access",),
        "HOW",
        "How to read nodes: agent (exec in Cilium's agent), pod (a node pod, deployed for this "
        "run), none, or auto: a node pod that is there, else agent, else pod, which it asks for "
        "(default: auto)",
        shown=True,
    ),
    Flag(
        "image",
        ("--image",),
        "NAME",
        "Image of node pods: ours, or any with Python 3.11 or later, as python:3.13-slim",
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
    Flag(
        "dry_run",
        ("--dry-run",),
        "HOW",
        "none, server or client: deploy no node pod, say what would be created",
        shown=True,
    ),
)


TRACE_ACCESS = Flag(
    "mode",
    ("--node-access",),
    "HOW",
    "What looks: pod (BPF programs, from node pods), agent (Cilium's own notices alone: nothing is "
    "loaded), or auto: both (default: auto)",
    shown=True,
)
YES = Flag("yes", ("-y", "--yes"), "", "Deploy node pods without asking", shown=True)
"""Of commands that only read: others deploy what they need."""


def with_kubectl_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add kubectl's flags to a command, whose first parameter takes them as `GlobalFlags`.

    typer reads flags from a function's signature, so the signature is extended.
    """
    return _with_flags(function, ())


def with_node_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add kubectl's flags and those for node access, which `GlobalFlags.nodes` holds."""
    return _with_flags(function, (*NODES, YES))


def with_probe_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add the same to a command that acts, which deploys what it needs without a question."""
    return _with_flags(function, NODES)


def with_pod_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add kubectl's flags and those for node pods, for a command that needs a node pod."""
    return _with_flags(function, tuple(flag for flag in NODES if flag.field != "mode"))


def with_trace_flags(function: Callable[..., int]) -> Callable[..., int]:
    """Add the same to a command that loads programs, and asks before."""
    others = (flag for flag in NODES if flag.field != "mode")
    return _with_flags(function, (TRACE_ACCESS, *others, YES))


def _with_warnings(code: int, warnings: Collection[str]) -> int:
    """Print the API server's warnings and that they are errors, as kubectl does; return the exit
    code."""
    if not warnings:
        return code
    progress = Progress()
    for warning in dict.fromkeys(warnings):
        progress.warn(f"Warning: {warning}")
    count = len(dict.fromkeys(warnings))
    print_error(f"{count} warning{'s' if count > 1 else ''} received")
    return 1


def _node_access(
    flags: Sequence[Flag], values: Mapping[str, Any], *, has_capture: bool
) -> NodeAccessFlags:
    """Return the node access of a command line.

    Args:
        flags: those of the command.
        values: of each, by its field.
        has_capture: a capture is read in place of a cluster.

    Raises:
        UsageError: a value is empty, or --dry-run is wrong; with a capture, any other value too,
            which `NodeAccessFlags.access` would refuse.
    """
    given = {flag.spellings[-1]: values[flag.field] for flag in flags if values[flag.field]}
    for flag in flags:
        if values[flag.field] == "":
            raise UsageError(f"{flag.spellings[-1]} is empty", hint="leave it out")
    how = dry_run(given.pop("--dry-run", None))
    found = NodeAccessFlags(**{**{k: v for k, v in values.items() if v}, "dry_run": how})
    if has_capture and given:
        found.access()
        for spelling in given:
            Progress().warn(f"{spelling} has no effect with --from: no node is asked")
    return found


def _with_flags(function: Callable[..., int], more: tuple[Flag, ...]) -> Callable[..., int]:
    def command(**values: Any) -> int:
        theirs = {f.field: values.pop(f.field) for f in CONNECTION}
        nodes = {f.field: values.pop(f.field) for f in more}
        verbosity = int(values.pop(VERBOSITY.field) or 0)
        as_errors = theirs.pop("warnings_as_errors")
        global_flags = GlobalFlags(
            {k: v for k, v in theirs.items() if v},
            verbosity,
            _node_access(more, nodes, has_capture=bool(values.get("capture"))),
            [] if as_errors else None,
        )
        if values.get("watch") and values.get("capture"):
            Progress().warn("-w has no effect with --from: a capture does not change")
        try:
            code = function(global_flags, **values)
        except UsageError:
            raise
        except EbpfnetError as error:
            error.hint = global_flags.asked(values.get("capture") or "").prose(error.hint)
            raise
        return _with_warnings(code, global_flags.warnings or ())

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
