"""Cilium's services and backends from its maps, equal to `bpf lb list` with the backends' state.

Sources: Cilium pkg/loadbalancer/maps, pkg/maps/lbmap; node/cilium/layout_lb.py. A service has a row
for each slot: slot 0 is the frontend, the others name a backend by its id.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import islice
from pathlib import Path

from kubectl_ebpfnet.model.cilium import Backend, Frontend
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import LeftOut, NodeRequest
from kubectl_ebpfnet.node.cilium import layout_lb, pins, reading
from kubectl_ebpfnet.node.cilium.columns import how_many, places
from kubectl_ebpfnet.node.cilium.layout_lb import ServiceKey, ServiceValue
from kubectl_ebpfnet.node.cilium.layout_tuple import of_sizes

SERVICES = {"cilium_lb4_services_v2": 4, "cilium_lb6_services_v2": 6}
"""IP version of each."""

FrontendKey = tuple[Address, int, int | None, bool]


@dataclass(slots=True)
class _FrontendSlots:
    """The slots of one frontend, while rows are read."""

    flags: int | None = None
    rev_nat: int = 0
    proxy_port: int = 0
    unresolved: int = 0
    backends: list[Backend] = field(default_factory=list)


SAMPLE = 3
"""Frontends of a batch that are sent beside those that are asked for: they show the map's form."""


def frontends(request: NodeRequest) -> Iterator[Frontend | LeftOut]:
    """Yield the frontends with their backends, in the order of address and port; where rows are
    asked for, those at these addresses.

    A slot whose backend is missing is counted only, since Cilium's datapath cannot use it.

    Raises:
        KernelError: no services are pinned, a map has unknown sizes, or may not be read.
    """
    folder = pins.root()
    left_out = 0
    for name in pins.present(folder, tuple(SERVICES)):
        # Services first: Cilium writes a backend before a slot names it.
        if request.rows:
            rows, others = _selected(folder, name, request)
            left_out += others
            backends = _backends_of(folder, SERVICES[name], rows)
        else:
            rows = list(_services(folder, name))
            backends = _backends(folder, SERVICES[name])
        found: dict[FrontendKey, _FrontendSlots] = {}
        for key, value in rows:
            _add_slot(found.setdefault(key.frontend, _FrontendSlots()), key, value, backends)
        for frontend in sorted(
            found, key=lambda front: (int(front[0]), front[1], front[2] or 0, front[3])
        ):
            yield _frontend(frontend, found[frontend])
    if left_out:
        yield LeftOut(left_out)


def _layouts(name: str) -> Mapping[tuple[int, int], Callable[[bytes], ServiceKey]]:
    return layout_lb.SERVICES4 if SERVICES[name] == 4 else layout_lb.SERVICES6


def _services(folder: Path, name: str) -> Iterator[tuple[ServiceKey, ServiceValue]]:
    for service_key, key, value in pins.entries(folder, name, _layouts(name)):
        yield service_key(key), layout_lb.service_value(value)


def _selected(
    folder: Path, name: str, request: NodeRequest
) -> tuple[list[tuple[ServiceKey, ServiceValue]], int]:
    """Return the rows of the frontends that are asked for, and how many other frontends there are.

    Of the wildcard address, which a NodePort has, only the ports of the flows are of use: only
    sockets look it up, by the port that was asked for (bpf/bpf_sock.c).
    """
    table = pins.opened(folder, name)
    if table is None:
        return [], 0
    length = 4 if SERVICES[name] == 4 else 16
    wanted = {row.packed for row in request.rows if len(row.packed) == length}
    ports = (flow.peer_port for flow in request.flows)
    numbers = frozenset(port.to_bytes(2, "big") for port in ports if port is not None)
    wildcard = frozenset((bytes(length),))
    found, frontends, sample = [], 0, False
    with table:
        sizes = (table.info.key_size, table.info.value_size)
        service_key = of_sizes(name, sizes, _layouts(name))
        for keys, values in reading.batches(table):
            slots = keys.having(length + 2, frozenset((b"\0\0",)))
            if not sample:
                some = islice(places(keys.all ^ slots, keys.count), SAMPLE)
                wanted |= {keys.record(number)[:length] for number in some}
                sample = True
            mask = keys.having(0, frozenset(wanted))
            if numbers:
                mask &= keys.all ^ keys.having(0, wildcard) | keys.having(length, numbers)
            frontends += how_many(slots & (keys.all ^ mask))
            for number in places(mask, keys.count):
                row = layout_lb.service_value(values.record(number))
                found.append((service_key(keys.record(number)), row))
    return found, frontends


def _backends_map(folder: Path, version: int) -> str:
    """Return the name of the newest map; an upgrade leaves older maps behind."""
    names = tuple(f"cilium_lb{version}_backends{form}" for form in ("_v3", "_v2", ""))
    return pins.present(folder, names)[0]


def _backends(folder: Path, version: int) -> Mapping[int, Backend]:
    """Return backends by id."""
    known = layout_lb.BACKENDS4 if version == 4 else layout_lb.BACKENDS6
    found = {}
    for backend, key, value in pins.entries(folder, _backends_map(folder, version), known):
        number = layout_lb.backend_id(key)
        found[number] = replace(backend(value), id=number)
    return found


def _backends_of(
    folder: Path, version: int, rows: Sequence[tuple[ServiceKey, ServiceValue]]
) -> Mapping[int, Backend]:
    """Return the backends that rows name, by id."""
    known = layout_lb.BACKENDS4 if version == 4 else layout_lb.BACKENDS6
    name = _backends_map(folder, version)
    table = pins.opened(folder, name)
    found: dict[int, Backend] = {}
    if table is None:
        return found
    with table:
        backend = of_sizes(name, (table.info.key_size, table.info.value_size), known)
        for number in {value.backend_id for key, value in rows if key.slot}:
            if number.bit_length() > 8 * table.info.key_size:
                continue
            value = table.lookup(number.to_bytes(table.info.key_size, sys.byteorder))
            if value is not None:
                found[number] = replace(backend(value), id=number)
    return found


def _add_slot(
    rows: _FrontendSlots, key: ServiceKey, value: ServiceValue, backends: Mapping[int, Backend]
) -> None:
    rows.rev_nat = value.rev_nat or rows.rev_nat
    if key.slot == 0:
        rows.flags = value.flags
        rows.proxy_port = value.proxy_port
    elif value.backend_id in backends:
        rows.backends.append(replace(backends[value.backend_id], slot=key.slot))
    else:
        rows.unresolved += 1


def _frontend(frontend: FrontendKey, rows: _FrontendSlots) -> Frontend:
    kind, words = ("", frozenset[str]()) if rows.flags is None else layout_lb.flag_words(rows.flags)
    address, port, protocol, internal = frontend
    return Frontend(
        address=address,
        port=port,
        protocol=protocol,
        internal=internal,
        type=kind,
        flags=words,
        rev_nat=rows.rev_nat,
        backends=tuple(sorted(rows.backends, key=lambda backend: backend.slot)),
        proxy_port=rows.proxy_port,
        unresolved=rows.unresolved,
    )
