"""Show the node pods of a cluster (`node-pods`)."""

from __future__ import annotations

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.object_words import is_type
from kubectl_ebpfnet.cli.terminal import Progress, emit, width
from kubectl_ebpfnet.errors import UsageError


def node_name(word: str) -> str:
    """Return the name of `node/NAME` or `NAME`.

    Raises:
        UsageError: it is no node.
    """
    found = arguments.target(word if "/" in word else f"node/{word}")
    if found.kind != "node" or is_type(word):
        raise UsageError(f"{word!r} is no node", hint="e.g. node/n1")
    return found.name


def show(global_flags: GlobalFlags, output: str) -> int:
    """List them in a format of -o; return the exit code.

    Raises:
        UsageError: no such format.
        ClusterError: they cannot be listed.
    """
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.cluster.nodepods.listed import listed_node_pods
    from kubectl_ebpfnet.model.evidence import bundle_of
    from kubectl_ebpfnet.render.lists.listing import remarks, render
    from kubectl_ebpfnet.render.lists.node_pods import listing
    from kubectl_ebpfnet.render.text.view import View

    with Progress() as progress, Session.open(global_flags.connection()) as session:
        progress.show("looking")
        shown, bundle = listing(listed_node_pods(Api(session), session.namespace)), bundle_of([])
        emit(render(shown, bundle, output, View(width(), False, False)))
        for line in remarks(shown, bundle) if output in ("table", "wide") else ():
            progress.warn(line)
    return 0
