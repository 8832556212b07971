"""Names that endpoints looked up through the agent's DNS proxy, equal to `fqdn cache list`.

The agent saves them with the endpoint, some seconds after each change: in ep_config.json (member
DNSHistory), before Cilium 1.16 in base64 behind CILIUM_BASE64_ in ep_config.h.

Source: Cilium pkg/endpoint/restore.go (serializableEndpoint), pkg/fqdn/cache.go (MarshalJSON).
"""

from __future__ import annotations

import base64
import binascii
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
from kubectl_ebpfnet.node.cilium.endpoint_states import FOLDER, listed, saved_endpoint

_LONGEST = 4 << 20
_MOST = 20_000
"""Names that are told."""
_SAVED = re.compile(rb"CILIUM_BASE64_([A-Za-z0-9+/=]+)")


def entries(request: NodeRequest, folder: Path = FOLDER) -> Iterator[FqdnEntry]:
    """Yield the names of an endpoint, `-e ID` behind the question, or of all. Raises KernelError
    when the folder cannot be read."""
    wanted = request.argv[-1] if "-e" in request.argv else ""
    left = _MOST
    for name in [n for n in listed(folder) if re.fullmatch(r"[0-9]{1,5}", n)]:
        if wanted not in ("", name):
            continue
        saved = saved_endpoint(folder, name) or _older(folder / name / "ep_config.h")
        for item in js.items(saved, "DNSHistory")[:left]:
            left -= 1
            if js.text(item, "fqdn"):
                yield _entry(int(name), item)


def _older(path: Path) -> object | None:
    try:
        with path.open("rb") as file:
            found = _SAVED.search(file.read(_LONGEST))
        return json_value(base64.b64decode(found[1]), "ep_config.h") if found else None
    except (OSError, ValueError, binascii.Error, ParseError):
        return None


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
