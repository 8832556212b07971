"""Outputs of the recorded clusters (tests/scenarios), as samples for parsers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model.evidence import Record

SCENARIOS = Path(__file__).parents[1] / "scenarios"
NAMES = ("vxlan-kpr", "vxlan-kpr-egress-policy", "native-iptables", "tp06")


@cache
def records() -> tuple[tuple[str, Record], ...]:
    """Every record of every recorded cluster, with its cluster's name."""
    return tuple(
        (name, record) for name in NAMES for record in open_bundle(SCENARIOS / name).records
    )


def outputs(*argv: str) -> list[bytes]:
    """What a command printed, wherever it was recorded and succeeded."""
    found = [r.stdout.read() for _, r in records() if r.argv == argv and r.ok]
    assert found, f"nobody recorded {' '.join(argv)}"
    return found


def pairs(text: tuple[str, ...], json: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    """(text, JSON) of the same place at the same time: the delta's base is older than it is."""
    by_place: dict[tuple[str, object], dict[tuple[str, ...], bytes]] = {}
    for name, record in records():
        if name != "vxlan-kpr-egress-policy" and record.ok and record.argv in (text, json):
            by_place.setdefault((name, record.place), {})[record.argv] = record.stdout.read()
    found = [(both[text], both[json]) for both in by_place.values() if len(both) == 2]
    assert found
    return found


def api(resource: str) -> list[bytes]:
    """What the API server said to `get RESOURCE`."""
    return outputs("get", resource)
