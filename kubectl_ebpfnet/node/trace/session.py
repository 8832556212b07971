"""Watch this node's packets for a client: the program of `trace` on a node.

model/protocol/tracing.py has what comes in and what goes out. Nothing waits for the client: what it
does not take in time is counted (Losses.not_told), as is what is over the budget; the ring buffer
is read on meanwhile, so that the kernel loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from kubectl_ebpfnet.errors import EbpfnetError, KernelError
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.events import (
    Lacking,
    Layers,
    Losses,
    NamespaceOwner,
    SentPacket,
    TraceLine,
)
from kubectl_ebpfnet.model.protocol import codec
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, node_argv
from kubectl_ebpfnet.model.protocol.tracing import (
    GO,
    MOST_DATA,
    MOST_FILTERS,
    PacketFilter,
    TraceRequest,
)
from kubectl_ebpfnet.node.host import netns
from kubectl_ebpfnet.node.netlink.tables import addresses
from kubectl_ebpfnet.node.trace.owners import Owners
from kubectl_ebpfnet.node.trace.packets import (
    DROPS_ONLY,
    PROGRAMS,
    PacketTrace,
    Selection,
    bytes_of,
    is_drop,
    key_of,
)
from kubectl_ebpfnet.node.trace.programs import SecondLayer, attached_now
from kubectl_ebpfnet.node.trace.send import Sender

_KERNEL_BUDGET = 1_000_000
_RING_BYTES = 1 << 23
_WAIT_SECONDS = 0.02
_MOST_QUEUED = 1 << 20
"""Bytes of lines that wait for the client."""
_CHANGES_SECONDS = 1.0
_PARTING_SECONDS = 5.0
_LATE = 64
"""Newest events of which the bytes may still come: one a processor."""


def main(words: list[str]) -> int:
    """Trace as the first word, a TraceRequest as JSON, asks.

    Returns:
        The exit code: 0, 1 when nothing could be traced.
    """
    try:
        request: TraceRequest = codec.fact(words[0].encode(), TraceRequest, source="the request")
        _Session(request).run()
    except (EbpfnetError, IndexError) as error:
        hint = getattr(error, "hint", "")
        print(f"{error}{f' ({hint})' if hint else ''}", file=sys.stderr)
        return 1
    return 0


@dataclass(slots=True)
class _Budget:
    """Lines that may be told in the running second."""

    most: int
    second: int = -1
    used: int = 0

    def take(self, now: float) -> bool:
        if int(now) != self.second:
            self.second, self.used = int(now), 0
        self.used += 1
        return self.used <= self.most


class _Session:
    """One trace, from its request to its last line."""

    def __init__(self, request: TraceRequest) -> None:
        self._request = request
        self._owners = Owners(request.pods)
        self._named: set[NamespaceOwner] = set()
        self._out = bytearray()
        self._not_told = 0
        self._told = Losses()
        # Drops are what a trace is for: many other events do not push them out.
        self._budget = _Budget(request.events_per_second)
        self._drops = _Budget(request.events_per_second)
        self._sent: queue.SimpleQueue[SentPacket] = queue.SimpleQueue()
        self._words = b""
        self._end = ""
        self._programs: dict[tuple[str, str], tuple[int, ...]] | None = None
        self._looked = 0.0
        self._second: SecondLayer | None = None
        self._bytes: dict[tuple[int, int], bytes] = {}
        self._late: list[bytes] = []

    def run(self) -> None:
        """Trace until the client, the time or a signal ends it. Raises KernelError."""
        signal.signal(signal.SIGTERM, self._told_to_end)
        for fd in (0, 1):
            os.set_blocking(fd, False)
        sender = self._sender()
        with PacketTrace(self._selection()) as trace, ExitStack() as on_close:
            refused, places = trace.refused, trace.attached
            if not self._request.drops_only:
                self._second = second = SecondLayer(trace.shared())
                on_close.callback(second.close)
                self._watch_programs()
                refused = (*refused, *second.lacking)
                places = (*places, *second.attached)
            lacking = tuple(Lacking(each.program, each.reason) for each in refused)
            now = time.monotonic_ns(), time.time_ns()
            self._say(TraceLine(layers=Layers(places, lacking, *now)))
            until = time.monotonic() + self._request.seconds
            while not self._end:
                self._step(trace, sender)
                if time.monotonic() >= until:
                    self._end = f"its time of {self._request.seconds:g} s is over"
            if sender is not None:
                sender.stop()
            for _ in range(2):  # what came late, too
                self._read(trace, 0)
            self._losses(trace)
        for each in self._reports():
            self._say(TraceLine(sent=each))
        self._say(TraceLine(losses=self._told))
        self._say(TraceLine(end=self._end))
        until = time.monotonic() + _PARTING_SECONDS
        while self._out and (left := until - time.monotonic()) > 0:
            select.select([], [1], [], left)
            self._write()

    def _told_to_end(self, *_: object) -> None:
        self._end = "it was told to end"

    def _selection(self) -> Selection:
        asked = self._request
        inode = 0
        if asked.pod is not None:
            inode = os.stat(netns.of_pod(asked.pod)).st_ino
        elif asked.pid:
            inode = _of_process(asked.pid)
        elif asked.node_namespace:
            inode = self._owners.node
        if not inode and not asked.filters:
            raise KernelError("a trace wants filters, or a network namespace", 0)
        return Selection(
            filters=_with_sources(asked),
            netns=inode,
            programs=DROPS_ONLY if asked.drops_only else tuple(PROGRAMS),
            events_per_second=_KERNEL_BUDGET,
            data=min(asked.data, MOST_DATA),
            ring_bytes=_RING_BYTES,
            vxlan_ports=asked.vxlan_ports,
            geneve_ports=asked.geneve_ports,
        )

    def _sender(self) -> Sender | None:
        asked = self._request
        if asked.send is None:
            return None
        path = None
        if asked.sender is not None:
            path = netns.of_pod(asked.sender)
        elif asked.sender_pid:
            path = f"/proc/{asked.sender_pid}/ns/net"
        return Sender(asked.send, path, self._sent.put)

    # --- what is seen -----------------------------------------------------------------------------

    def _step(self, trace: PacketTrace, sender: Sender | None) -> None:
        self._read(trace, _WAIT_SECONDS)
        for each in self._reports():
            self._say(TraceLine(sent=each))
        self._listen(sender)
        if time.monotonic() >= self._looked + _CHANGES_SECONDS:
            self._looked = time.monotonic()
            self._watch_programs()
            if self._losses(trace):
                self._say(TraceLine(losses=self._told))
        self._write()

    def _read(self, trace: PacketTrace, seconds: float) -> None:
        now = time.monotonic()
        for record in self._with_bytes(trace.records(seconds)):
            budget = self._drops if is_drop(record) else self._budget
            if len(self._out) >= _MOST_QUEUED or not budget.take(now):
                self._not_told += 1
                continue
            packet = trace.event_of(record)
            if self._second is not None:
                packet = self._second.named(packet)
            if data := self._bytes.pop(key_of(record), b""):
                packet = replace(packet, data=data.hex())
            if self._owners.is_neighbours(packet.netns):
                continue
            if packet.netns and (owner := self._owners.of(packet.netns)) not in self._named:
                self._named.add(owner)  # once without a process, and again when one is found
                self._say(TraceLine(namespace=owner))
            self._say(TraceLine(packet=packet))

    def _with_bytes(self, records: list[bytes]) -> list[bytes]:
        """Keep the bytes of packets aside; return the events whose bytes are here, or will not
        come: an event may be read before the record behind it."""
        if not self._request.data:
            return records
        found = {key_of(each): data for each in records if (data := bytes_of(each)) is not None}
        late = set(map(key_of, self._late))
        self._bytes = {key: data for key, data in self._bytes.items() if key in late} | found
        events = [each for each in records if bytes_of(each) is None]
        newest = {id(each) for each in events[-_LATE:] if key_of(each) not in self._bytes}
        ready = [*self._late, *(each for each in events if id(each) not in newest)]
        self._late = [each for each in events if id(each) in newest]
        return ready

    def _losses(self, trace: PacketTrace) -> bool:
        """Count what is missing; tell whether it is more than was told."""
        kernel = trace.losses()
        now = Losses(kernel.over_budget, kernel.ring_full, self._not_told)
        more, self._told = now != self._told, now
        return more

    def _reports(self) -> Iterator[SentPacket]:
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._sent.get_nowait()

    def _watch_programs(self) -> None:
        """Say when the programs of the node's devices are others than before."""
        try:
            attached = attached_now()
        except KernelError:
            return  # cannot be read here: path says so
        found = _by_hook(attached)
        before, self._programs = self._programs, found
        unseen = self._second.watch(attached) if self._second is not None else []
        if before is None:
            if self._second is not None:
                self._second.lacking += unseen
            return
        for each in unseen:
            self._say(TraceLine(changed=f"{each.program} are not seen ({each.reason})"))
        for hook, device in sorted(before.keys() | found.keys()):
            was, now = before.get((hook, device), ()), found.get((hook, device), ())
            if was != now:
                what = "was replaced" if was and now else "was attached" if now else "was detached"
                self._say(TraceLine(changed=f"a BPF program at {device} ({hook}) {what}"))

    # --- the client -------------------------------------------------------------------------------

    def _listen(self, sender: Sender | None) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(0, 4096)
            if not data:
                self._end = self._end or "the client ended it"
            self._words = (self._words + data)[-4096:]
        *lines, self._words = self._words.split(b"\n")
        if sender is not None and GO.encode() in lines:
            sender.start()

    def _say(self, line: TraceLine) -> None:
        self._out += codec.line_of(line)

    def _write(self) -> None:
        try:
            while self._out:
                del self._out[: os.write(1, self._out[:65536])]
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            self._out.clear()
            self._end = self._end or "the client is gone"


def _with_sources(asked: TraceRequest) -> tuple[PacketFilter, ...]:
    """Return the filters; those without a source with each address of the sender's namespace.

    Raises:
        KernelError: the process is gone, or it has no address, or more than there is room for.
    """
    if not asked.sender_pid:
        return asked.filters
    _of_process(asked.sender_pid)  # that it is there
    with netns.inside(f"/proc/{asked.sender_pid}/ns/net"):
        own = [each.address for each in addresses(NodeRequest(0, node_argv("addresses")))]
    filters = tuple(
        each if each.source is not None or each.destination is None else replace(each, source=own_)
        for each in asked.filters
        for own_ in own
        if each.destination is None or own_.version == each.destination.version
    )
    filters = tuple(dict.fromkeys(filters))
    if not filters or len(filters) > MOST_FILTERS:
        has = f"{len(filters)} addresses" if filters else "no address of this IP version"
        raise KernelError(f"process {asked.sender_pid}: its network namespace has {has}")
    return filters


def _of_process(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError as error:
        raise KernelError(f"process {pid}: {error.strerror}", error.errno or 0) from None


def _by_hook(found: Iterable[Attachment]) -> dict[tuple[str, str], tuple[int, ...]]:
    by_hook: dict[tuple[str, str], tuple[int, ...]] = {}
    for each in found:
        if each.device and each.program_id:
            key = (each.hook, each.device)
            by_hook[key] = (*by_hook.get(key, ()), each.program_id)
    return by_hook
