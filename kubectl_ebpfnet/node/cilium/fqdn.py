"""Names that endpoints looked up through the agent's DNS proxy, equal to `fqdn cache list`.

The agent saves them with the endpoint, some seconds after each change: in ep_config.json (member
DNSHistory), before Cilium 1.16 in base64 behind CILIUM_BASE64_ in ep_config.h.

Source: Cilium pkg/endpoint/restore.go (serializableEndpoint), pkg/fqdn/cache.go (MarshalJSON).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.errors import ParseError
from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.protocol.questions import NodeRequest
from kubectl_ebpfnet.model.proxy import FqdnEntry
from kubectl_ebpfnet.model.untrusted import json_value, moment
from kubectl_ebpfnet.node.cilium.endpoint_states import (
    FOLDER,
    incomplete,
    listed,
    read,
    saved_endpoint,
)

_LONGEST = 4 << 20
_MOST = 20_000
"""Names that are told."""
_SAVED = re.compile(rb"CILIUM_BASE64_(\S*)")


def entries(request: NodeRequest, folder: Path = FOLDER) -> Iterator[FqdnEntry]:
    """Yield the names of an endpoint, `-e ID` behind the question, or of all.

    Raises:
        Incomplete: after the names, where those of some endpoints could not be read.
        KernelError: the folder cannot be read.
    """
    wanted = request.argv[-1] if "-e" in request.argv else ""
    left, unread = _MOST, []
    for name in [n for n in listed(folder) if re.fullmatch(r"[0-9]{1,5}", n)]:
        if wanted not in ("", name):
            continue
        try:
            saved = saved_endpoint(folder, name) or _older(folder / name / "ep_config.h")
        except (OSError, ValueError, ParseError):
            unread.append(name)
            continue
        items = js.items(saved, "DNSHistory")
        if len(items) > left:
            unread.append(name)
        for item in items[:left]:
            left -= 1
            if js.text(item, "fqdn"):
                yield _entry(int(name), item)
    if unread:
        raise incomplete(unread)


def _older(path: Path) -> object | None:
    """Return the endpoint that an agent before 1.16 saved, None where it did not. Raises OSError,
    ValueError and ParseError where that cannot be read."""
    found = _SAVED.search(read(path, _LONGEST))
    return json_value(base64.b64decode(found[1]), "ep_config.h") if found else None


def _entry(endpoint: int, item: Any) -> FqdnEntry:
    name = js.text(item, "fqdn").lower().rstrip(".") + "."
    return FqdnEntry(
        endpoint, name, js.addresses(js.texts(item, "ips")), js.number(item, "ttl"),
        _time(item, "lookup-time"), _time(item, "expiration-time"),
    )  # fmt: skip


def _time(item: Any, name: str) -> datetime | None:
    try:
        return moment(js.text(item, name), "ep_config.json")
    except ParseError:
        return None
