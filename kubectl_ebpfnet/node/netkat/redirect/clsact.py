"""Before all others of a device's ingress by a clsact filter, where there is no tcx (Linux 6.6).

    device, ingress ─▶ filter "netkat:PID:START:PIDNS" ─▶ gate ─▶ array of one ─▶ the program

A filter stays until somebody removes it, so this is done three times over:

* A child waits for our end, whatever it is, and removes the filter.
* The filter's own program is a gate: a tail call into an array, which the kernel empties when the
  last descriptor of it is closed. Only we have one. Where that child is killed together with us (a
  pod that is deleted with its whole cgroup), the filter lets everything pass from then on.
* Its name says whose it is. Filters of netkats that are gone are removed by whoever comes next.

The qdisc goes with the last filter, and only where it was put there by a netkat.

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
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.bpf import assembler as asm
from kubectl_ebpfnet.node.bpf.assembler import Assembly
from kubectl_ebpfnet.node.bpf.load import create_program_array, load_classifier
from kubectl_ebpfnet.node.netkat import changes
from kubectl_ebpfnet.node.netlink.message import (
    Attributes,
    Change,
    attributes_of,
    change,
    dump,
    text,
)

_GETQDISC, _GETTFILTER = 38, 46  # RTM_*
_KIND, _OPTIONS, _BPF_NAME = 1, 2, 7  # TCA_KIND, TCA_OPTIONS, TCA_BPF_NAME
_PASS = -1  # TC_ACT_UNSPEC: the next filter decides
_PRIORITY = 1
_LOCK_SECONDS = 5.0
_OURS = re.compile(r"netkat:([0-9]{1,9}):([0-9]{1,19}):([0-9]{1,19})(:clsact)?")


class Filter:
    """A program at the head of a device's ingress until `remove`, or this process's end."""

    def __init__(self, program: int, ifindex: int) -> None:
        """Put it there. Raises KernelError: the kernel refuses."""
        self._ifindex = ifindex
        self._child: subprocess.Popen[bytes] | None = None
        self._array = create_program_array(program, "netkat_array")
        try:
            self._handle = _put(self._array, ifindex)
        except BaseException:
            os.close(self._array)
            raise

    def watch(self) -> None:
        """Have it removed when this process is gone. Raises OSError: no process for that."""
        # No fork of us: probes attach in threads. Only we and forks of us have the writing end of
        # its stdin, and only we the array's descriptor. A signal to the terminal's group is for
        # the others.
        self._child = subprocess.Popen(  # noqa: S603  our own Python and module
            [sys.executable, "-m", __name__, str(self._ifindex), str(self._handle)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def remove(self) -> None:
        """Take it away. What has gone already is no error."""
        with contextlib.suppress(KernelError):
            _clear(self._ifindex, self._handle)
        os.close(self._array)
        if self._child is not None:
            # It must not do that again later: the qdisc may be somebody else's by then.
            self._child.kill()
            with self._child:
                pass


def _watch(ifindex: int, handle: int) -> None:
    """What a child does: wait for the netkat's end, and remove the filter."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(1, 3)
    os.read(0, 1)
    _clear(ifindex, handle)


def sweep() -> None:
    """Remove what netkats that are gone have left in the calling thread's network namespace.

    Raises:
        KernelError: the qdiscs cannot be listed.
    """
    rows = dump(_GETQDISC, changes.TC.pack(0, 0, 0, 0, 0), "list qdiscs")
    devices = [
        changes.TC.unpack_from(data, start)[1]
        for data, start, end in rows
        if text(attributes_of(data[start:end], changes.TC.size), _KIND) == "clsact"
    ]
    for ifindex in devices:
        with contextlib.suppress(KernelError):  # others are to be looked at all the same
            _clear(ifindex)


def _put(array: int, ifindex: int) -> int:
    """Add the filter, by way of the gate. Returns its handle."""
    # By its handle the filter is found again. Numbers at random, since several netkats may be in
    # one process, and processes of several PID namespaces at one device.
    handle = random.SystemRandom().randrange(1 << 16, 1 << 31)
    name = f"netkat:{os.getpid()}:{_start(os.getpid()) or 0}:{_pid_namespace()}"
    gate = load_classifier(_gate(array), "netkat_gate")
    try:
        with _one_at_a_time(ifindex):
            added, alone = _qdisc(ifindex)
            name += ":clsact" if alone else ""
            try:
                change([changes.bpf_filter(ifindex, handle, _PRIORITY, gate, name)])
            except KernelError as error:
                if added:
                    change([changes.clsact(ifindex, take_away=True)])
                raise KernelError(
                    error.message, error.errno,
                    hint=f"its priority {_PRIORITY} may be a filter's of another kind or protocol",
                ) from None  # fmt: skip
    finally:
        os.close(gate)
    return handle


def _gate(array: int) -> bytes:
    """Go to the array's program where there is one, and pass the packet on where there is none."""
    code = Assembly()
    code.map_in(asm.R2, array)
    code.set(asm.R3, 0)
    code.call(asm.TAIL_CALL)
    code.give(_PASS)
    return code.program()


def _qdisc(ifindex: int) -> tuple[bool, bool]:
    """Have the qdisc on a device: (we have added it, it is there for netkats alone)."""
    try:
        change([changes.clsact(ifindex)])
        return True, True
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
    found = _filters(ifindex)
    with contextlib.suppress(KernelError):  # another one may be at it too
        change([one.removed(ifindex) for one in found if one.is_left_over()])
    # One with nothing on it is somebody's too: they may be about to use it.
    return False, bool(found) and all(one.alone for one in found)


def _clear(ifindex: int, handle: int = 0) -> None:
    """Remove one's own filter, those left over by others, and the qdisc with the last of them."""
    with _one_at_a_time(ifindex):
        found = _filters(ifindex)
        going = [one for one in found if one.is_left_over() or (handle and one.handle == handle)]
        removing = [one.removed(ifindex) for one in going]
        if going and len(going) == len(found) and all(one.alone for one in found):
            removing.append(changes.clsact(ifindex, take_away=True))
        change(removing)


@contextlib.contextmanager
def _one_at_a_time(ifindex: int) -> Iterator[None]:
    """What netkats do at a device one after the other.

    Else one would remove the qdisc while another one adds its filter. The lock is the abstract name
    of a socket, which is the network namespace's and ends with the process (unix(7)). Whoever holds
    it for longer than it can take is none of us, and not waited for.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        end = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < end:
            try:
                lock.bind(f"\0ebpfnet-netkat-{ifindex}")
                break
            except OSError:
                time.sleep(0.001)
        yield


class _Found(NamedTuple):
    """A filter of a device, as far as it tells whose it is.

    Attributes:
        handle: its number.
        pid, start, namespace: of the netkat that it is of, see `_start` and `_pid_namespace`;
            0 when it is not a netkat's.
        alone: it is a netkat's, and the qdisc was put there by a netkat.
    """

    handle: int
    pid: int = 0
    start: int = 0
    namespace: int = 0
    alone: bool = False

    def is_left_over(self) -> bool:
        """Its netkat is gone. Only of our own PID namespace we can say that."""
        if not self.namespace or self.namespace != _pid_namespace():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return bool(self.start) and _start(self.pid) not in (None, self.start)

    def removed(self, ifindex: int) -> Change:
        """What takes it away."""
        return changes.no_filter(ifindex, self.handle, _PRIORITY)


def _filters(ifindex: int) -> list[_Found]:
    """All filters of a device, of both directions. Raises KernelError."""
    found = []
    for parent in (changes.INGRESS, changes.EGRESS):
        body = changes.TC.pack(0, ifindex, 0, parent, 0)
        rows = dump(_GETTFILTER, body, f"list filters of device {ifindex}")
        for data, start, end in rows:
            _, _, handle, _, info = changes.TC.unpack_from(data, start)
            options = attributes_of(data[start:end], changes.TC.size).get(_OPTIONS)
            if options is not None:  # a row without them stands for the priority itself
                ours = parent == changes.INGRESS and info >> 16 == _PRIORITY
                found.append(_found(handle, attributes_of(options) if ours else {}))
    return found


def _found(handle: int, options: Attributes) -> _Found:
    match = _OURS.fullmatch(text(options, _BPF_NAME))
    if match is None:
        return _Found(handle)
    return _Found(handle, int(match[1]), int(match[2]), int(match[3]), bool(match[4]))


def _start(pid: int) -> int | None:
    """When a process was started, in ticks since the machine's start.

    Returns:
        0 for one that has ended and is still to be waited for, None when it cannot be read.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if fields[0] in "ZX" else int(fields[19])  # fields 3 and 22 of proc_pid_stat(5)


def _pid_namespace() -> int:
    """The number of the PID namespace that we and /proc are of; 0 when it is not the same."""
    try:
        same = os.readlink("/proc/self") == str(os.getpid())
        return os.stat("/proc/self/ns/pid").st_ino if same else 0
    except OSError:
        return 0


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]))
