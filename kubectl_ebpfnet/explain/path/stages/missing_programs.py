"""A program of Cilium's that is not where it has to be: an error, with what is not done there.

Where they have to be: Cilium pkg/datapath/loader (reloadHostDatapath attaches cil_to_netdev only
with NodePort, the host firewall or BPF masquerading), pkg/endpoint (cil_to_container with endpoint
routes).
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.programs.at_device import Presence, at_device, xdp_entry
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import TCP, Flow
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, Severity


@dataclass(frozen=True, slots=True)
class _Hook:
    """A hook of Cilium's: its direction, and what does not happen without its program."""

    direction: str
    lost: str


HOOKS = {
    "pod": _Hook(
        "ingress", "What the pod sends meets no policy, no load-balancing and no conntrack of "
        "Cilium's: it goes on as the node's own stack does it",
    ),
    "to-pod": _Hook(
        "egress", "What comes to the pod meets no ingress policy and no conntrack of Cilium's: the "
        "egress policy decides about its answers as if they were new",
    ),
    "tunnel": _Hook(
        "ingress", "What comes out of the tunnel meets no policy, and nothing hands it to its "
        "endpoint: it goes on as the node's own stack does it",
    ),
    "into-tunnel": _Hook(
        "egress", "What NodePorts send to backends of other nodes is not translated",
    ),
    "network": _Hook(
        "ingress", "What comes from the network is not load-balanced, answers to masqueraded "
        "packets are not translated back, and nothing hands packets to their endpoints: they go on "
        "as the node's own stack does it",
    ),
    "to-network": _Hook(
        "egress", "What leaves is not masqueraded by Cilium, answers of NodePorts are not "
        "translated back, and no host firewall sees it",
    ),
    "to-wireguard": _Hook(
        "egress", "What leaves is not given to WireGuard and so not encrypted, nor masqueraded by "
        "Cilium, answers of NodePorts are not translated back, and no host firewall sees it",
    ),
    "host": _Hook(
        "egress", "What the node's stack sends to pods is not handed to them, nor into the tunnel: "
        "it goes on as the node's own stack does it",
    ),
}  # fmt: skip


def report_absent(walk: PathBuilder, here: PacketState, device: str, hook: str) -> tuple[str, Fix]:
    """Report that no program of Cilium's is where it has to be, although Cilium runs the node.

    Args:
        walk: takes the finding.
        here: the packet on the device's node.
        device: where the program is missing.
        hook: of HOOKS.

    Returns:
        The finding's title, and what to do about it.
    """
    node = walk.cluster.node(here.node)
    number, place = node.endpoint_at(device), HOOKS[hook]
    attached = at_device(node, device, place.direction, number)
    evidence = attached.evidence + tuple(e for gone in attached.detached for e in gone.evidence)
    gone = next(iter(attached.detached), None)
    why = f"; the pinned link of {gone.name} is attached to no device" if gone is not None else ""
    at = f"{device} ({place.direction}) of node {here.node}"
    title = f"no program of Cilium's is attached at {at}{why}"
    walk.finding(
        Severity.ERROR,
        title,
        f"{place.lost}. Restarting the agent"
        + (", or regenerating the endpoint," if number is not None else "")
        + " attaches the program again.",
        evidence,
    )
    command = node.in_agent(f"endpoint regenerate {number}") if number is not None else ""
    return title, Fix(f"Let the agent on {here.node} attach its program again.", command)


def without_cilium(walk: PathBuilder, here: PacketState, device: str, hook: str) -> None:
    """Report an absent program without which the packet goes another way.

    Flows in Cilium's conntrack were let through by the program that is gone: they prove nothing of
    a packet that is sent now.

    Args:
        walk: takes the finding and the doubt.
        here: the packet on the device's node.
        device: where the program is missing.
        hook: of HOOKS.
    """
    title, fix = report_absent(walk, here, device, hook)
    walk.doubt(title, Decides.WAY, fix)
    walk.outdate()


def was_without_cilium(walk: PathBuilder, node: str) -> tuple[str, Fix] | None:
    """Return what `without_cilium` said of a program on the way through a node, to stand behind
    another sentence, and its fix; None where it said nothing."""
    for doubt in walk.undecided:
        hop = walk.hops[doubt.hop - 1]
        if doubt.fix is not None and (hop.kind, hop.node) == (HopKind.PROGRAM, node):
            return f"; {doubt.reason}", doubt.fix
    return None


def connects_without_cilium(walk: PathBuilder, node: NodeView, flow: Flow) -> bool:
    """Tell whether the socket load-balancer's program for a packet is attached to no cgroup, and
    report it.

    Args:
        walk: takes the finding and the doubt.
        node: of the socket.
        flow: of the packet.
    """
    call = "connect" if flow.protocol == TCP else "sendmsg"
    name = f"cil_sock{flow.destination.version}_{call}"
    links = node.having(q.BPF_LINKS, name, "program_name")
    if not links or not all(link.detached for link in links):
        return False
    title = f"{name}, the socket load-balancer's program of node {node.name}, is attached nowhere"
    walk.finding(
        Severity.ERROR,
        title,
        "Sockets connect to a Service's own address: what translates it packet by packet, if "
        "anything, is kube-proxy, or Cilium's program at the pod's device. Restarting the agent "
        "attaches it again.",
        cite.of(node[q.BPF_LINKS].record, *(link.span for link in links)),
    )
    walk.doubt(title, Decides.WAY, Fix(f"Restart the agent on {node.name}."))
    walk.outdate()
    return True


def translates_answers(walk: PathBuilder, here: PacketState, node: NodeView) -> None:
    """Report where Cilium masquerades at a device, and no program of its own translates answers.

    Args:
        walk: takes the finding.
        here: the packet, masqueraded by Cilium at its device.
        node: the device's node.
    """
    if at_device(node, here.device, "ingress").cilium is Presence.ABSENT:
        without_cilium(walk, here, here.device, "network")


def to_network(walk: PathBuilder, here: PacketState, node: NodeView, found: Presence) -> None:
    """Report where cil_to_netdev is not at a device that it has to be at.

    Args:
        walk: takes the finding.
        here: the packet at its egress device.
        node: the device's node.
        found: whether a program of Cilium's is there.
    """
    config = node.config
    wanted = (
        config.kube_proxy_replacement
        or config.host_firewall
        or config.encryption == "wireguard"
        or config.masquerading_of(here.packet.flow.source.version) == "bpf"
    )
    if here.sealed is not None:
        return  # WireGuard's own packet needs nothing done; the one in it was looked at
    if found is not Presence.ABSENT or not wanted or not is_ciliums(node, here.device):
        return
    hook = "to-wireguard" if config.encryption == "wireguard" else "to-network"
    report_absent(walk, here, here.device, hook)
    if here.packet.outer is None and not walk.cluster.in_cluster(here.packet.flow.destination):
        walk.outdate()  # it was masqueraded by what is gone


def report_no_xdp(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> None:
    """Report where NodePorts are to be accelerated, and cil_xdp_entry is not at the device. Drivers
    without XDP are passed over where it is `best-effort` (Cilium pkg/datapath/loader/xdp.go).

    Args:
        walk: takes the finding.
        here: the packet, as it comes to the node from the network.
        node: the node.
        device: by which it comes in.
    """
    wanted = node.config.acceleration
    if walk.forth is not None or device not in node.config.devices:
        return
    if wanted not in ("native", "generic", "best-effort"):
        return
    if xdp_entry(node, device) is not Presence.ABSENT:
        return
    gone = "" if wanted != "best-effort" else ", or its driver cannot run it"
    walk.finding(
        Severity.ERROR if wanted != "best-effort" else Severity.WARNING,
        f"cil_xdp_entry is not attached at {device} of node {here.node}, though "
        f"bpf-lb-acceleration is {wanted}{gone}",
        "What comes from the network for a NodePort, an external IP or a LoadBalancer is balanced "
        "by cil_from_netdev, behind the stack's work for each packet, and no prefix that is denied "
        "by XDP (cilium prefilter) is. Restarting the agent attaches the program again.",
        at_device(node, device, "ingress").evidence,
    )


def is_ciliums(node: NodeView, device: str) -> bool:
    """Tell whether a device is one of the node's that Cilium attaches its programs to: by the
    agent's word, or since one of them is there."""
    if device in node.config.devices:
        return True
    if device.startswith(("lxc", "cilium_")):
        return False
    both = (at_device(node, device, direction).cilium for direction in ("ingress", "egress"))
    return Presence.PRESENT in both


def into_tunnel(walk: PathBuilder, here: PacketState, device: str, found: Presence) -> None:
    """Report where cil_to_overlay is not at the tunnel's device.

    Args:
        walk: takes the finding.
        here: the packet that is encapsulated.
        device: the tunnel's.
        found: whether a program of Cilium's is there.
    """
    config = walk.cluster.node(here.node).config
    if found is Presence.ABSENT and config.kube_proxy_replacement:
        report_absent(walk, here, device, "into-tunnel")
