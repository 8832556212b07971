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
import threading
from collections.abc import Callable

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node import bpf, netns
from kubectl_ebpfnet.node.bpf_attach import link_tcx_first, load_classifier
from kubectl_ebpfnet.node.kat import changes
from kubectl_ebpfnet.node.kat.assembler import Assembly
from kubectl_ebpfnet.node.nlmsg import DUMP, NETLINK_ROUTE, answers, attributes_of, change, text

_GETTFILTER, _OPTIONS, _BPF_NAME = 46, 2, 7  # RTM_GETTFILTER, TCA_OPTIONS, TCA_BPF_NAME
_LOOPBACK, _NEXT = 1, -1  # its ifindex in every namespace; TCX_NEXT
_PRIORITY = 1
_NAME = "netkat:"


_keys: list[int] = []  # descriptors that `hold_keys` keeps


def hold_keys() -> None:
    """Have programs that are attached from now on run at once, until this process's end.

    To attach a tcx program the kernel puts it in its place, waits for a grace period of RCU (5 to
    20 ms), and then only turns on, for the whole machine, that devices are looked at for programs
    at all (kernel/bpf/tcx.c: tcx_entry_update, tcx_entry_sync, tcx_skeys_inc). Where that is on
    already, the new program runs during the wait. So one that does nothing is attached here to the
    loopback device of a network namespace without a name, which no packet ever passes.

    Raises:
        KernelError: no rights, or no tcx in this kernel; `Attached.begin` waits then.
    """
    nothing = Assembly()
    nothing.give(_NEXT)
    program, empty = load_classifier(nothing.program(), "netkat_nothing"), netns.empty()
    try:
        with netns.inside(f"/proc/self/fd/{empty}"):
            _keys.append(link_tcx_first(program, _LOOPBACK, bpf.TCX_INGRESS))
        _keys.append(empty)
    except KernelError:
        os.close(empty)
        raise
    finally:
        os.close(program)


class Attached:
    """Programs at the ingress of devices; `detach` takes them away, and so does our end."""

    def __init__(self, *, tcx: bool = True) -> None:
        """`tcx` False: as on a kernel that has none."""
        self._links: list[int] = []
        self._filters: list[Callable[[], None]] = []
        self._tcx = tcx
        self._attaching: _Attaching | None = None
        self.soon = tcx and bool(_keys)
        self.how = "tcx"

    def begin(self, program: int, ifindex: int) -> None:
        """Begin to attach a program before all others: `finish` waits for it.

        The kernel's lock of rtnetlink is held all the time that this takes. With `soon` the program
        runs within a millisecond, long before `finish`, unless that lock has to be waited for.
        """
        self._attaching = _Attaching(program, ifindex, tcx=self._tcx)
        self._attaching.start()

    def finish(self) -> None:
        """Wait until the program is attached; nothing when that has been waited for already.

        Raises:
            KernelError: the kernel refuses.
        """
        if self._attaching is None:
            return
        attaching, self._attaching = self._attaching, None
        attaching.join()
        if attaching.problem is not None:
            raise attaching.problem
        if attaching.link >= 0:
            self._links.append(attaching.link)
            return
        self.how = "clsact"
        take_away = _filter(attaching.program, attaching.ifindex)
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
        if self._attaching is not None:
            self._attaching.join()
            if self._attaching.link >= 0:
                self._links.append(self._attaching.link)
        while self._links:
            os.close(self._links.pop())
        while self._filters:
            self._filters.pop()()


class _Attaching(threading.Thread):
    """Attach by a link, where there are links.

    Attributes:
        link: its descriptor when the thread has ended; -1 where this kernel has no tcx.
        problem: why the kernel refused.
    """

    def __init__(self, program: int, ifindex: int, *, tcx: bool) -> None:
        super().__init__(daemon=True)
        self.program = program
        self.ifindex = ifindex
        self._tcx = tcx
        self.link = -1
        self.problem: KernelError | None = None

    def run(self) -> None:
        """In the thread."""
        if not self._tcx:
            return
        try:
            self.link = link_tcx_first(self.program, self.ifindex, bpf.TCX_INGRESS)
        except Unsupported:
            return
        except KernelError as error:
            self.problem = error


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
