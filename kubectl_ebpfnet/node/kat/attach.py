"""Before all other programs of a device: by a tcx link, or by a clsact filter before Linux 6.6.

A tcx program runs before every tc filter, and a link with BPF_F_BEFORE before every other tcx
program; it ends with its descriptor. A filter stays until it is removed, so a child waits for this
process's end and removes it: that one filter, and the qdisc only when it was put there by us and
nobody else's filter is on it.

Sources: kernel/bpf/tcx.c, net/sched/cls_bpf.c (a new filter of a priority comes before the older
ones of the same priority: list_add_rcu), tc-bpf(8).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
from collections.abc import Callable

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node import bpf
from kubectl_ebpfnet.node.bpf_attach import link_tcx_first
from kubectl_ebpfnet.node.kat import changes
from kubectl_ebpfnet.node.nlmsg import DUMP, NETLINK_ROUTE, answers, attributes_of, change, text

_GETTFILTER, _OPTIONS, _BPF_NAME = 46, 2, 7  # RTM_GETTFILTER, TCA_OPTIONS, TCA_BPF_NAME
_PRIORITY = 1
_NAME = "netkat:"


class Attached:
    """Programs at the ingress of devices; `detach` takes them away, and so does our end."""

    def __init__(self, *, tcx: bool = True) -> None:
        """`tcx` False: as on a kernel that has none."""
        self._links: list[int] = []
        self._filters: list[Callable[[], None]] = []
        self._tcx = tcx
        self.how = "tcx"

    def first(self, program: int, ifindex: int) -> None:
        """Attach a program before all others.

        To be called before sockets are made: a process's end closes the newest descriptors first
        (task_work_run), and what sockets send when they are closed must still get out.

        Raises:
            KernelError: the kernel refuses.
        """
        if self._tcx:
            try:
                self._links.append(link_tcx_first(program, ifindex, bpf.TCX_INGRESS))
                return
            except Unsupported:
                self._tcx = False
        self.how = "clsact"
        take_away = _filter(program, ifindex)
        self._filters.append(take_away)
        _at_our_end(take_away)

    def to_own(self, program: int, ifindex: int) -> None:
        """Attach a program to a device of ours, which takes it along at its end.

        By a filter where there are filters: a tcx link waits for an RCU grace period (15 ms).
        """
        try:
            _filter(program, ifindex)
        except KernelError:
            self._links.append(link_tcx_first(program, ifindex, bpf.TCX_INGRESS))

    def detach(self) -> None:
        """Take the programs away. What has gone already is no error."""
        while self._links:
            os.close(self._links.pop())
        while self._filters:
            self._filters.pop()()


def _filter(program: int, ifindex: int) -> Callable[[], None]:
    """A filter at the head of the chain; gives what takes it away."""
    ours = _clsact(ifindex)
    # By its handle the filter is found again. Numbers at random, since several netkats may be in
    # one process, and processes of several PID namespaces at one device.
    handle = random.SystemRandom().randrange(1 << 16, 1 << 31)

    def take_away(added: bool = True) -> None:
        if added:
            with contextlib.suppress(KernelError):
                change([changes.no_filter(ifindex, handle, _PRIORITY)])
        with contextlib.suppress(KernelError):
            if ours and not _names(ifindex):
                change([changes.clsact(ifindex, take_away=True)])

    name = f"{_NAME}{os.getpid()}"
    try:
        change([changes.bpf_filter(ifindex, handle, _PRIORITY, program, name)])
    except KernelError as error:
        take_away(added=False)
        raise KernelError(
            error.message, error.errno,
            hint=f"its priority {_PRIORITY} may be a filter's of another kind or protocol",
        ) from None  # fmt: skip
    return take_away


def _clsact(ifindex: int) -> bool:
    """Have the qdisc on a device. True: it is there for netkats alone, the last one removes it."""
    try:
        change([changes.clsact(ifindex)])
        return True
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
    found = _names(ifindex)
    # One with nothing on it is somebody's too: they may be about to use it.
    return bool(found) and all(name.startswith(_NAME) for name in found)


def _names(ifindex: int) -> list[str]:
    """What the filters of a device are called, "" for those without a name."""
    found = []
    for parent in (changes.INGRESS, changes.EGRESS):
        body = changes.TC.pack(0, ifindex, 0, parent, 0)
        rows = answers(NETLINK_ROUTE, _GETTFILTER, DUMP, body, f"list filters of device {ifindex}")
        for data, start, end in rows:
            options = attributes_of(data[start:end], changes.TC.size).get(_OPTIONS)
            if options is not None:  # a row without them stands for the priority itself
                found.append(text(attributes_of(options), _BPF_NAME))
    return found


def _at_our_end(take_away: Callable[[], None]) -> None:
    """Have it done when this process is gone, whatever ends it."""
    reading, _ = os.pipe()  # close-on-exec: only we and forks of us have the writing end
    if os.fork():
        os.close(reading)
        return
    try:
        os.setsid()  # a signal to the terminal's group is for the others
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for fd in range(3):
            os.close(fd)
        os.closerange(3, reading)
        os.closerange(reading + 1, 1 << 16)
        os.read(reading, 1)
        take_away()
    finally:
        os._exit(0)
