"""How full Cilium's maps are, and how many flows source NAT has to a destination.

The first buckets of a large hash map tell how many entries the others have (reading.times_read), so
no map of half a million entries is read for its number. A trie would be read whole, as it is for
the ipcache's rows beside this: their number, and that of the rows left out, is its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_ebpfnet.errors import KernelError, ParseError, Unsupported
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.model.room import MapRoom, SnatUse, Table
from kubectl_ebpfnet.model.untrusted import address
from kubectl_ebpfnet.node.bpf import maps, syscall
from kubectl_ebpfnet.node.cilium import nat, pins, reading

_LRU = frozenset({syscall.LRU_HASH, syscall.LRU_PERCPU_HASH})
_POLICY = re.compile(r"cilium_policy_(?:v[0-9]{1,3}_)?([0-9]{5})")
_NAMES = (
    (re.compile(r"cilium_ct([46])_global"), Table.CT_TCP),
    (re.compile(r"cilium_ct_any([46])_global"), Table.CT_ANY),
    (re.compile(r"cilium_snat_v([46])_external"), Table.NAT),
    (re.compile(r"cilium_ipcache(?:_v2)?"), Table.IPCACHE),
    (re.compile(r"cilium_lxc"), Table.ENDPOINTS),
    (re.compile(r"cilium_lb([46])_services_v2"), Table.SERVICES),
    (re.compile(r"cilium_lb([46])_backends(?:_v[23])?"), Table.BACKENDS),
    (re.compile(r"cilium_lb([46])_reverse_nat"), Table.REV_NAT),
)


def rooms(_: NodeRequest) -> Iterator[MapRoom]:
    """Yield the room of each pinned map. Raises KernelError when none may be read."""
    folder = pins.root()
    for name in pins.names(folder):
        policy = _POLICY.fullmatch(name)
        found = next(((m, t) for form, t in _NAMES if (m := form.fullmatch(name))), None)
        if policy is None and found is None:
            continue
        opened = pins.opened(folder, name)
        if opened is None:
            continue
        with opened as table:
            kind = Table.POLICY if found is None else found[1]
            entries, exact = (None, True) if kind is Table.IPCACHE else _entries(table)
            version = found[0].groups()[0] if found is not None and found[0].groups() else None
            yield MapRoom(
                kind,
                table.info.max_entries,
                int(version) if version else None,
                int(policy[1]) if policy is not None else None,
                entries,
                exact,
                table.info.type in _LRU,
            )


def _entries(table: maps.Map) -> tuple[int, bool]:
    """Return how many entries a map has, and whether each was counted."""
    counted = 0
    try:
        for count, _, _ in table.batches():
            counted += count
            if counted >= reading.ENOUGH and (times := reading.times_read(table)) > 1:
                return min(int(counted * times), table.info.max_entries), False
    except Unsupported:  # before Linux 5.6, and tries before 5.16
        counted = sum(1 for _ in table.items())
    return counted, True


def snat_uses(request: NodeRequest) -> Iterator[SnatUse]:
    """Yield the flows to a destination by their new source. Of a large map, sources with few flows
    are not counted: a fact without source says how many each of them has at most.

    The request's words are the protocol's number, the destination's address and its port.

    Raises:
        KernelError: other words; no SNAT map of the IP version is pinned, has these sizes, or may
            be read.
    """
    protocol, destination, port = end = _end(request.argv[2:])
    sources, others = nat.sources_to(end)
    for source, flows in sorted(sources.items(), key=lambda each: str(each[0])):
        yield SnatUse(protocol, destination, port, source, flows)
    if others:
        yield SnatUse(protocol, destination, port, None, others)


def _end(words: tuple[str, ...]) -> tuple[int, Address, int]:
    protocol, text, port = words if len(words) == 3 else ("", "", "")
    if not all(re.fullmatch(r"[0-9]{1,5}", word) for word in (protocol, port)):
        raise KernelError(f"a protocol, an address and a port are asked for, not {' '.join(words)}")
    try:
        return int(protocol), address(text, "a request"), int(port)
    except ParseError as error:
        raise KernelError(error.message) from None
