"""A dry run of a deployment (deployment.py): what it would create, and whether the server would."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.cluster.client.api import CORE, Api
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.cluster.nodepods.deployment import whoami
from kubectl_ebpfnet.cluster.nodepods.manifest import PULL_SECRET, NodePodOptions, Run
from kubectl_ebpfnet.cluster.nodepods.rights import check_rights
from kubectl_ebpfnet.model.dry_run import DryRun


def rehearse(
    api: Api, nodes: Sequence[str], options: NodePodOptions, how: DryRun, seconds: float | None
) -> list[str]:
    """Return a line for each object that a deployment would create, as kubectl writes them.

    With SERVER the server checks the rights, and the namespace; a pod can only be checked in a
    namespace that exists.

    Args:
        api: the API server.
        nodes: names of the nodes.
        options: image, lifetime and pull secret of the pods.
        how: CLIENT or SERVER.
        seconds: longest time to wait for the server; None for no limit.

    Raises:
        Forbidden: this user may not deploy node pods.
        ClusterError: the server refuses the namespace, or cannot be reached.
    """
    run = Run(whoami(), api.session.clock.now())
    checked = how.suffix
    if how is DryRun.SERVER:
        check_rights(api, seconds)
        api.create(f"{CORE}/namespaces", manifest.namespace(run, options), how.query)
    lines = [f"namespace/{run.namespace} created{checked}"]
    if options.pull_secret:
        lines.append(f"secret/{PULL_SECRET} created{DryRun.CLIENT.suffix}")
    pods = (f"pod/node-{number} created" for number in range(1, len(nodes) + 1))
    return [
        *lines,
        *(f"{pod} on {node}{DryRun.CLIENT.suffix}" for pod, node in zip(pods, nodes, strict=True)),
    ]
