"""What the second layer of a trace sees: checks that run in virtual machines, since the kernel of
the machine that runs the tests may refuse BPF trampolines. tests/kernels/test_second_layer.py has
what has to come of each.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from kubectl_ebpfnet.errors import Unsupported
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.events import (
    Layers,
    Losses,
    NamespaceOwner,
    PacketEvent,
    Place,
    TraceLine,
)
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.bpf.load import link_tcx_first
from kubectl_ebpfnet.node.bpf.programs import ProgramReader
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.trace.packets import PacketTrace, Selection
from kubectl_ebpfnet.node.trace.programs import SecondLayer, attached_now
from tests.node.trace import lan
from tests.node.trace.checks import OBJECT, _clsact, _one


@contextmanager
def setting() -> Iterator[None]:
    """The nodes that all checks share."""
    with lan.lan():
        lan.ask(4), lan.ask(6)  # neighbours are known from here on
        yield


def _attached(node: str) -> list[Attachment]:
    with netns.inside(lan.path(node)):
        return attached_now()


def _seen(node: str, traffic: Callable[[], object], version: int = 4) -> Any:
    """What is seen of traffic with the programs of a node watched."""
    with ExitStack() as on_close:
        trace = on_close.enter_context(PacketTrace(Selection((lan.to_server(version),))))
        second = SecondLayer(trace.shared())
        on_close.callback(second.close)
        refused = second.watch(_attached(node))
        events = [second.named(each) for each in lan.traced(trace, traffic)]
    verdicts: Counter[str] = Counter()
    for each in events:
        if each.place is Place.PROGRAM:
            name = each.program.partition(" ")[0]
            where = f"{lan.owner(each.netns)} {each.device} {each.where}"
            verdicts[f"{each.direction} {where} {name} {each.verdict} by {each.matched_by}"] += 1
    calls = [f"{each.direction} {lan.owner(each.netns)} {each.where}" for each in events
             if each.place is Place.KERNEL]  # fmt: skip
    drops = [f"{each.direction} {lan.owner(each.netns)} {each.reason}" for each in events
             if each.place is Place.DROP]  # fmt: skip
    lacking = [f"{each.program}: {each.reason}" for each in (*second.lacking, *refused)]
    return {
        "lacking": lacking, "verdicts": verdicts, "calls": calls, "drops": drops,
        "lines": [codec.line_of(line).decode() for line in _lines(trace, second, events)],
    }  # fmt: skip


def _lines(
    trace: PacketTrace, second: SecondLayer, events: Sequence[PacketEvent]
) -> Iterator[TraceLine]:
    """The same as a session tells it, for tests/explain/trace/data."""
    yield TraceLine(layers=Layers((*trace.attached, *second.attached)))
    for node in lan.NODES:
        inode = os.stat(lan.path(node)).st_ino
        yield TraceLine(namespace=NamespaceOwner(inode, node == "router", pid=1, command=node))
    yield from (TraceLine(packet=event) for event in events)
    yield TraceLine(losses=Losses())


def check_functions() -> Any:
    """Without any program: what routing decides."""
    return _seen("router", lan.ask)


def check_functions_ipv6() -> Any:
    """The same by IPv6."""
    return _seen("router", lambda: lan.ask(6), 6)


def check_nat() -> Any:
    """tc programs that translate and let pass."""
    with _clsact("s0", "egress snat", "ingress undo"):
        return _seen("router", lan.ask)


def check_shot() -> Any:
    """A tc program that drops."""
    with _clsact("c0", "ingress shot"):
        return _seen("router", _one)


def check_tail_call() -> Any:
    """One that drops by a tail call: the entry's end has the answer."""
    with _clsact("c0", "ingress caller"), _clsact("s0", "egress shot"):
        ids = {each.device: each.program_id for each in _attached("router")}
        caller = ProgramReader().program(ids["c0"] or 0)
        assert caller is not None
        with (
            syscall.closing(syscall.open_program(ids["s0"] or 0)) as shot,
            syscall.closing(_open_map(caller.map_ids[0])) as calls,
        ):
            _set_first(calls, shot)
            return _seen("router", _one)


def _open_map(id: int) -> int:
    return syscall.syscall(14, struct.pack("=III", id, 0, 0), "open a map")  # BPF_MAP_GET_FD_BY_ID


def _set_first(map_fd: int, value: int) -> None:
    key, at = syscall.buffer(4), syscall.buffer(value.to_bytes(4, "little"))
    attr = struct.pack("=IIQQQ", map_fd, 0, syscall.pointer(key), syscall.pointer(at), 0)
    syscall.syscall(2, attr, "fill the map of tail calls")  # BPF_MAP_UPDATE_ELEM


def check_egress() -> Any:
    """One at egress, where the packet was seen before."""
    with _clsact("s0", "egress shot"):
        return _seen("router", _one)


def check_tcx() -> Any:
    """The same program by tcx, where the kernel has it."""
    index = json.loads(lan.run("router", "ip -j link show c0"))[0]["ifindex"]
    with _clsact("s0", "egress shot"):
        (program,) = (each.program_id for each in _attached("router") if each.program_id)
        with syscall.closing(syscall.open_program(program)) as fd:
            try:
                with netns.inside(lan.path("router")):
                    link = link_tcx_first(fd, index, syscall.TCX_INGRESS)
            except Unsupported as error:
                return {"unsupported": str(error)}
    with syscall.closing(link):
        return _seen("router", _one)


def check_xdp_generic() -> Any:
    """Generic XDP that drops: the kernel tells a drop, too."""
    return _xdp("xdpgeneric")


def check_xdp_driver() -> Any:
    """XDP of a driver (veth's) that drops."""
    return _xdp("xdpdrv")


def _xdp(mode: str) -> Any:
    lan.run_apart("server", f"ip link set dev eth0 {mode} obj {OBJECT} sec xdp")
    try:
        return _seen("server", _one)
    finally:
        lan.run("server", f"ip link set dev eth0 {mode} off")


def check_replaced() -> Any:
    """A program that takes another one's place is watched instead."""
    with PacketTrace(Selection((lan.to_server(),))) as trace:
        second = SecondLayer(trace.shared())
        told = []
        try:
            for section in ("undo", "shot"):
                with _clsact("c0", f"ingress {section}"):
                    second.watch(_attached("router"))
                    events = [second.named(each) for each in lan.traced(trace, _one)]
                told += [f"{each.program.partition(' ')[0]} {each.verdict}" for each in events
                         if each.place is Place.PROGRAM]  # fmt: skip
            second.watch(_attached("router"))
            return {"told": told, "left": _fexits()}
        finally:
            second.close()


def _fexits() -> int:
    """Links of fexit of this process."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError), open(f"/proc/self/fdinfo/{fd}") as file:
            text = file.read()
            count += "link_type:\ttracing" in text and "target_obj_id:" in text
    return count
