"""Attach programs before all others of a device: by a tcx link, before Linux 6.6 by a filter.

A tcx program runs before every tc filter, and a link with BPF_F_BEFORE before every other tcx
program; it ends with its descriptor. clsact.py tells how a filter ends.

Source: kernel/bpf/tcx.c.
"""

from __future__ import annotations

import os

from kubectl_ebpfnet.errors import KernelError, Unsupported
from kubectl_ebpfnet.node.bpf import syscall
from kubectl_ebpfnet.node.bpf.load import link_tcx_first
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netkat.redirect.clsact import Filter
from kubectl_ebpfnet.node.netlink.rtnetlink import change


class IngressPrograms:
    """Programs at the ingress of devices, until `detach` or this process's end.

    EBPFNET_NO_TCX forbids tcx links, so that tests can try clsact on new kernels.

    Attributes:
        method: `tcx` or `clsact`.
    """

    def __init__(self) -> None:
        self._links: list[int] = []
        self._filters: list[Filter] = []
        self.method = "tcx"

    def attach_to_device(self, program: int, ifindex: int) -> None:
        """Attach a program before all others of a device; it runs on return.

        Raises:
            KernelError: the kernel refuses.
        """
        if not os.environ.get("EBPFNET_NO_TCX"):
            try:
                self._links.append(link_tcx_first(program, ifindex, syscall.TCX_INGRESS))
                return
            except Unsupported:
                pass
        self.method = "clsact"
        tc_filter = Filter(program, ifindex)
        self._filters.append(tc_filter)
        tc_filter.watch()

    def attach_to_veth(self, program: int, ifindex: int) -> None:
        """Attach a program to netkat's own veth, whose end detaches it.

        By a filter where the kernel has filters: a tcx link waits for an RCU grace period (15 ms).
        """
        try:
            change([changes.clsact(ifindex), changes.bpf_filter(ifindex, 1, 1, program, "netkat")])
        except KernelError:
            self._links.append(link_tcx_first(program, ifindex, syscall.TCX_INGRESS))

    def detach(self) -> None:
        """Detach the programs. A program that is gone already is no error."""
        while self._links:
            os.close(self._links.pop())
        while self._filters:
            self._filters.pop().remove()
