"""Which programs of `trace` this kernel takes: found by loading, never by its version.

What is attached is detached at once, and selects no packet: a running trace, and traffic, see none
of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import Lacking, TraceLayer
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.model.protocol.tracing import MOST_DATA
from kubectl_ebpfnet.node.bpf.objects import BpfObject
from kubectl_ebpfnet.node.trace import packets

_RING_BYTES = 4096
_NO_NAMESPACE = 1
"""Inodes of namespaces begin at 0xeffffff9 (linux/proc_ns.h): no packet is selected."""


@dataclass(frozen=True, slots=True)
class _Object:
    """An object of programs.

    Attributes:
        name: bpf/NAME.bpf.c.
        programs: their names.
        values: contents of its sections of data. The verifier follows them, and takes a multiple of
            the time for each filter, so there is none.
    """

    name: str
    programs: tuple[str, ...]
    values: Mapping[str, bytes]


_SELECTION = packets.Selection(netns=_NO_NAMESPACE, data=MOST_DATA)
OBJECTS = (
    _Object("trace", tuple(packets.PROGRAMS), {".rodata.config": packets.config_of(_SELECTION)}),
)
"""The layers of `trace`, the needed one first: a further one is a further row."""


def layers(_request: NodeRequest) -> Iterator[TraceLayer]:
    """Yield what this kernel takes of each object."""
    return map(_tried, OBJECTS)


def _tried(each: _Object) -> TraceLayer:
    try:
        with BpfObject(each.name, each.programs, each.values, _RING_BYTES) as found:
            lacking = tuple(Lacking(one.program, one.reason) for one in found.refused)
            return TraceLayer(each.name, found.attached, lacking)
    except KernelError as error:
        reason = f"{error.message} ({error.hint})" if error.hint else error.message
        return TraceLayer(each.name, (), tuple(Lacking(name, reason) for name in each.programs))
