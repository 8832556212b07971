"""The protocol between a client and the node side (kubectl_ebpfnet/node).

The node side runs in a pod on the node and is spoken to over exec. The client writes requests, one
JSON object a line; the node side answers mostly in their order (what other processes of it read
comes last), and each answer names its request. Each answer is a header line and then as
many bytes as the header says: facts, one JSON object a line, as
kubectl_ebpfnet/model/protocol/codec.py writes them, or the text of a program of the node. A long
answer comes in parts, all but the last with `more`, so that no side has to hold a table of 500,000
entries.

    → {"protocol": 1, "id": 1, "argv": ["ebpfnet-node", "links"], "netns": null, "flows": []}
    → {"end": true}
    ← {"protocol": 1, "version": "0.2.0", "digest": "87a6…"}
    ← {"id": 1, "bytes": 262144, "more": true}
    ← …
    ← {"id": 1, "bytes": 187, "exit_code": 0, "error": ""}
    ← {"index": 1, "name": "lo", …}

`digest` is that of the node side's sources (node_side.py): a client that has others sends them to
the pod, and asks again.

`argv` is the argv of the record, and can be run by hand in the node pod. `netns` selects the
network namespace; `flows` narrows tables that grow with traffic. `end` is needed because stdin has
no end on exec's v4 protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address, Flow, has_ports

PROTOCOL = 1
"""Rises when an old client cannot understand a new node side, or the other way round."""

PROGRAM = "ebpfnet-node"
"""First word of an argv that the node side answers itself."""

HOST_PROGRAMS = (
    ("iptables-save", "-c"),
    ("ip6tables-save", "-c"),
    ("iptables-legacy-save", "-c"),
    ("ip6tables-legacy-save", "-c"),
    ("iptables-nft-save", "-c"),
    ("ip6tables-nft-save", "-c"),
    ("nft", "-j", "list", "ruleset"),
    ("ipset", "save"),
    ("cat", "/proc/net/sctp/eps"),
)
"""Programs of the node itself that the node side runs, in the node's mount namespace, when they
are asked for by exactly this argv. No other program is ever run."""


def node_argv(name: str, *words: str) -> tuple[str, ...]:
    """Return the argv of a question to the node side."""
    return (PROGRAM, name, *words)


@dataclass(frozen=True, slots=True)
class PodNamespace:
    """A pod's network namespace, found by the names of its processes' cgroups.

    Attributes:
        uid: of the pod.
        containers: ids of its containers without `containerd://` and the like.
    """

    uid: str
    containers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """A filter of entries of a conntrack or NAT table; None is any.

    An entry fits when it fits in either orientation: `address` and `port` at one end, `peer` and
    `peer_port` at the other, in the flow before or after translation.
    """

    address: Address | None = None
    port: int | None = None
    peer: Address | None = None
    peer_port: int | None = None
    protocol: int | None = None

    @property
    def exact(self) -> Flow | None:
        """The flow of a filter without None, in either direction; None for other filters."""
        if self.address is None or self.peer is None or self.protocol is None:
            return None
        if self.port is None or self.peer_port is None:
            return None
        return Flow(self.protocol, self.address, self.port, self.peer, self.peer_port)

    def fits(self, *flows: Flow) -> bool:
        """Tell whether any of these flows fits, in either orientation."""
        return any(self._fits(flow) or self._fits(flow.reversed()) for flow in flows)

    def _fits(self, flow: Flow) -> bool:
        return (
            (self.protocol is None or self.protocol == flow.protocol)
            and (self.address is None or self.address == flow.source)
            and (self.port is None or self.port == flow.source_port)
            and (self.peer is None or self.peer == flow.destination)
            and (self.peer_port is None or self.peer_port == flow.destination_port)
        )


def snat_end(flows: Sequence[FlowFilter]) -> tuple[int, Address, int] | None:
    """Return the protocol, address and port, 0 for ICMP, that the first flow goes to: every flow
    of a node there needs another port of source NAT. None where that is not said."""
    for flow in flows[:1]:
        if flow.peer is not None and flow.protocol is not None:
            if not has_ports(flow.protocol):
                return flow.protocol, flow.peer, 0
            if flow.peer_port is not None:
                return flow.protocol, flow.peer, flow.peer_port
    return None


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """One question to the node side.

    Attributes:
        id: comes back in the answer.
        argv: `node_argv(name, …)` with a name of NODE_FACTS (model/node_facts.py), or one of
            HOST_PROGRAMS.
        netns: a pod's namespace; None for the node's own.
        flows: filters of `ct`, `nat` and `conntrack`; () for all entries.
        beside: filters of what else is wanted of these tables, of which it is no matter if a part
            is left out.
        newest: how many entries are sent of flows that differ in the peer alone; 0 for all.
        rows: addresses whose rows are wanted of `lb` and `ipcache`, and whose endpoints' maps of
            `policy`; () for all.
    """

    id: int
    argv: tuple[str, ...]
    netns: PodNamespace | None = None
    flows: tuple[FlowFilter, ...] = ()
    beside: tuple[FlowFilter, ...] = ()
    newest: int = 0
    rows: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many entries a node left out of an answer. A function that answers a question yields it
    among its facts; the last header of the answer has it.

    Attributes:
        older: that fit `flows`, and are older than those that were sent; rows of other addresses
            than `rows`, or maps of their endpoints.
        beside: that fit `beside` alone.
        about: both are estimates. Of a large map of translations only those of the connections that
            conntrack's answer shows are looked up, by their keys.
    """

    older: int = 0
    beside: int = 0
    about: bool = False
