"""A node's own policy, where its host firewall is on: the map of the endpoint reserved:host.

Source: Cilium bpf/lib/host_firewall.h, bpf/bpf_host.c. Programs ask it, so netfilter has not yet
translated what comes in, and has translated what goes out. It is asked of what comes in for an
address that the ipcache calls the host's (cil_from_netdev, behind the load-balancing there;
cil_to_host; cil_from_container), so a NodePort that Cilium balances to a pod is exempt; and of what
goes out with the host's mark (cil_from_host, cil_to_netdev, cil_to_container): what the node's own
processes send, and what carries a pod's packet in a tunnel or encrypted. Answers pass.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.policy import WORLD_IDENTITIES
from kubectl_ebpfnet.explain.path.stages import policy_hop, policy_map
from kubectl_ebpfnet.explain.path.stages.policy_subject import PolicySubject
from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder, Where
from kubectl_ebpfnet.explain.programs.at_device import Presence, at_device
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium import HOST
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import UDP, Address
from kubectl_ebpfnet.model.path import HopKind, HopPlace, Packet


@dataclass(frozen=True, slots=True)
class _Passing:
    """A packet at a program that asks the host endpoint's policy.

    Attributes:
        packet: as the program sees it: of a tunnel the outer one.
        device: where the program is.
        direction: `ingress` or `egress`, seen from the node.
        carrier: it carries another packet.
    """

    packet: Packet
    device: str
    direction: str
    carrier: bool = False

    @property
    def remote(self) -> Address:
        """The other end's address."""
        flow = self.packet.flow
        return flow.destination if self.direction == "egress" else flow.source


def comes_in(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Ask the policy about a packet that comes in by a device; return whether it goes on.

    Args:
        walk: takes the hop. Of an answer nothing is asked.
        here: the packet, as Cilium's program there hands it on.
        node: the node.
        device: by which it came in: the network's, the tunnel's, or a pod's.
    """
    if walk.forth is not None or policy_map.host_firewall(walk.cluster, node) is False:
        return True
    if not _is_host(node, here.packet.flow.destination):
        return True
    return _asked(walk, node, _Passing(here.packet, device, "ingress"))


def goes_out(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Ask the policy about a packet of the node itself at its egress device; return whether it goes
    on. What carries another packet, in a tunnel or encrypted, is the node's own, whoever sent that.

    Args:
        walk: takes the hop. Of an answer nothing is asked, but of what carries it.
        here: the packet at the device; what came in by another one is not the node's own.
        node: the node.
    """
    if policy_map.host_firewall(walk.cluster, node) is False:
        return True
    outer = here.packet.outer
    if outer is not None and outer.protocol != UDP:
        return True  # ESP: Cilium has no host firewall with IPsec
    if outer is not None:
        packet = Packet(outer)
    elif walk.forth is not None or here.in_device or here.skips_netfilter or here.by_proxy:
        return True
    else:
        packet = here.packet
    program = at_device(node, here.device, "egress", node.endpoint_at(here.device))
    if program.cilium is Presence.ABSENT:
        return True
    return _asked(walk, node, _Passing(packet, here.device, "egress", outer is not None))


def carrier_comes_in(walk: PathBuilder, here: PacketState, node: NodeView, device: str) -> bool:
    """Ask the policy about the packet that carries this one, as it comes in; return whether it goes
    on. It has no connection that answers belong to: those of a flow come in carriers of their own.

    Args:
        walk: takes the hop.
        here: the packet, with its outer one.
        node: the node that receives it.
        device: by which it comes in.
    """
    outer = here.packet.outer
    if outer is None or outer.protocol != UDP:
        return True
    if policy_map.host_firewall(walk.cluster, node) is False:
        return True
    if not _is_host(node, outer.destination):
        return True
    return _asked(walk, node, _Passing(Packet(outer), device, "ingress", carrier=True))


def _is_host(node: NodeView, address: Address) -> bool:
    """Tell whether an address is the node's own to the policy: by its identity in the ipcache.

    One that is the world there (a Service's, of IPVS' device) is not, whoever has it.
    """
    entry = node.ipcache_of(address)
    if entry is not None and entry.identity in WORLD_IDENTITIES:
        return False
    return address in node.own_addresses or (entry is not None and entry.identity == HOST)


def _asked(walk: PathBuilder, node: NodeView, at: _Passing) -> bool:
    enabled = policy_map.host_firewall(walk.cluster, node)
    if enabled is False:
        return True
    where: Where = (HopPlace.CILIUM, at.device or node.name, node.name, HopKind.POLICY)
    title = f"{at.direction} policy of node {node.name} (host firewall)"
    endpoint_id = policy_map.host_endpoint(node)
    remote = policy_map.remote(walk.cluster, node, at.remote, None)
    missing = policy_map.missing(node, endpoint_id, "the host endpoint")
    missing = missing or policy_map.lacking(node, remote)
    if enabled is None:
        missing = "neither Cilium's status on it nor cilium-config was read, so whether its host " \
            "firewall is on is not known"  # fmt: skip
    if missing or endpoint_id is None:
        if at.carrier:
            walk.presumed.add(f"what {title} says of {at.packet.flow}")
        else:
            policy_hop.not_read(walk, where, at.packet, title, missing)
        return True
    name = f"the host endpoint {endpoint_id}"
    subject = PolicySubject(where, node, endpoint_id, name, at.direction, remote, at.packet)
    if at.carrier and policy_hop.verdict_of(subject).allowed:
        return True
    before = len(walk.redirects)
    passes = policy_hop.decided(walk, subject, _doubt(node, at))
    for redirect in walk.redirects[before:]:
        walk.doubt(
            f"the policy of {name} redirects it to the L7 proxy at port {redirect.port}, whose "
            "way is not followed for a node"
        )
    del walk.redirects[before:]
    return passes


def _doubt(node: NodeView, at: _Passing) -> str:
    """Return why a packet that the policy denies may pass all the same, "" for no reason."""
    flow = at.packet.flow
    if at.direction == "egress" and _marks_host(node, flow.source.version) is False:
        return "netfilter's rule that marks what the host sends (CILIUM_OUTPUT) is not there"
    if at.carrier and at.direction == "ingress" and flow.source_port == flow.destination_port:
        # WireGuard's port is one for both ways: what this node sent makes it an answer.
        return "it may belong to a connection that this node began"
    return ""


def _marks_host(node: NodeView, version: int) -> bool | None:
    """Tell whether netfilter gives the node's own packets the mark by which Cilium's programs know
    them (MARK_MAGIC_HOST; pkg/datapath/iptables); None where no rules were read."""
    legacy = node[q.LEGACY if version == 4 else q.LEGACY6]
    rules = [*node.ruleset(version).facts, *legacy.facts]
    if not rules:
        return None
    chains = (ruleset.chain("filter", "CILIUM_OUTPUT") for ruleset in rules)
    return any(
        rule.jump == "MARK" and rule.option("--set-xmark", "--set-mark").startswith("0xc00")
        for chain in chains
        for rule in chain
    )
