"""Before all other programs of a device: by a tcx link, or by a clsact filter before Linux 6.6.

A tcx program runs before every tc filter, and a link with BPF_F_BEFORE before every other tcx
program; it ends with its descriptor. How a filter ends is in clsact.py.

Source: kernel/bpf/tcx.c.
"""

from __future__ import annotations

import os

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.bpf.load import link_tcx_first
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netkat.redirect.clsact import Filter
from kubectl_ebpfnet.node.netlink.message import change


class IngressPrograms:
    """Programs at the ingress of devices; `detach` takes them away, and so does our end."""

    def __init__(self, *, tcx: bool = True) -> None:
        """`tcx` False: as on a kernel that has none."""
        self._links: list[int] = []
        self._filters: list[Filter] = []
        self._tcx = tcx
        self.how = "tcx"

    def to_device(self, program: int, ifindex: int) -> None:
        """Attach a program before all others of a device; it runs when this returns.

        Raises:
            KernelError: the kernel refuses.
        """
        if self._tcx:
            try:
                self._links.append(link_tcx_first(program, ifindex, syscall.TCX_INGRESS))
                return
            except Unsupported:
                pass
        self.how = "clsact"
        one = Filter(program, ifindex)
        self._filters.append(one)
        one.watch()

    def to_own(self, program: int, ifindex: int) -> None:
        """Attach a program to a device of ours, which takes it along at its end.

        By a filter where there are filters: a tcx link waits for an RCU grace period (15 ms).
        """
        try:
            change([changes.clsact(ifindex), changes.bpf_filter(ifindex, 1, 1, program, "netkat")])
        except KernelError:
            self._links.append(link_tcx_first(program, ifindex, syscall.TCX_INGRESS))

    def detach(self) -> None:
        """Take the programs away. What has gone already is no error."""
        while self._links:
            os.close(self._links.pop())
        while self._filters:
            self._filters.pop().remove()
