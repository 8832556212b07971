"""A node: its network namespace and the state of Cilium's agent, each parsed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from ipaddress import IPv6Address
from itertools import chain, islice

from kubectl_ebpfnet.explain.views import cite, host_routing, records
from kubectl_ebpfnet.explain.views.answer import Answer, FactLine, grouped
from kubectl_ebpfnet.explain.views.host_routing import ForwardedFlow, HostRouting
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.cilium import Endpoint, IpcacheEntry
from kubectl_ebpfnet.model.cilium_config import DatapathConfig
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.conntrack import ConntrackEntry
from kubectl_ebpfnet.model.evidence import Bundle, Record, agent_place, node_place
from kubectl_ebpfnet.model.kernel import Link, Rule
from kubectl_ebpfnet.model.kube import Pod
from kubectl_ebpfnet.model.net import TCP, Address, Flow
from kubectl_ebpfnet.model.netfilter import Ruleset
from kubectl_ebpfnet.model.shell import word
from kubectl_ebpfnet.parse.cilium import config as cilium_config

_SEARCHED = 4000
"""Conntrack lines that are searched for a flow that tells how a node forwards."""
_LEAVING = ("disconnecting", "disconnected")
"""States of an endpoint that is being deleted (Cilium pkg/endpoint, State)."""


class NodeView(Netns):
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

    def ruleset(self, version: int) -> Answer[Ruleset]:
        """Return netfilter's rules of one IP version; one fact, or none."""
        return self[q.NETFILTER if version == 4 else q.NETFILTER6]

    def rules(self, version: int) -> Answer[Rule]:
        """Return the routing rules of one IP version, 4 or 6."""
        answer = self[q.RULES if version == 4 else q.RULES6]
        facts = tuple(rule for rule in answer.facts if rule.version in (None, version))
        return replace(answer, facts=facts)

    def sysctl(self, name: str) -> int | None:
        """Return a sysctl by its path below /proc/sys, None where it was not read."""
        return next((fact.value for fact in self.having(q.SYSCTLS, name, "name")), None)

    @cached_property
    def bpf_links(self) -> Answer[Attachment]:
        """Programs held by bpf_links.

        bpftool lists the links of every network namespace, and looks the number of a device up in
        its own: such a link seems to be at a device of the node. Where bpftool knows a link's type,
        its `net show` lists only links of this namespace.
        """
        answer, net = self[q.BPF_LINKS], self[q.BPF_NET]
        if not net.known:
            return answer
        here = {(a.device, a.program_id) for a in net.facts}
        facts = tuple(
            a for a in answer.facts if not (a.hook and a.device) or (a.device, a.program_id) in here
        )
        return replace(answer, facts=facts)

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

    def events(self, ends: Sequence[str]) -> Iterator[tuple[Record, FactLine[MonitorEvent]]]:
        """Yield what hubble's flow log, and monitor where a capture has its output, show of packets
        with any of these addresses or names, each with its record.

        Both may be there several times, with other flags. A monitor that was ended by a time limit
        counts.
        """
        for place in self.places:
            for record in self.bundle.at(place):
                fact = next(
                    (f for f in (q.HUBBLE, q.MONITOR) if f.is_answered_by(record.argv)), None
                )
                if fact is None:
                    continue
                unread = self._unread.setdefault(fact.name, {})
                for line in records.matches(record, fact, ends, unread):
                    yield record, line

    @cached_property
    def _endpoints_by_address(self) -> dict[Address, Endpoint]:
        # An endpoint that is being deleted stays in the list while its address has a new owner.
        listed = sorted(self[q.ENDPOINTS].facts, key=lambda one: one.state in _LEAVING)
        return {a: one for one in reversed(listed) for a in one.addresses}

    def listed_endpoint(self, address: Address) -> Endpoint | None:
        """Return the endpoint with this address in the agent's own list, None without one."""
        return self._endpoints_by_address.get(address)

    def local_endpoint(self, address: Address) -> Endpoint | None:
        """Return the endpoint with this address as the datapath finds it: by the endpoints map,
        and by the agent's list where that map was not read."""
        if self[q.ENDPOINT_MAP].known and not any(
            not row.host for row in self.having(q.ENDPOINT_MAP, address, "address")
        ):
            return None
        return self.endpoint_of(address)

    def endpoint_of(self, address: Address) -> Endpoint | None:
        """Return the endpoint with this address, by the agent, then by the endpoints map."""
        listed = self.listed_endpoint(address)
        if listed is not None:
            return listed
        for row in self.having(q.ENDPOINT_MAP, address, "address"):
            if not row.host and row.endpoint_id is not None:
                return Endpoint(
                    id=row.endpoint_id,
                    identity=row.identity or 0,
                    addresses=(address,),
                    mac=row.mac,
                    host_mac=row.node_mac,
                    ifindex=row.ifindex,
                    interface=self.link_name(row.ifindex),
                )
        return None

    def endpoint_at(self, device: str) -> int | None:
        """Return the id of the endpoint with this host side device, None without one."""
        for endpoint in self.having(q.ENDPOINTS, device, "interface"):
            return endpoint.id
        link = self.link(device)
        for row in self.having(q.ENDPOINT_MAP, link.index, "ifindex") if link is not None else ():
            if not row.host:
                return row.endpoint_id
        return None

    def link_name(self, index: int | None) -> str:
        """Return the name of the device with this ifindex, "" without one."""
        return next((link.name for link in self.having(q.LINKS, index, "index")), "")

    def link(self, name: str) -> Link | None:
        """Return the device of this name, None without one."""
        return next(iter(self.having(q.LINKS, name, "name")), None)

    def program(self, number: int | None) -> Program | None:
        """Return the loaded program of this id, None without one."""
        return next(iter(self.having(q.BPF_PROGRAMS, number, "id")), None)

    @cached_property
    def net_shows_tcx(self) -> bool:
        """Whether `bpftool net` lists tcx or netkit programs, which old versions do not know."""
        return any(a.hook.startswith(("tcx", "netkit")) for a in self[q.BPF_NET].facts)

    @cached_property
    def links_by_device(self) -> dict[str, list[Attachment]]:
        """`bpf_links` of each device."""
        return grouped(self.bpf_links.facts, lambda attachment: attachment.device)

    @cached_property
    def links_by_pin(self) -> dict[str, list[Attachment]]:
        """`bpf_links` of each pin's path."""
        return grouped(self.bpf_links.facts, lambda attachment: attachment.pin)

    def addresses_of(self, device: str, version: int) -> tuple[Address, ...]:
        """Return the global addresses of a device in one IP version."""
        return tuple(
            fact.address
            for fact in self[q.ADDRESSES].facts
            if fact.device == device and fact.scope == "global" and fact.address.version == version
        )

    @cached_property
    def router_addresses(self) -> frozenset[Address]:
        """Addresses of cilium_host, the gateway of the node's pods."""
        facts = (*self[q.ADDRESSES].facts, *self[q.ROUTER_DEVICE].facts)
        return frozenset(fact.address for fact in facts if fact.device == "cilium_host")

    @cached_property
    def own_addresses(self) -> frozenset[Address]:
        """Addresses that are delivered to the node itself."""
        own = {fact.address for fact in self[q.ADDRESSES].facts}
        own.update(
            route.destination.network_address
            for route in self[q.ROUTES].facts
            if route.type == "local" and route.destination.num_addresses == 1
        )
        return frozenset(own)

    @cached_property
    def lb_slotted(self) -> bool | None:
        """Whether the rows of Cilium's load-balancing map have slots: those of Cilium up to 1.11
        have none. None where no row has a backend."""
        slots = {bool(b.slot) for f in self[q.LB_MAP].facts for b in f.backends}
        return True in slots if slots else None

    @cached_property
    def lb_by_protocol(self) -> bool:
        """Whether the rows of Cilium's load-balancing map have a protocol."""
        return any(frontend.protocol is not None for frontend in self[q.LB_MAP].facts)

    def ipcache_of(self, address: Address) -> IpcacheEntry | None:
        """Return the ipcache entry with the longest prefix that holds the address; None without
        one, and where its rows were not asked for."""
        if not self.want(q.IPCACHE, address):
            return None
        holding = (entry for entry in self[q.IPCACHE].facts if address in entry.prefix)
        return max(holding, key=lambda entry: entry.prefix.prefixlen, default=None)

    def ipcache_lacks(self, address: Address) -> bool:
        """Tell whether surely no entry of the ipcache holds an address: its rows were read."""
        read = self[q.IPCACHE].known and not self.left_out(q.IPCACHE, address)
        return read and self.ipcache_of(address) is None


def expanded(address: Address) -> str:
    """Return the address as nf_conntrack's procfs file prints it: IPv6 in full."""
    return address.exploded if isinstance(address, IPv6Address) else str(address)
