"""SCTP in Cilium's programs: without `enable-sctp` their conntrack knows no such protocol.

Source: Cilium bpf/lib/conntrack.h (ENABLE_SCTP; DROP_CT_UNKNOWN_PROTO),
Documentation/configuration/sctp.rst.
"""

from __future__ import annotations

from kubectl_ebpfnet.explain.path.state import PacketState, PathBuilder
from kubectl_ebpfnet.explain.views import cite
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model.net import SCTP
from kubectl_ebpfnet.model.path import Decides, Fix, HopKind, State


def is_tracked(walk: PathBuilder, here: PacketState, node: NodeView) -> bool:
    """Tell whether Cilium's program at a pod's device passes the packet's protocol, and drop the
    packet where it does not.

    Args:
        walk: takes the hop.
        here: the packet at the pod's device.
        node: the device's node.
    """
    enabled = node.config.sctp
    if here.packet.flow.protocol != SCTP or enabled or walk.answered_now():
        return True
    where, evidence = here.in_cilium(HopKind.CONNTRACK), cite.whole(walk.cluster.settings_record)
    fix = Fix(
        "Set enable-sctp of ConfigMap cilium-config to true, and restart the agents.",
        "kubectl get configmap -n kube-system cilium-config -o jsonpath={.data.enable-sctp}",
    )
    if enabled is None:
        walk.hop(
            *where, "SCTP is tracked, or not", State.UNKNOWN, here.packet, evidence,
            reason="whether Cilium passes SCTP is not known: nothing says whether enable-sctp is "
            "true, which it is not by default",
            decides=Decides.DROP, fix=fix,
        )  # fmt: skip
        return True
    why = "CT: Unknown L4 protocol"
    walk.drop(
        *where, f"Cilium passes no SCTP, since enable-sctp is false: {why}", State.DERIVED,
        here.packet, evidence,
        title=f"Cilium of {here.node} drops SCTP: enable-sctp is false",
        detail=fix.text, fix=fix, object="ConfigMap kube-system/cilium-config: enable-sctp",
    )  # fmt: skip
    return False
