"""The question of `path`, and what its walk asks further. Imports little: it is asked before
anything else is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.fact import Fact


@dataclass(frozen=True, slots=True)
class PathRequest:
    """The question of `path`, with names as the bundle's objects have them.

    Attributes:
        source: e.g. `pod/client`, namespace already applied.
        source_kind: `pod`, or the kind of a workload (`Deployment`, …) that is still to be
            resolved to one of its pods, as when a capture is read; `node` for a process in a node's
            own network namespace; `address` for a client outside of the cluster.
        source_namespace, source_name: of the source; "" for what has none.
        destination: the words after the source, without the port.
        destination_kind: `pod`, `service`, `node`, `address` or `name`.
        destination_namespace, destination_name: for objects; for a DNS name its text is the name.
        destination_address: for addresses, and for names once resolved.
        port: number, None when none was given.
        port_name: name of a Service's port, "" when a number or nothing was given.
        protocol: IANA number.
        note: how the destination was resolved, "" when there is nothing to say.
        ip_version: 4 or 6 where the user asked for it, None for what the ends have.
        size: of the one IP packet that is asked for, headers included, in bytes; it must not be
            fragmented. None for one that is as small as need be.
        source_address: of a client outside of the cluster, else None.
        query: complete names that a DNS query asks for, one of which it is; () for other packets.
        via: the node by which it enters the cluster, "" for each one that it may enter by.
    """

    source: str
    source_namespace: str
    source_name: str
    destination: str
    destination_kind: str
    protocol: int
    destination_namespace: str = ""
    destination_name: str = ""
    destination_address: Address | None = None
    port: int | None = None
    port_name: str = ""
    note: str = ""
    source_kind: str = "pod"
    ip_version: int | None = None
    size: int | None = None
    source_address: Address | None = None
    via: str = ""
    query: tuple[str, ...] = ()

    @property
    def from_outside(self) -> bool:
        """Whether a client outside of the cluster sends the packet."""
        return self.source_kind == "address"


@dataclass(frozen=True, slots=True)
class Further:
    """What a walk through the records needs besides them.

    Attributes:
        nodes: that the packet, or its answer, comes to, and of which nothing was read.
        tables: (node, fact) of tables of addresses of which a row was looked up that was left out
            at the node.
        facts: (node, fact) of what decides at nodes that were asked other things.
    """

    nodes: tuple[str, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, Fact[Any]], ...] = ()
