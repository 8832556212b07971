"""Whether the maps by which Cilium's programs call each other hold programs.

Each program has a map of its tail calls (`cilium_calls_00448` of an endpoint,
`cilium_calls_netdev_00002`, `cilium_calls_overlay_2`, `cilium_calls_hostns_00435`).
`cilium_call_policy` has the ingress program of each endpoint by its id. A slot that is empty ends
the packet: "Missed tail call" (Cilium bpf/lib/tailcall.h). Without a pin the kernel empties such a
map (Linux kernel/bpf/arraymap.c bpf_fd_array_map_clear).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kubectl_ebpfnet.model.cilium import TailCalls
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.cilium import pins, policy

_CALLS, POLICY_CALLS = "cilium_calls_", "cilium_call_policy"
_SLOTS = 128
"""Slots that are looked at; Cilium has some 50 (CILIUM_CALL_SIZE)."""


def states(_: NodeRequest) -> Iterator[TailCalls]:
    """Yield each map of tail calls, and each endpoint's place in the map of policies.

    Raises:
        KernelError: Cilium's maps cannot be seen, or the kernel refuses.
    """
    folder = pins.root()
    for name in pins.names(folder):
        if not name.startswith(_CALLS):
            continue
        table = pins.opened(folder, name)
        if table is not None:
            with table:
                slots = (table.lookup(struct.pack("=I", slot)) for slot in range(_SLOTS))
                yield TailCalls(name, any(program is not None for program in slots))
    table = pins.opened(folder, POLICY_CALLS)
    if table is not None:
        with table:
            for number in sorted(policy.maps(folder)):
                program = table.lookup(struct.pack("=I", number))
                yield TailCalls(POLICY_CALLS, program is not None, number)
