"""Why no packet can go between two ends: a pod that does not run, or an end without an address."""

from __future__ import annotations

from kubectl_ebpfnet.explain.path import commands
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.placed import Placed
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Finding, Fix, PathRequest, Severity


def obstacle(
    cluster: ClusterView,
    request: PathRequest,
    sender: Placed,
    source: Address | None,
    destination: Address | None,
    version: int,
) -> tuple[str, Fix | None, tuple[Finding, ...]]:
    """Return why no walk is possible ("" where it is), what to do about it, and findings.

    Args:
        cluster: the bundle's indexes.
        request: the packet's ends.
        sender: as it was found.
        source, destination: addresses of the packet, None where there is none.
        version: of IP.
    """
    far_pod = None
    if request.destination_kind == "pod":
        far_pod = cluster.pod(request.destination_namespace, request.destination_name)
    for role, pod in (("source", sender.pod), ("destination", far_pod)):
        if pod is not None and (pod.phase in ("Succeeded", "Failed") or not pod.addresses):
            why = f": {pod.reason}" if pod.reason else ""
            state = pod.phase or "without an address"
            title = f"{role} pod {pod.namespace}/{pod.name} is {state}{why}"
            command = commands.describe_pod(pod.namespace, pod.name)
            detail = (
                "It has no network namespace that a packet could leave or reach. "
                f"`{command}` tells why."
            )
            record = cluster.api_record("pods", "pod")
            proof = cite.whole(record)
            finding = Finding(Severity.ERROR, title, detail, proof, decides=True)
            return title, Fix("See why the pod does not run.", command), (finding,)
    if source is None and destination is not None:
        have = f"no IPv{version} address" if sender.addresses else "no address"
        who = {"pod": "source pod", "address": "client"}.get(sender.kind, "source node")
        fix = Fix(
            f"Ask for a destination of the {who}'s IP version; -4 and -6 choose one of a name."
        )
        return f"the {who} has {have}", fix, ()
    return "", None, ()
