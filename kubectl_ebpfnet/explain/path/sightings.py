"""The packets of a flow that Cilium's datapath reported: hubble's flow log, and monitor's output.

Hubble's flow log has the last minutes of a node; monitor's output is there where a capture has it,
and has no times. An event is of a flow when protocol, addresses and the destination's port are
those of the packet before or after any of its translations, in either direction. The source port
does not count: what is dropped early is in no table, so its port is not known. Sources: Cilium
bpf/lib/trace.h (observation points), bpf/lib/drop.h; cilium-facts 2.12, 2.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from kubectl_ebpfnet.explain.path.state import PathBuilder
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.explain.views.node import NodeView
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium_events import MonitorEvent
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import Record
from kubectl_ebpfnet.model.net import Address, Flow, has_ports
from kubectl_ebpfnet.model.path import Evidence


@dataclass(frozen=True, slots=True)
class Sighting:
    """One event of a flow.

    Attributes:
        event: what was reported.
        node: whose datapath reported it.
        source: `hubble` or `monitor`.
        reply: the packet was an answer, against the flow's direction.
        age: seconds between the event and the record, None where the event has no time.
        evidence: its line.
    """

    event: MonitorEvent
    node: str
    source: str
    reply: bool
    age: float | None
    evidence: tuple[Evidence, ...]


def sightings(walk: PathBuilder) -> list[Sighting]:
    """Return every event of the walk's flow, of every node that the walk came to."""
    flows = list(dict.fromkeys([walk.ends.flow, *(hop.packet.flow for hop in walk.hops)]))
    for tracked in walk.flows:
        flows += [tracked.flow, tracked.translated]
    names = _names(walk.cluster, flows)
    nodes = filter(None, dict.fromkeys([*walk.nodes, *(hop.node for hop in walk.hops)]))
    return [s for name in nodes for s in _at(walk.cluster.node(name), flows, names)]


def _names(cluster: ClusterView, flows: Iterable[Flow]) -> dict[str, list[Address]]:
    """Return the names under which hubble's text may have the ends of flows: of pods, and of
    Services, which may have the same name."""
    found: dict[str, list[Address]] = {}
    for address in {end for flow in flows for end in (flow.source, flow.destination)}:
        pod = cluster.pod_with(address)
        named = [f"{pod.namespace}/{pod.name}"] if pod is not None else []
        for service in cluster.index.services_with(address):
            if address in service.cluster_addresses:
                named.append(f"{service.namespace}/{service.name}")
        for name in named:
            found.setdefault(name, []).append(address)
    return found


def _at(
    node: NodeView, flows: Iterable[Flow], names: Mapping[str, Sequence[Address]]
) -> Iterator[Sighting]:
    wanted = list(flows)
    ends = {str(end) for flow in wanted for end in (flow.source, flow.destination)}
    for record, line in node.events(sorted({*ends, *names})):
        event = line.fact
        for seen in _tuples(event, names):
            reply = _is_reply(event, seen, wanted)
            if reply is None:
                continue
            source = "hubble" if record.argv[0] == "hubble" else "monitor"
            yield Sighting(event, node.name, source, reply, _age(event, record), line.evidence)
            break


def _is_reply(event: MonitorEvent, seen: Flow, wanted: Iterable[Flow]) -> bool | None:
    """Tell whether a packet is an answer to a flow, or of the flow itself; None for neither.

    What the packet says of itself comes first: the other end's own requests are no answers. Where
    it says nothing, the server's port tells; a flow without one proves no answer.
    """
    if event.is_answer is not True and any(_is(seen, flow) for flow in wanted):
        return False
    if event.is_answer is False:
        return None
    back = seen.reversed()
    told = [f for f in wanted if event.is_answer or f.destination_port is not None]
    return True if any(_is(back, flow) for flow in told) else None


def _tuples(event: MonitorEvent, names: Mapping[str, Sequence[Address]]) -> list[Flow]:
    """Return the packet's tuple, and as it was before or after its source was translated; with
    every address that its names may mean."""
    if event.named is not None:
        named = event.named
        return [
            Flow(named.protocol, source, named.source_port, end, named.destination_port)
            for source in _addresses(named.source, names)
            for end in _addresses(named.destination, names)
        ]
    if event.flow is None:
        return []
    others = [event.original_address, event.translated_source]
    return [event.flow, *(replace(event.flow, source=a) for a in others if a is not None)]


def _addresses(text: str, names: Mapping[str, Sequence[Address]]) -> Sequence[Address]:
    if text in names:
        return names[text]
    address = js.address(text)
    return (address,) if address is not None else ()


def _is(seen: Flow, flow: Flow) -> bool:
    """Tell whether a packet is of a flow in its direction, whatever its source port."""
    if (seen.protocol, seen.source, seen.destination) != (
        flow.protocol,
        flow.source,
        flow.destination,
    ):
        return False
    port = flow.destination_port if has_ports(flow.protocol) else None
    return port is None or seen.destination_port == port


def _age(event: MonitorEvent, record: Record) -> float | None:
    try:
        now = datetime.fromisoformat(record.started)
        if event.time[:1].isalpha():  # hubble's text says no year
            then = datetime.strptime(
                f"{now.year} {event.time[:22]} +0000", "%Y %b %d %H:%M:%S.%f %z"
            )
            then = then.replace(year=now.year - 1) if then - now > timedelta(days=1) else then
        else:
            then = datetime.fromisoformat(event.time)
        return max(0.0, (now - then).total_seconds())
    except (ValueError, TypeError):  # no time, or one of them without a zone
        return None


def newest_first(sighting: Sighting) -> float:
    """Return a key that sorts the newest first; those without a time come last."""
    return float("inf") if sighting.age is None else sighting.age


def seconds(age: float) -> str:
    """Return an age as `8s`."""
    return f"{age:.0f}s"
