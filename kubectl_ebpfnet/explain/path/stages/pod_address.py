"""Whether a pod has the address that Kubernetes and Cilium call its own.

What is sent to an address that no device of the pod has is dropped, or forwarded, by its stack.
What is sent from another one is dropped by cil_from_container (bpf/lib/lxc.h, is_valid_lxc_src_ip:
DROP_INVALID_SIP). A virtual machine behind the pod's devices may have it, as with KubeVirt's bridge
binding: so it is open.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.netns import PodNetns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.path import Decides, Fix, Severity


def has(walk: PathBuilder, netns: PodNetns, pod: Pod, address: Address) -> None:
    """Report a pod whose own devices lack its address.

    Args:
        walk: takes the finding, and the doubt.
        netns: of the pod.
        pod: the pod.
        address: of the pod, by Kubernetes.
    """
    read = netns[q.POD_ADDRESSES]
    own = [one.address for one in read.facts if one.address.version == address.version]
    if pod.host_network or not read.known or not own or address in own:
        return
    routes = netns.routes(address.version).facts
    if any(one.type == "local" and address in one.destination for one in routes):
        return  # its stack takes what a local route has
    listed = ", ".join(str(one) for one in netns.own_addresses if one.version == address.version)
    name = f"{pod.namespace}/{pod.name}"
    title = f"no device of pod {name} has {address}, its address by Kubernetes"
    walk.finding(
        Severity.ERROR, title,
        f"It has {listed or 'no other global address'}. Its stack takes nothing for {address}, and "
        "Cilium drops what it sends from another address (Invalid source ip), unless a virtual "
        "machine behind its devices has it.",
        cite.whole(read.record),
    )  # fmt: skip
    fix = Fix(f"Replace pod {name} by a new one: the CNI plugin gives a pod its address.")
    walk.doubt(title, Decides.DROP, fix)
