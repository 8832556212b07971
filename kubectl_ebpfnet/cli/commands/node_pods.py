"""`node-pods`: list the node pods that are there, or print the manifest of those that stay."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.help import CommandText
from kubectl_ebpfnet.cli.node_pod_list import printed_manifest, show
from kubectl_ebpfnet.cli.terminal import Progress, emit
from kubectl_ebpfnet.cli.with_flags import with_kubectl_flags
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.node_pods import INSTALLED_NAMESPACE

TEXT = CommandText(
    usage="[--print-manifest [node/NAME]] [flags]",
    summary="List the node pods of this cluster, or print a manifest of some.",
    description="""Every command uses a node pod that is there before it deploys one: those of a
manifest that somebody applied (installed), and those that --keep left (kept).
Who uses them needs exec in their namespace, and no right to create anything.
What their image lacks of this program, each run sends.

--print-manifest contacts no cluster. -n names another namespace than ebpfnet,
one that exists and admits privileged pods.""",
    examples=(
        ("List them", "node-pods"),
        ("One on every node", "node-pods --print-manifest | kubectl apply -f -"),
        ("From a public image", "node-pods --print-manifest --image python:3.13-slim"),
        ("On one node, in namespace tools", "node-pods --print-manifest node/n1 -n tools"),
        ("Take them away", "node-pods --print-manifest | kubectl delete -f -"),
    ),
    namespace="",
    evidence=False,
)  # fmt: skip


@with_kubectl_flags
def run(
    global_flags: GlobalFlags,
    target: Annotated[str, Argument(metavar="[NODE]", help="node/NAME")] = "",
    print_manifest: Annotated[
        bool, Option("--print-manifest", help="Print a DaemonSet, or the pod of NODE")
    ] = False,
    image: Annotated[
        str, Option("--image", metavar="NAME", help="Image: any with Python 3.11 or later")
    ] = "",
    pull_secret: Annotated[
        str, Option("--image-pull-secret", metavar="NAME", help="Secret in the pods' namespace")
    ] = "",
    output: Annotated[
        str,
        Option("-o", "--output", metavar="FORMAT", help="One of: table, wide, name, json, yaml"),
    ] = "",
) -> int:
    """List node pods, or print a manifest."""
    if not print_manifest:
        if target or image or pull_secret:
            raise UsageError("node/NAME and --image are for --print-manifest")
        return show(global_flags, output or "table")
    emit(printed_manifest(global_flags.namespace, target, image, pull_secret, output or "yaml"))
    where = global_flags.namespace
    if where not in ("", INSTALLED_NAMESPACE):
        Progress().warn(
            f"namespace {where} must exist, with label "
            "pod-security.kubernetes.io/enforce=privileged where Pod Security is enforced"
        )
    return 0
