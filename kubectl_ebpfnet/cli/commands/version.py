"""`version`: print the version of the program, of Python and of the JSON schemas."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from typer import Option

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.terminal import emit
from kubectl_ebpfnet.cli.with_flags import with_kubectl_flags
from kubectl_ebpfnet.errors import UsageError

TEXT = CommandText(
    usage="[flags]",
    summary="Print the version of kubectl ebpfnet.",
    description="No cluster is contacted.",
    connects=False,
    examples=(("The version", "version"), ("For a program", "version -o json")),
)


@with_kubectl_flags
def run(
    _flags: GlobalFlags,
    _client: Annotated[
        bool, Option("--client", help="As without it: no cluster has a version of this program")
    ] = False,
    output: Annotated[
        str,
        Option("-o", "--output", metavar="FORMAT", help="One of: json, yaml", show_default=False),
    ] = "",
) -> int:
    """Print the version."""
    python = ".".join(map(str, sys.version_info[:3]))
    if output in ("json", "yaml"):
        from kubectl_ebpfnet.model.protocol.node_side import own_digest
        from kubectl_ebpfnet.render.text.documents import safe_yaml

        document = {
            "version": __version__,
            "python": python,
            "node_side": {"digest": own_digest()},
            "schemas": sorted(_schemas()),
        }
        emit(f"{json.dumps(document, indent=2)}\n" if output == "json" else safe_yaml(document))
    elif output:
        raise UsageError(f"-o {output!r}: no such format", hint="one of: json, yaml")
    else:
        emit(f"kubectl-ebpfnet {__version__} (Python {python})\n")
    return 0


def _schemas() -> list[str]:
    """Return the names of every JSON document, and of captures."""
    from kubectl_ebpfnet.capture import record
    from kubectl_ebpfnet.cli.commands import cleanup
    from kubectl_ebpfnet.model import doctor, flows, node_pods, path, probe, programs, trace
    from kubectl_ebpfnet.render.text import record as shown_record

    documents = (path, flows, programs, probe, doctor, cleanup, node_pods, record, shown_record)
    return [
        *(document.SCHEMA for document in (*documents, trace)),
        path.SEVERAL_SCHEMA,
        probe.POLICIES_SCHEMA,
    ]
