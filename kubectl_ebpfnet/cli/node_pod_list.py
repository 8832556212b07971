"""Show the node pods of a cluster, or a manifest of some (`node-pods`)."""

from __future__ import annotations

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.cli.flags import GlobalFlags
from kubectl_ebpfnet.cli.list_arguments import list_flags
from kubectl_ebpfnet.cli.object_words import is_name, is_type, shown
from kubectl_ebpfnet.cli.terminal import emit, width
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.render.text.view import View


def printed_manifest(namespace: str, target: str, image: str, pull_secret: str, output: str) -> str:
    """Return the manifest of node pods that stay, as text.

    Args:
        namespace: for them, "" for the usual one.
        target: NODE as typed, "" for every node.
        image: of the pods, "" for the usual one.
        pull_secret: name of a Secret in that namespace, "" for none.
        output: `yaml` or `json`.

    Raises:
        UsageError: a word that no manifest can have.
    """
    from kubectl_ebpfnet.cluster.nodepods.installed import manifests
    from kubectl_ebpfnet.cluster.nodepods.manifest import DEFAULT_IMAGE, NodePodOptions
    from kubectl_ebpfnet.model.node_pods import ANY_IMAGE, INSTALLED_NAMESPACE
    from kubectl_ebpfnet.render.text.documents import manifest_text

    if namespace and not (is_name(namespace) and "." not in namespace and len(namespace) <= 63):
        raise UsageError(f"-n {shown(namespace)} is not a namespace's name")
    if pull_secret and not is_name(pull_secret):
        raise UsageError(
            f"--image-pull-secret {shown(pull_secret)} is not a Secret's name",
            hint="with --print-manifest it is one in the pods' namespace",
        )
    options = NodePodOptions(image or DEFAULT_IMAGE, pull_secret)
    node = _node_name(target) if target else ""
    text = manifest_text(manifests(namespace or INSTALLED_NAMESPACE, node, options), output)
    remark = f"# {DEFAULT_IMAGE} is the quick way; {ANY_IMAGE}.\n"
    return text if image or output != "yaml" else remark + text


def _node_name(word: str) -> str:
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
    printed = list_flags(output, "", False, View(width(), False, False))
    from kubectl_ebpfnet.cluster.client.api import Api
    from kubectl_ebpfnet.cluster.client.session import Session
    from kubectl_ebpfnet.cluster.nodepods.listed import listed_node_pods
    from kubectl_ebpfnet.model.evidence import bundle_of
    from kubectl_ebpfnet.render.lists.node_pods import listing

    with global_flags.progress() as progress, Session.open(global_flags.connection()) as session:
        progress.show("looking")
        found, nothing = listing(listed_node_pods(Api(session), session.namespace)), bundle_of([])
        emit(printed.text(found, nothing))
        printed.say_beside(found, nothing, progress)
    return 0
