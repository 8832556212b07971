"""Before all other programs of a device: by a tcx link, or by a clsact filter before Linux 6.6.

A tcx program runs before every tc filter, and a link with BPF_F_BEFORE before every other tcx
program; it ends with its descriptor. How a filter ends is in clsact.py.

Source: kernel/bpf/tcx.c.
"""

from __future__ import annotations

import os
import threading

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node import bpf, netns
from kubectl_ebpfnet.node.bpf_attach import link_tcx_first, load_classifier
from kubectl_ebpfnet.node.kat import changes
from kubectl_ebpfnet.node.kat.assembler import Assembly
from kubectl_ebpfnet.node.kat.clsact import Filter
from kubectl_ebpfnet.node.nlmsg import change

_SOON_SECONDS = 0.002
_LOOPBACK, _NEXT = 1, -1  # its ifindex in every namespace; TCX_NEXT

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
        Unsupported: no tcx is wanted (EBPFNET_NO_TCX).
    """
    if os.environ.get("EBPFNET_NO_TCX"):
        raise Unsupported("no tcx is wanted")
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
        self._filters: list[Filter] = []
        self._tcx = tcx
        self._attaching: _Attaching | None = None
        self.soon = tcx and bool(_keys)
        self.how = "tcx"

    def begin(self, program: int, ifindex: int) -> None:
        """Begin to attach a program before all others: `finish` waits for it.

        The kernel's lock of rtnetlink is held all the time that this takes. With `soon` the program
        runs when this returns, long before `finish`, unless that lock has to be waited for.
        """
        self._attaching = _Attaching(program, ifindex, tcx=self._tcx)
        self._attaching.start()
        if self.soon:  # the thread is to be in the kernel by then
            self._attaching.join(_SOON_SECONDS)

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
        one = Filter(attaching.program, attaching.ifindex)
        self._filters.append(one)
        one.watch()

    def to_own(self, program: int, ifindex: int) -> None:
        """Attach a program to a device of ours, which takes it along at its end.

        By a filter where there are filters: a tcx link waits for an RCU grace period (15 ms).
        """
        try:
            change([changes.clsact(ifindex), changes.bpf_filter(ifindex, 1, 1, program, "netkat")])
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
            self._filters.pop().remove()


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
