"""Whose network namespaces are: a pod's, the node's own, or some process's.

Sources: proc(5), namespaces(7). A pod's processes have its uid in the path of their cgroup, and
their container's id (kubernetes pkg/kubelet/cm).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from kubectl_ebpfnet.model.events import NamespaceOwner
from kubectl_ebpfnet.model.protocol.questions import PodNamespace

_PROC = Path("/proc")
_POD_UID = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO, include/linux/proc_ns.h."""
_AGAIN_SECONDS = 0.5
_MOST = 10_000


class Owners:
    """Owners by inode; processes are looked through again where an inode is new."""

    def __init__(self, pods: Iterable[PodNamespace] = ()) -> None:
        """`pods` are known by their containers too."""
        self._uids = {container: pod.uid for pod in pods for container in pod.containers}
        self._node = os.stat("/proc/self/ns/net").st_ino  # the pod is in the node's own
        self._known: dict[int, NamespaceOwner] = {}
        self._asked = -_AGAIN_SECONDS
        first = os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
        self.shares_kernel = not first
        """Whether this node is itself a container (kind), whose neighbours have the same kernel."""

    @property
    def node(self) -> int:
        """The inode of the node's own network namespace."""
        return self._node

    def of(self, inode: int) -> NamespaceOwner:
        """Return the owner; one without pod, process and `node` where nobody is found."""
        if inode not in self._known and time.monotonic() >= self._asked + _AGAIN_SECONDS:
            self._look()
            self._asked = time.monotonic()
        return self._known.get(inode) or NamespaceOwner(inode)

    def is_neighbours(self, inode: int) -> bool:
        """Whether it belongs to another node with this kernel: nobody here is in it."""
        if not self.shares_kernel or not inode:
            return False
        owner = self.of(inode)
        return not (owner.node or owner.pid)

    def _look(self) -> None:
        found: dict[int, NamespaceOwner] = {}
        for name in os.listdir(_PROC):
            # A process may end meanwhile.
            with contextlib.suppress(OSError):
                if not name.isdigit():
                    continue
                inode = os.stat(_PROC / name / "ns/net").st_ino
                known = found.get(inode)
                if known and (known.pod_uid or known.node):
                    continue
                owner = self._process(inode, int(name))
                if known is None or owner.pod_uid:
                    found[inode] = owner
            if len(found) >= _MOST:
                break
        # A namespace stays what it was: its last process may have ended with its last packet.
        self._known = {**self._known, **found} if len(self._known) < _MOST else found

    def _process(self, inode: int, pid: int) -> NamespaceOwner:
        if inode == self._node:
            return NamespaceOwner(inode, node=True)
        groups = (_PROC / str(pid) / "cgroup").read_text(errors="replace")
        uid, container = _POD_UID.search(groups), _CONTAINER.search(groups)
        name = container[0] if container else ""
        command = (_PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
        return NamespaceOwner(
            inode,
            pod_uid=uid[1].replace("_", "-") if uid else self._uids.get(name, ""),
            container=name,
            pid=pid,
            command=command,
        )
