"""Cilium's services and backends from its maps, equal to `bpf lb list` with the backends' state.

Sources: Cilium pkg/loadbalancer/maps, pkg/maps/lbmap; node/cilium/layout_lb.py. A service has a row
for each slot: slot 0 is the frontend, the others name a backend by its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kubectl_ebpfnet.model.cilium import Backend, Frontend
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import layout_lb, pins
from kubectl_ebpfnet.node.cilium.layout_lb import ServiceKey, ServiceValue

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


def frontends(_: NodeRequest) -> Iterator[Frontend]:
    """Yield every frontend with its backends, in the order of address and port.

    A slot whose backend is missing is counted only, since Cilium's datapath cannot use it.

    Raises:
        KernelError: no services are pinned, a map has unknown sizes, or may not be read.
    """
    folder = pins.root()
    for name in pins.present(folder, tuple(SERVICES)):
        # Services first: Cilium writes a backend before a slot names it.
        rows = list(_services(folder, name))
        backends = _backends(folder, SERVICES[name])
        found: dict[FrontendKey, _FrontendSlots] = {}
        for key, value in rows:
            _add_slot(found.setdefault(key.frontend, _FrontendSlots()), key, value, backends)
        for frontend in sorted(
            found, key=lambda front: (int(front[0]), front[1], front[2] or 0, front[3])
        ):
            yield _frontend(frontend, found[frontend])


def _services(folder: Path, name: str) -> Iterator[tuple[ServiceKey, ServiceValue]]:
    known = layout_lb.SERVICES4 if SERVICES[name] == 4 else layout_lb.SERVICES6
    for service_key, key, value in pins.entries(folder, name, known):
        yield service_key(key), layout_lb.service_value(value)


def _backends(folder: Path, version: int) -> Mapping[int, Backend]:
    """Return backends by id, of the newest map; an upgrade leaves older maps behind."""
    names = tuple(f"cilium_lb{version}_backends{form}" for form in ("_v3", "_v2", ""))
    known = layout_lb.BACKENDS4 if version == 4 else layout_lb.BACKENDS6
    name = pins.present(folder, names)[0]
    found = {}
    for backend, key, value in pins.entries(folder, name, known):
        number = layout_lb.backend_id(key)
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
        external_policy="Local" if "Local" in words else "",
        internal_policy="Local" if "InternalLocal" in words else "",
        proxy_port=rows.proxy_port,
        unresolved=rows.unresolved,
    )
