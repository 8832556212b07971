"""What is attached where, in the order in which the kernel runs it.

At a device a packet meets: XDP, tcx, then the filters of clsact (net/core/dev.c,
sch_handle_ingress and sch_handle_egress; net/sched/cls_api.c: lower preferences first); netkit's
own programs (drivers/net/netkit.c). Then sk_lookup of the namespace (net/core/filter.c) and the
socket hooks of cgroups. tcx, netkit, sk_lookup and cgroups answer to BPF_PROG_QUERY of bpf(2); XDP
and clsact to rtnetlink.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kubectl_ebpfnet.errors import Incomplete, KernelError, Unsupported
from kubectl_ebpfnet.model.kernel import Attachment
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.bpf import cgroups, links, syscall
from kubectl_ebpfnet.node.bpf.programs import ProgramReader
from kubectl_ebpfnet.node.bpf.tc_filters import Filters
from kubectl_ebpfnet.node.netlink.devices import NetDevice, devices

T = TypeVar("T")
_NETKIT = {"primary": syscall.NETKIT_PRIMARY, "peer": syscall.NETKIT_PEER}
_TCX = {"ingress": syscall.TCX_INGRESS, "egress": syscall.TCX_EGRESS}


def attachments(request: NodeRequest) -> Iterable[Attachment]:
    """The programs at all hooks of this network namespace and of its cgroups.

    Words behind the question's name are devices: then only theirs, beside sk_lookup and cgroups.
    A hook that this kernel does not have has no programs. What one part of the kernel refuses does
    not keep the others from answering.

    Raises:
        Incomplete: behind the facts, when some part could not be read; the first reason.
        KernelError: no part could be read; the first reason.
    """
    reader = _AttachmentReader(request)
    found = [*reader.at_devices(), *reader.sk_lookup(), *reader.at_cgroups()]
    if reader.problems and not reader.answered:
        raise reader.problems[0]
    yield from found
    if reader.problems:
        first = reader.problems[0]
        raise Incomplete(first.message, first.errno, hint=first.hint)


class _AttachmentReader:
    """One request's reading: what is needed more than once is read once, and only when needed."""

    def __init__(self, request: NodeRequest) -> None:
        self._names = set(request.argv[2:])
        self._pod = request.netns
        self._programs = ProgramReader()
        self._places: dict[links.Place, int] | None = None
        self._pins: dict[int, str] | None = None
        self._silent: set[int] = set()  # attach types that are unknown or refused
        self.answered = False  # whether anything could be read
        self.problems: list[KernelError] = []

    def _tried(self, read: Callable[[], T]) -> T | None:
        """What one part of the kernel says; None and a problem more where it refuses."""
        try:
            said = read()
        except KernelError as problem:
            if problem.errno != errno.ENODEV:  # the device has gone meanwhile
                self.problems.append(problem)
            return None
        self.answered = True
        return said

    def at_devices(self) -> Iterator[Attachment]:
        wanted = [
            one for one in self._tried(devices) or () if not self._names or one.name in self._names
        ]
        filters = self._tried(Filters)
        for one in wanted:
            yield from self._at_device(one, filters)

    def _at_device(self, device: NetDevice, filters: Filters | None) -> Iterator[Attachment]:
        for position, program in enumerate(device.xdp):
            link = self._link(links.xdp_place(device.index, program))
            yield self._attachment("xdp", device.name, program, link, position)
        yield from self._queried("tcx/ingress", device, _TCX["ingress"])
        yield from self._filters(device, "ingress", filters)
        if device.kind == "netkit":
            for end, attach_type in _NETKIT.items():
                yield from self._queried(f"netkit/{end}", device, attach_type)
        yield from self._queried("tcx/egress", device, _TCX["egress"])
        yield from self._filters(device, "egress", filters)

    def sk_lookup(self) -> Iterator[Attachment]:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with syscall.closing(fd):
            inode = os.fstat(fd).st_ino
            for position, (program, _) in enumerate(self._query(fd, syscall.SK_LOOKUP)):
                link = self._link((inode, syscall.SK_LOOKUP, program))
                yield self._attachment("sk_lookup", "", program, link, position)

    def at_cgroups(self) -> Iterator[Attachment]:
        for one in self._tried(lambda: list(cgroups.programs(self._pod))) or ():
            link = self._link((one.cgroup_id, one.attach_type, one.program))
            hook = cgroups.ATTACH_TYPES[one.attach_type]
            yield self._attachment(hook, "", one.program, link, one.position, cgroup=one.cgroup)

    def _queried(self, hook: str, device: NetDevice, attach_type: int) -> Iterator[Attachment]:
        for position, (program, link) in enumerate(self._query(device.index, attach_type)):
            yield self._attachment(hook, device.name, program, link, position)

    def _query(self, target: int, attach_type: int) -> list[tuple[int, int]]:
        """(program, link) in order; nothing where the hook is not there or has gone."""
        if attach_type in self._silent:
            return []
        try:
            found = syscall.query(target, attach_type)
        except Unsupported:
            self._silent.add(attach_type)
            return []
        except KernelError as error:
            # The device has gone; or it is netkit's peer, whose programs the primary device has.
            if error.errno not in (errno.ENODEV, errno.EACCES):
                self._silent.add(attach_type)
                self.problems.append(error)
            return []
        self.answered = True
        return found

    def _filters(
        self, device: NetDevice, direction: str, filters: Filters | None
    ) -> Iterator[Attachment]:
        if filters is None:
            return
        for one in self._tried(lambda: filters.of(device.index, direction)) or ():
            yield self._attachment(
                f"clsact/{direction}", device.name, one.program, 0, one.preference,
                direct_action=one.direct_action, name=one.name, tag=one.tag,
            )  # fmt: skip

    def _attachment(
        self, hook: str, device: str, program: int, link: int, priority: int,
        *, cgroup: str = "", direct_action: bool = True, name: str = "", tag: str = "",
    ) -> Attachment:  # fmt: skip
        """`name` and `tag` are what there is to say of a program that cannot be read."""
        loaded = None
        if program:
            with contextlib.suppress(KernelError):  # EPERM: its id alone is worth saying
                loaded = self._programs.program(program)
        return Attachment(
            hook=hook,
            device=device,
            program_name=loaded.name if loaded else name,
            program_id=program or None,
            tag=loaded.tag if loaded else tag,
            link_id=link or None,
            priority=priority,
            direct_action=direct_action,
            pin=self._pin(link),
            cgroup=cgroup,
        )

    def _link(self, place: links.Place) -> int:
        """Id of the link that holds a program, 0 when there is none or it cannot be told."""
        if self._places is None:
            try:
                self._places = links.places()
            except KernelError:
                self._places = {}
        return self._places.get(place, 0)

    def _pin(self, link: int) -> str:
        if not link:
            return ""
        if self._pins is None:
            try:
                self._pins = links.pinned()
            except KernelError:
                self._pins = {}
        return self._pins.get(link, "")
