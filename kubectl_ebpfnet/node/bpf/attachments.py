"""Attached programs, in the order in which the kernel runs them.

At a device a packet passes XDP, tcx, then the filters of clsact (net/core/dev.c,
sch_handle_ingress and sch_handle_egress; net/sched/cls_api.c: lower preferences first); netkit's
own programs (drivers/net/netkit.c). Then sk_lookup of the namespace (net/core/filter.c) and the
socket hooks of cgroups. tcx, netkit, sk_lookup and cgroups are read by BPF_PROG_QUERY of bpf(2),
XDP and clsact by rtnetlink.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kubectl_ebpfnet.errors import Incomplete, KernelError, Unsupported
from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.node.bpf import cgroups, links, syscall
from kubectl_ebpfnet.node.bpf.programs import ProgramReader
from kubectl_ebpfnet.node.bpf.tc_filters import Filters
from kubectl_ebpfnet.node.netlink.links import NetDevice, devices

T = TypeVar("T")
_NETKIT = {"primary": syscall.NETKIT_PRIMARY, "peer": syscall.NETKIT_PEER}
_TCX = {"ingress": syscall.TCX_INGRESS, "egress": syscall.TCX_EGRESS}


def attachments(request: NodeRequest) -> Iterable[Attachment]:
    """Yield the programs at all hooks of this network namespace and of its cgroups.

    Words after the question's name are devices, and limit the answer to them, beside sk_lookup and
    cgroups. A hook that this kernel lacks has no programs. A refusal of one part of the kernel does
    not affect the others.

    Raises:
        Incomplete: after the facts, if some part could not be read; the first reason.
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


def _name(loaded: str, of_filter: str) -> str:
    by_section = ":[" in of_filter and "[*" not in of_filter and not loaded.startswith("cil_")
    return of_filter if by_section or not loaded else loaded


class _AttachmentReader:
    """Reads for one request; shared facts are read once, on demand."""

    def __init__(self, request: NodeRequest) -> None:
        self._names = set(request.argv[2:])
        self._pod = request.netns
        self._programs = ProgramReader()
        self._link_ids: dict[links.Place, int] | None = None
        self._pins: dict[int, str] | None = None
        self._unsupported: set[int] = set()  # attach types that are unknown or refused
        self.answered = False  # whether anything could be read
        self.problems: list[KernelError] = []

    def _read_part(self, read: Callable[[], T]) -> T | None:
        """Read one part of the kernel; on a refusal keep the problem and return None."""
        try:
            facts = read()
        except KernelError as problem:
            if problem.errno != errno.ENODEV:  # the device has gone meanwhile
                self.problems.append(problem)
            return None
        self.answered = True
        return facts

    def at_devices(self) -> Iterator[Attachment]:
        chosen = [
            item
            for item in self._read_part(devices) or ()
            if not self._names or item.name in self._names
        ]
        filters = self._read_part(Filters)
        for item in chosen:
            yield from self._at_device(item, filters)

    def _at_device(self, device: NetDevice, filters: Filters | None) -> Iterator[Attachment]:
        for position, program in enumerate(device.xdp):
            link = self._link(links.xdp_place(device.index, program))
            yield self._attachment("xdp", device.name, program, link, position)
        yield from self._at_hook("tcx/ingress", device, _TCX["ingress"])
        yield from self._filters(device, "ingress", filters)
        if device.kind == "netkit":
            for end, attach_type in _NETKIT.items():
                yield from self._at_hook(f"netkit/{end}", device, attach_type)
        yield from self._at_hook("tcx/egress", device, _TCX["egress"])
        yield from self._filters(device, "egress", filters)

    def sk_lookup(self) -> Iterator[Attachment]:
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with syscall.closing(fd):
            inode = os.fstat(fd).st_ino
            for position, (program, _) in enumerate(self._query_hook(fd, syscall.SK_LOOKUP)):
                link = self._link((inode, syscall.SK_LOOKUP, program))
                yield self._attachment("sk_lookup", "", program, link, position)

    def at_cgroups(self) -> Iterator[Attachment]:
        for item in self._read_part(lambda: list(cgroups.programs(self._pod))) or ():
            link = self._link((item.cgroup_id, item.attach_type, item.program))
            hook = cgroups.ATTACH_TYPES[item.attach_type]
            yield self._attachment(hook, "", item.program, link, item.position, cgroup=item.cgroup)

    def _at_hook(self, hook: str, device: NetDevice, attach_type: int) -> Iterator[Attachment]:
        for position, (program, link) in enumerate(self._query_hook(device.index, attach_type)):
            yield self._attachment(hook, device.name, program, link, position)

    def _query_hook(self, target: int, attach_type: int) -> list[tuple[int, int]]:
        """Return (program, link) in order; [] for a missing hook."""
        if attach_type in self._unsupported:
            return []
        try:
            found = syscall.query(target, attach_type)
        except Unsupported:
            self._unsupported.add(attach_type)
            return []
        except KernelError as error:
            # The device is gone, or it is a netkit peer, whose programs the primary device has.
            if error.errno not in (errno.ENODEV, errno.EACCES):
                self._unsupported.add(attach_type)
                self.problems.append(error)
            return []
        self.answered = True
        return found

    def _filters(
        self, device: NetDevice, direction: str, filters: Filters | None
    ) -> Iterator[Attachment]:
        if filters is None:
            return
        for item in self._read_part(lambda: filters.of(device.index, direction)) or ():
            yield self._attachment(
                f"clsact/{direction}", device.name, item.program, 0, item.preference,
                direct_action=item.direct_action, name=item.name, tag=item.tag,
                classifier="" if item.kind == "bpf" else item.kind, protocol=item.protocol,
            )  # fmt: skip

    def _attachment(
        self, hook: str, device: str, program: int, link: int, priority: int,
        *, cgroup: str = "", direct_action: bool = True, name: str = "", tag: str = "",
        classifier: str = "", protocol: str = "",
    ) -> Attachment:  # fmt: skip
        """Return an attachment.

        `name` is its filter's, `tag` for a program that cannot be read. A filter that tc loaded has
        the section as its name (`bpf_lxc.o:[from-container]`), which tells more than the kernel's
        name: Cilium 1.9 has none there, 1.11 the same one (handle_xgress) for two sections.
        """
        loaded = None
        if program:
            with contextlib.suppress(KernelError):  # EPERM: report its id alone
                loaded = self._programs.program(program)
        return Attachment(
            hook=hook,
            device=device,
            program_name=_name(loaded.name if loaded else "", name),
            program_id=program or None,
            tag=loaded.tag if loaded else tag,
            link_id=link or None,
            priority=priority,
            direct_action=direct_action,
            pin=self._pin(link),
            cgroup=cgroup,
            classifier=classifier,
            protocol=protocol,
            run_count=loaded.run_count if loaded else None,
        )

    def _link(self, place: links.Place) -> int:
        """Return the id of the link that attaches a program, 0 for none or an unknown one."""
        if self._link_ids is None:
            try:
                self._link_ids = links.places()
            except KernelError:
                self._link_ids = {}
        return self._link_ids.get(place, 0)

    def _pin(self, link: int) -> str:
        if not link:
            return ""
        if self._pins is None:
            try:
                self._pins = links.pinned()
            except KernelError:
                self._pins = {}
        return self._pins.get(link, "")
