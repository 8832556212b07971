"""What Cilium's agent wrote down of its endpoints, equal to a part of `endpoint list`.

    /var/run/cilium/state/731/ep_config.h
        /*
         * Identity: 1
         * PolicyMap: cilium_policy_v2_00731
         */
        #define POLICY_AUDIT_MODE 1

Source: Cilium pkg/endpoint/bpf.go (writeHeaderfile), pkg/option (GetFmtList: `#undef` for an option
that is off), pkg/defaults (RuntimePath). The files are the programs' configuration: they are
written before a program is loaded, and stay there while the agent does not answer.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.model.cilium import HOST, EndpointState
from kubectl_ebpfnet.model.protocol.questions import NodeRequest

FOLDER = Path("/proc/1/root/var/run/cilium/state")
_MOST = 4096
"""Endpoints that are read; a node has some hundred pods."""
_LONGEST = 64 << 10
_AUDIT = re.compile(r"^#(define|undef) POLICY_AUDIT_MODE\b(?: +(\d{1,3}))?", re.MULTILINE)
_IDENTITY = re.compile(r"^ \* Identity: (\d{1,10})$", re.MULTILINE)


def states(_: NodeRequest, folder: Path = FOLDER) -> Iterator[EndpointState]:
    """Yield the state of every endpoint. Raises KernelError when the folder cannot be read."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise KernelError(
            "Cilium's state folder /var/run/cilium/state cannot be read on this node",
            error.errno or errno.ENOENT,
        ) from None
    for name in [name for name in names if re.fullmatch(r"[0-9]{1,5}", name)][:_MOST]:
        try:
            with (folder / name / "ep_config.h").open("rb") as file:
                text = file.read(_LONGEST).decode("utf-8", "replace")
        except OSError:  # the endpoint has just gone
            continue
        identity = _IDENTITY.search(text)
        audit = _AUDIT.search(text)
        yield EndpointState(
            int(name),
            identity is not None and int(identity[1]) == HOST,
            None if audit is None else audit[1] == "define" and audit[2] != "0",
        )
