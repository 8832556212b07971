"""A clsact filter before all others of a device's ingress, for kernels without tcx (Linux 6.6).

    device, ingress ─▶ filter "netkat:PID:START:PIDNS" ─▶ gate ─▶ array of one ─▶ the program

A filter stays until a process removes it, so there are three safeguards:

* A child waits for the end of this process, and removes the filter.
* The filter's own program is a gate: a tail call into an array, which the kernel empties when its
  last descriptor is closed. Only this process has one. If the child is killed together with it (a
  pod that is deleted with its whole cgroup), the gate passes all packets from then on.
* The filter's name tells its netkat. The next netkat removes filters of netkats that are gone.

The qdisc is removed with the last filter, if a netkat added it.

Sources: net/sched/cls_bpf.c (a new filter of a priority comes before the older ones of the same
priority: list_add_rcu; CLS_BPF_NAME_LEN is 256), kernel/bpf/arraymap.c (prog_array_map_clear, by
map_release_uref), bpf-helpers(7) bpf_tail_call (goes on behind it when the entry is empty),
tc-bpf(8), proc_pid_stat(5), pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyroute2.netlink.rtnl import RTM_GETQDISC, RTM_GETTFILTER

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.bpf.load import create_program_array, load_classifier
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netlink.rtnetlink import Change, change, dump, text

_WATCH = "kubectl_ebpfnet.node.netkat.redirect.watch"
_PASS = -1  # TC_ACT_UNSPEC: the next filter decides
_PRIORITY = 1
_LOCK_SECONDS = 5.0
_NETKAT_NAME = re.compile(r"netkat:([0-9]{1,9}):([0-9]{1,19}):([0-9]{1,19})(:clsact)?")


class Filter:
    """A program at the head of a device's ingress until `remove`, or this process's end."""

    def __init__(self, program: int, ifindex: int) -> None:
        """Add the filter. Raises KernelError: the kernel refuses."""
        self._ifindex = ifindex
        self._child: subprocess.Popen[bytes] | None = None
        self._array = create_program_array(program, "netkat_array")
        try:
            self._handle = _add_filter(self._array, ifindex)
        except BaseException:
            os.close(self._array)
            raise

    def watch(self) -> None:
        """Start the child that removes the filter after this process. Raises OSError."""
        # No fork: probes attach in threads. Only this process and its forks have the writing end of
        # the child's stdin, and only this process the array's descriptor. A new session, since the
        # child must survive a signal to the terminal's group.
        self._child = subprocess.Popen(  # noqa: S603  our own Python and module
            [sys.executable, "-m", _WATCH, str(self._ifindex), str(self._handle)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def remove(self) -> None:
        """Remove the filter. A filter that is gone already is no error."""
        with contextlib.suppress(KernelError):
            remove_filters(self._ifindex, self._handle)
        os.close(self._array)
        if self._child is not None:
            # The child must not remove it later: the qdisc may belong to another process then.
            self._child.kill()
            with self._child:
                pass


def remove_stale_filters() -> None:
    """Remove filters of netkats that are gone from the calling thread's network namespace.

    Raises:
        KernelError: the qdiscs cannot be listed.
    """
    qdiscs = dump(RTM_GETQDISC, "list qdiscs")
    devices = [row["index"] for row in qdiscs if row.get_attr("TCA_KIND") == "clsact"]
    for ifindex in devices:
        with contextlib.suppress(KernelError):  # go on with the other devices
            remove_filters(ifindex)


def _add_filter(array: int, ifindex: int) -> int:
    """Add the filter with the gate. Returns its handle."""
    # The handle identifies the filter. It is random, since a process may have several netkats, and
    # a device processes of several PID namespaces.
    handle = random.SystemRandom().randrange(1 << 16, 1 << 31)
    name = f"netkat:{os.getpid()}:{_start_ticks(os.getpid()) or 0}:{_pid_namespace()}"
    gate = load_classifier(_gate(array), "netkat_gate")
    try:
        with _device_lock(ifindex):
            qdisc_added, qdisc_is_netkats = _qdisc(ifindex)
            name += ":clsact" if qdisc_is_netkats else ""
            try:
                change([changes.bpf_filter(ifindex, handle, _PRIORITY, gate, name)])
            except KernelError as error:
                if qdisc_added:
                    change([changes.clsact(ifindex, take_away=True)])
                raise KernelError(
                    error.message, error.errno,
                    hint=f"its priority {_PRIORITY} may be a filter's of another kind or protocol",
                ) from None  # fmt: skip
    finally:
        os.close(gate)
    return handle


def _gate(array: int) -> bytes:
    """Return the gate: call the array's program if there is one, else pass the packet on."""
    code = Assembly()
    code.load_map(asm.R2, array)
    code.set(asm.R3, 0)
    code.call(asm.TAIL_CALL)
    code.return_value(_PASS)
    return code.program()


def _qdisc(ifindex: int) -> tuple[bool, bool]:
    """Ensure the qdisc on a device; return (added now, belongs to netkats alone)."""
    try:
        change([changes.clsact(ifindex)])
        return True, True
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
    filters = _filters(ifindex)
    with contextlib.suppress(KernelError):  # another netkat may remove them too
        change([row.removal(ifindex) for row in filters if row.is_stale()])
    # An empty qdisc belongs to another program, which may be about to use it.
    return False, bool(filters) and all(row.qdisc_is_netkats for row in filters)


def remove_filters(ifindex: int, handle: int = 0) -> None:
    """Remove the filter of a handle, stale filters, and the qdisc with the last of them."""
    with _device_lock(ifindex):
        filters = _filters(ifindex)
        doomed = [row for row in filters if row.is_stale() or (handle and row.handle == handle)]
        removals = [row.removal(ifindex) for row in doomed]
        if doomed and len(doomed) == len(filters) and all(row.qdisc_is_netkats for row in filters):
            removals.append(changes.clsact(ifindex, take_away=True))
        change(removals)


@contextlib.contextmanager
def _device_lock(ifindex: int) -> Iterator[None]:
    """Lock a device, so that no netkat removes the qdisc while another adds its filter.

    The lock is the abstract name of a socket, which belongs to the network namespace and ends with
    the process (unix(7)). A lock that is held for longer than a netkat needs is ignored.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                lock.bind(f"\0ebpfnet-netkat-{ifindex}")
                break
            except OSError:
                time.sleep(0.001)
        yield


class _FilterRow(NamedTuple):
    """A filter of a device, and its netkat.

    Attributes:
        handle: number of the filter.
        pid, start, namespace: of its netkat, see `_start_ticks` and `_pid_namespace`; 0 for a
            filter of another program.
        qdisc_is_netkats: a netkat's filter on a qdisc that a netkat added.
    """

    handle: int
    pid: int = 0
    start: int = 0
    namespace: int = 0
    qdisc_is_netkats: bool = False

    def is_stale(self) -> bool:
        """Tell whether its netkat is gone; only known in this process's PID namespace."""
        if not self.namespace or self.namespace != _pid_namespace():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return bool(self.start) and _start_ticks(self.pid) not in (None, self.start)

    def removal(self, ifindex: int) -> Change:
        """Return the change that removes the filter."""
        return changes.no_filter(ifindex, self.handle, _PRIORITY)


def _filters(ifindex: int) -> list[_FilterRow]:
    """Return all filters of a device, of both directions. Raises KernelError."""
    filters = []
    for parent in (changes.INGRESS, changes.EGRESS):
        what = f"list filters of device {ifindex}"
        for row in dump(RTM_GETTFILTER, what, index=ifindex, parent=parent):
            options = row.get_attr("TCA_OPTIONS")
            if options is not None:  # a row without options is the priority itself
                is_netkats_place = parent == changes.INGRESS and row["info"] >> 16 == _PRIORITY
                is_bpf = row.get_attr("TCA_KIND") == "bpf"
                name = options.get_attr("TCA_BPF_NAME") if is_netkats_place and is_bpf else ""
                filters.append(_filter_row(row["handle"], text(name)))
    return filters


def _filter_row(handle: int, name: str) -> _FilterRow:
    match = _NETKAT_NAME.fullmatch(name)
    if match is None:
        return _FilterRow(handle)
    return _FilterRow(handle, int(match[1]), int(match[2]), int(match[3]), bool(match[4]))


def _start_ticks(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot.

    Returns:
        0 for a zombie, None when it cannot be read.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if fields[0] in "ZX" else int(fields[19])  # fields 3 and 22 of proc_pid_stat(5)


def _pid_namespace() -> int:
    """Return the inode of this process's PID namespace; 0 when /proc is of another."""
    try:
        is_own_proc = os.readlink("/proc/self") == str(os.getpid())
        return os.stat("/proc/self/ns/pid").st_ino if is_own_proc else 0
    except OSError:
        return 0
