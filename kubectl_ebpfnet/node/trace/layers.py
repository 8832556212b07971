"""Which programs of `trace` this kernel takes: found by loading, never by its version.

What is attached is detached at once, and selects no packet: a running trace, and traffic, see none
of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import Lacking, TraceLayer
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.model.protocol.tracing import MOST_DATA
from kubectl_ebpfnet.node.bpf.objects import BpfObject
from kubectl_ebpfnet.node.trace import packets
from kubectl_ebpfnet.node.trace.programs import LAYER, UNSAFE, no_trampolines, trampolines_are_safe

_RING_BYTES = 4096
_NO_NAMESPACE = 1
"""Inodes of namespaces begin at 0xeffffff9 (linux/proc_ns.h): no packet is selected."""


@dataclass(frozen=True, slots=True)
class _Object:
    """An object of programs.

    Attributes:
        name: bpf/NAME.bpf.c.
        programs: their names.
        by_trampolines: it is not to be tried where these are not safe.
    """

    name: str
    programs: tuple[str, ...]
    by_trampolines: bool = False


_VALUES = {
    ".rodata.config": packets.config_of(packets.Selection(netns=_NO_NAMESPACE, data=MOST_DATA))
}
OBJECTS = (
    _Object("trace", tuple(packets.PROGRAMS)),
    _Object("programs", packets.FUNCTIONS, by_trampolines=True),
)
"""The layers of `trace`, the needed one first: a further one is a further row."""


def layers(_request: NodeRequest) -> Iterator[TraceLayer]:
    """Yield what this kernel takes of each object."""
    return map(_tried, OBJECTS)


def _tried(each: _Object) -> TraceLayer:
    try:
        if each.by_trampolines and not trampolines_are_safe():
            raise Unsupported(UNSAFE)
        with BpfObject(each.name, each.programs, _VALUES, _RING_BYTES) as found:
            lacking = tuple(Lacking(one.program, one.reason) for one in found.refused)
            return TraceLayer(each.name, found.attached, lacking)
    except KernelError as error:
        if each.by_trampolines:
            why = str(error) if error.errno == 0 else no_trampolines(error)
            return TraceLayer(each.name, (), (Lacking(LAYER, why),))
        reason = f"{error.message} ({error.hint})" if error.hint else error.message
        return TraceLayer(each.name, (), tuple(Lacking(name, reason) for name in each.programs))
