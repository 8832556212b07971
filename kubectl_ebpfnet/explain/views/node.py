"""A node: its tables, how Cilium is set up there, and what that makes of its routing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from ipaddress import IPv6Address
from itertools import chain, islice

from kubectl_ebpfnet.explain.views import cite, host_routing
from kubectl_ebpfnet.explain.views.answer import FactLine
from kubectl_ebpfnet.explain.views.host_routing import ForwardedFlow, HostRouting
from kubectl_ebpfnet.explain.views.node_tables import NodeTables
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Bundle, Record, agent_place, node_place
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import TCP, Address, Flow
from kubectl_ebpfnet.model.shell import word
from kubectl_ebpfnet.parse.cilium import config as cilium_config

_SEARCHED = 4000
"""Conntrack lines that are searched for a flow that tells how a node forwards."""


class NodeView(NodeTables):
    """A node: its network namespace and the state of Cilium's agent."""

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        settings: DatapathConfig,
        settings_record: Record | None,
        agent: Callable[[], Pod | None] = lambda: None,
    ) -> None:
        """View a node.

        Args:
            bundle: all records.
            name: of the node, as in Kubernetes.
            settings: Cilium's in the whole cluster; the agent's own status overrides them.
            settings_record: the record of these settings, None when there is none.
            agent: returns the pod of the node's agent, None where it is not recorded.
        """
        super().__init__(bundle, (agent_place(name), node_place(name)))
        self.name = name
        self._settings = settings
        self.settings_record = settings_record
        self._agent = agent

    @cached_property
    def config(self) -> DatapathConfig:
        """How the datapath is set up: the agent's status, then the cluster's settings."""
        status = self[q.STATUS]
        from_status = status.facts[0] if status.facts else DatapathConfig()
        return cilium_config.merge(from_status, self._settings)

    @cached_property
    def config_record(self) -> Record | None:
        """The record that `config` mostly comes from."""
        status = self[q.STATUS]
        if status.known:
            return status.record
        return self.settings_record

    def cilium(self, words: str) -> str:
        """Return a command of this node's agent as its image spells it, for advice: `cilium-dbg`
        since Cilium 1.15, `cilium` before."""
        asked = self.bundle.at(agent_place(self.name))
        names = (record.argv[0] for record in asked if record.ok and record.argv)
        name = next((name for name in names if name in ("cilium", "cilium-dbg")), "cilium-dbg")
        return f"{name} {words}"

    def in_agent(self, words: str) -> str:
        """Return a command line that runs a command of this node's agent from the reader's shell;
        where the agent's pod is not recorded, the command itself."""
        pod, command = self._agent(), self.cilium(words)
        if pod is None:
            return command
        at = f"-n {word(pod.namespace)} {word(pod.name)} -c cilium-agent"
        return f"kubectl exec {at} -- {command}"

    @cached_property
    def host_routing(self) -> HostRouting:
        """Whether what the node's pods send passes its netfilter by."""
        rules = self.ruleset(4)
        rule = host_routing.forward_rule(rules.facts[0] if rules.facts else None)
        proof = cite.of(rules.record, rule.span) if rule is not None else ()
        flows = chain(self._forwarded(), self._seen_forwarded())
        return host_routing.decide(self.config, rule, proof, flows)

    def _forwarded(self) -> Iterator[ForwardedFlow]:
        """Yield answered TCP flows of the node's pods that left it without a tunnel."""
        pods = [a for a in self._pod_addresses if a not in self.own_addresses]
        table = self.table_state(q.CONNTRACK)
        for line in islice(self.lines(q.CT, [str(pod) for pod in pods]), _SEARCHED):
            entry, flow = line.fact, line.fact.flow
            answered = entry.tx_flags_seen and entry.rx_flags_seen and flow.protocol == TCP
            if not answered or entry.direction != "OUT" or entry.related or flow.source not in pods:
                continue
            if entry.rev_nat or not self._leaves_without_tunnel(flow.destination):
                continue
            whole = table.record is None or table.record.has_all(flow)
            seen = self._in_netfilter(flow) if whole else None
            proof = line.evidence + (seen.evidence if seen is not None else ())
            yield ForwardedFlow(seen is not None if table.known and whole else None, proof)

    def _in_netfilter(self, flow: Flow) -> FactLine[ConntrackEntry] | None:
        lines = self.lines(q.CONNTRACK, [str(flow.source), expanded(flow.source)])
        return next((line for line in lines if line.fact.original == flow), None)

    def _leaves_without_tunnel(self, destination: Address) -> bool:
        if destination in self.own_addresses or self.local_endpoint(destination):
            return False
        if self.left_out(q.IPCACHE, destination):  # a flow of others, which says nothing then
            return False
        remote = self.ipcache_of(destination)
        return remote is not None and remote.tunnel_endpoint is None

    def _seen_forwarded(self) -> Iterator[ForwardedFlow]:
        """Yield packets of the node's pods that hubble or monitor showed on such a way.

        What the stack forwards is reported to-stack and then, where a program is at the device,
        to-network as well: only a first packet that was never seen to-stack tells the other way.
        """
        pods = [a for a in self._pod_addresses if a not in self.own_addresses]
        found: dict[str, dict[Flow, FactLine[MonitorEvent]]] = {"to-stack": {}, "to-network": {}}
        for _, line in islice(self.events([str(pod) for pod in pods]), _SEARCHED):
            event, flow = line.fact, line.fact.flow
            if event.point not in found or flow is None or flow.source not in pods:
                continue
            first = "SYN" in event.tcp_flags and "ACK" not in event.tcp_flags
            if first and self._leaves_without_tunnel(flow.destination):
                found[event.point][flow] = line
        for line in found["to-stack"].values():
            yield ForwardedFlow(True, line.evidence, "to-stack")
        for flow, line in found["to-network"].items():
            if flow not in found["to-stack"]:
                yield ForwardedFlow(False, line.evidence, "to-network")

    @cached_property
    def _pod_addresses(self) -> tuple[Address, ...]:
        found = [row.address for row in self[q.ENDPOINT_MAP].facts if not row.host]
        found += [a for one in self[q.ENDPOINTS].facts for a in one.addresses]
        return tuple(dict.fromkeys(found))


def expanded(address: Address) -> str:
    """Return the address as nf_conntrack's procfs file prints it: IPv6 in full."""
    return address.exploded if isinstance(address, IPv6Address) else str(address)
