"""Host routing as the node's tables tell it, whatever the agent's status says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.host_routing import ForwardedFlow, decide, forward_rule
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.netfilter import NetfilterRule
from kubectl_ebpfnet.parse import netfilter
from tests.explain.path.changed import NATIVE, VXLAN, Change, changed, say, swap, without
from tests.explain.path.variants import edit

TUNNEL_BPF = DatapathConfig(host_routing="bpf", routing_mode="tunnel")
UNSEEN = [without("node2", f"cilium-dbg monitor{flag}") for flag in ("", " -v", " -j")]
SAVE, CT, STATUS = (
    "iptables-save -c", "cilium-dbg bpf ct list global -d", "cilium-dbg status -o json",
)  # fmt: skip
COUNTED = "-A CILIUM_FORWARD -i lxc+"


def rule(packets: int | None) -> NetfilterRule | None:
    """Cilium's rule that accepts what pods send."""
    counters = f"[{packets}:60] " if packets is not None else ""
    text = f"*filter\n:CILIUM_FORWARD - [0:0]\n{counters}{COUNTED} -j ACCEPT\nCOMMIT\n"
    return forward_rule(netfilter.ruleset(text.encode()))


def flow(in_netfilter: bool | None) -> ForwardedFlow:
    """An answered flow of a pod."""
    return ForwardedFlow(in_netfilter, ())


@pytest.mark.parametrize(
    ("config", "packets", "flows", "bpf"),
    [
        (
            TUNNEL_BPF,
            24,
            [],
            False,
        ),  # Cilium 1.13 with a tunnel: status says BPF, the stack forwards
        (TUNNEL_BPF, 0, [flow(None)], True),
        (TUNNEL_BPF, 0, [], None),  # no pod has sent anything yet
        (TUNNEL_BPF, None, [flow(False)], True),
        (TUNNEL_BPF, None, [flow(True)], False),
        (TUNNEL_BPF, None, [flow(None)], None),
        (DatapathConfig(), 0, [flow(False)], True),  # by a node pod: no status
        (DatapathConfig(), None, [], None),
        (DatapathConfig(host_routing="bpf", routing_mode="native"), None, [], True),
        (DatapathConfig(host_routing="legacy"), 0, [], False),
        (DatapathConfig(kube_proxy_replacement=False), None, [], False),
        (DatapathConfig(masquerade="iptables"), None, [], False),
    ],
)
def test_host_routing(
    config: DatapathConfig, packets: int | None, flows: list[ForwardedFlow], bpf: bool | None
) -> None:
    found = decide(config, rule(packets), (), flows)
    assert found.bpf is bpf
    assert found.reason


@pytest.mark.parametrize(
    ("changes", "bpf"),
    [
        ([], True),
        ([without("node2", STATUS)], True),  # as by a node pod
        ([swap("node2", SAVE, f"[0:0] {COUNTED}", f"[7:420] {COUNTED}")], False),
        ([edit("node2", CT, lambda _: ""), without("node2", SAVE)], True),  # monitor shows it
        ([edit("node2", CT, lambda _: ""), without("node2", SAVE), *UNSEEN], None),
        ([say("node2", CT, ""), without("node2", STATUS), without("node2", SAVE), *UNSEEN], None),
    ],
)
def test_a_recorded_node_tells_it(changes: list[Change], bpf: bool | None) -> None:
    assert ClusterView(changed(VXLAN, *changes)).node("node2").host_routing.bpf is bpf


def test_legacy_host_routing_is_the_agents_word() -> None:
    assert ClusterView(changed(NATIVE)).node("node2").host_routing.bpf is False


@pytest.mark.parametrize("name", ["cilium", "cilium-dbg"])
def test_advice_names_the_command_that_the_agent_has(name: str) -> None:
    bundle = changed(VXLAN)
    records = tuple(
        replace(record, argv=(name, *record.argv[1:]))
        if record.argv[:1] == ("cilium-dbg",)
        else record
        for record in bundle.records
    )
    node = ClusterView(replace(bundle, records=records)).node("node2")
    assert node.cilium("status") == f"{name} status"
