"""What a node's tables say: of devices, addresses and rules, of Cilium's endpoints and ipcache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from kubectl_ebpfnet.explain.views import records
from kubectl_ebpfnet.explain.views.answer import Answer, FactLine, grouped
from kubectl_ebpfnet.explain.views.netns import Netns
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.bpf import Attachment, Program
from kubectl_ebpfnet.model.cilium import Endpoint, IpcacheEntry
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.kernel import Link, Rule
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.netfilter import Ruleset

_LEAVING = ("disconnecting", "disconnected")
"""States of an endpoint that is being deleted (Cilium pkg/endpoint, State)."""


class NodeTables(Netns):
    """The tables of a node and of its agent, looked up by what is asked for."""

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
