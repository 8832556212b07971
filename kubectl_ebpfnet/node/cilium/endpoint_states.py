"""What Cilium's agent wrote down of its endpoints, equal to a part of `endpoint list`.

    /var/run/cilium/state/731/ep_config.h
        /*
         * Identity: 1
         * PolicyMap: cilium_policy_v2_00731
         */
        #define POLICY_AUDIT_MODE 1
    /var/run/cilium/state/731/ep_config.json    since Cilium 1.16: the endpoint as it is restored
    /var/run/cilium/state/731_next/             while the agent regenerates the endpoint
    /var/run/cilium/state/731_next_fail/        its last regeneration failed

Source: Cilium pkg/endpoint/bpf.go (writeHeaderfile), directory.go, restore.go
(serializableEndpoint), pkg/option (GetFmtList: `#undef` for an option that is off), pkg/defaults
(RuntimePath). The files are the programs' configuration: they are written before a program is
loaded, and stay there while the agent does not answer.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kubectl_ebpfnet.errors import Incomplete, KernelError, ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.cilium import HOST, EndpointState
from kubectl_ebpfnet.model.few import few
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.model.untrusted import json_value

FOLDER = Path("/proc/1/root/var/run/cilium/state")
_MOST = 4096
"""Endpoints that are read; a node has some hundred pods."""
_NAMED = 3
"""Endpoints that an error names."""
_LONGEST = 64 << 10
_LONGEST_JSON = 4 << 20
"""It holds the names that the endpoint looked up."""
_AUDIT = re.compile(r"^#(define|undef) POLICY_AUDIT_MODE\b(?: +(\d{1,3}))?", re.MULTILINE)
_IDENTITY = re.compile(r"^ \* Identity: (\d{1,10})$", re.MULTILINE)


def states(_: NodeRequest, folder: Path = FOLDER) -> Iterator[EndpointState]:
    """Yield the state of every endpoint.

    Raises:
        Incomplete: after the states, where those of some endpoints could not be read.
        KernelError: the folder cannot be read.
    """
    names = listed(folder)
    present = set(names)
    numbered = [name for name in names if re.fullmatch(r"[0-9]{1,5}", name)]
    unread = numbered[_MOST:]
    for name in numbered[:_MOST]:
        text, problem = "", False
        try:
            text = read(folder / name / "ep_config.h", _LONGEST).decode("utf-8", "replace")
            saved = None if _AUDIT.search(text) else saved_endpoint(folder, name)
        except (OSError, ParseError):
            saved, problem = None, True
        if not text and saved is None:  # it has just gone, or what it has cannot be read
            unread += [name] if problem else []
            continue
        building, failed = (
            _age(folder / f"{name}{suffix}") if f"{name}{suffix}" in present else None
            for suffix in ("_next", "_next_fail")
        )
        yield EndpointState(int(name), _is_host(text, saved), _audit(text, saved), building, failed)
    if unread:
        raise incomplete(unread)


def incomplete(unread: Sequence[str]) -> Incomplete:
    """Return the error of an answer that lacks endpoints: their ids."""
    which = few(unread, _NAMED)
    return Incomplete(f"what the agent wrote down of endpoint {which} was not read", errno.EIO)


def listed(folder: Path) -> list[str]:
    """Return the names in the state folder. Raises KernelError when it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise KernelError(
            "Cilium's state folder /var/run/cilium/state cannot be read on this node",
            error.errno or errno.ENOENT,
        ) from None


def saved_endpoint(folder: Path, name: str) -> object | None:
    """Return the endpoint as the agent saved it in JSON, None where it did not. Raises OSError and
    ParseError where that cannot be read."""
    data = read(folder / name / "ep_config.json", _LONGEST_JSON)
    return json_value(data, "ep_config.json") if data else None


def read(path: Path, most: int) -> bytes:
    """Return the first bytes of a file, b"" where it is not there. Raises OSError."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""


def _age(path: Path) -> int | None:
    try:
        return max(0, int(time.time() - path.stat().st_mtime))
    except OSError:
        return None


def _is_host(text: str, saved: object | None) -> bool:
    identity = _IDENTITY.search(text)
    number = int(identity[1]) if identity else js.number(saved, "SecLabel", "id")
    return number == HOST


def _audit(text: str, saved: object | None) -> bool | None:
    audit = _AUDIT.search(text)
    if audit is not None:
        return audit[1] == "define" and audit[2] != "0"
    option = js.number(saved, "Options", "map", "PolicyAuditMode")
    return None if option is None else option != 0
