"""CiliumBGPAdvertisements: objects of the API server.

Source: model/advertisement.py.
"""

from __future__ import annotations

from typing import Any

from kubectl_ebpfnet.model import json_members as js
from kubectl_ebpfnet.model.advertisement import Advertisement
from kubectl_ebpfnet.model.evidence import NOWHERE, Span
from kubectl_ebpfnet.parse.policy_parts import selector


def of_services(value: Any, span: Span = NOWHERE) -> tuple[Advertisement, ...]:
    """Return the advertisements of Services of a CiliumBGPAdvertisement.

    Args:
        value: the object.
        span: its place in the record.
    """
    name = js.text(value, "metadata", "name")
    found = []
    for item in js.items(value, "spec", "advertisements"):
        if js.text(item, "advertisementType") != "Service":
            continue
        chosen = js.dig(item, "selector")
        by_labels = tuple(selector(chosen, "k8s")) if isinstance(chosen, dict) else None
        addresses = js.texts(item, "service", "addresses")
        found.append(Advertisement(name, by_labels, addresses, span))
    return tuple(found)
