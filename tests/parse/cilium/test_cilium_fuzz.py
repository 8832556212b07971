"""Whatever the bytes are: facts or a ParseError, of every parser of Cilium's and the API's side."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_ebpfnet.parse import kube
from kubectl_ebpfnet.parse.cilium import (
    agent,
    config,
    ct,
    egress,
    hubble,
    lb,
    maps,
    monitor,
    nat,
    policy,
    proxy,
    room,
)
from tests.parse import recorded
from tests.parse.fuzzing import Parser, damaged, documents, facts_of
from tests.parse.parse_samples import every, sample

PARSERS: dict[str, tuple[Parser, str]] = {
    "ct": (partial(every, ct.entry), "bpf ct list global -d"),
    "ct line": (partial(ct.entry, number=1), "bpf ct list global"),
    "nat": (partial(every, nat.entry), "bpf nat list"),
    "nat line": (partial(nat.entry, number=1), "bpf nat list"),
    "lb": (lb.frontends, "bpf lb list"),
    "source ranges": (lb.source_ranges, ""),
    "services": (lb.services, "service list -o json"),
    "ipcache": (maps.ipcache, "bpf ipcache list"),
    "endpoint map": (maps.endpoint_map, "bpf endpoint list"),
    "egress": (egress.policies, ""),
    "egress json": (egress.policies_json, ""),
    "ipmasq json": (maps.ip_masq_json, ""),
    "masq": (maps.ip_masq, ""),
    "metrics": (maps.metrics, "bpf metrics list"),
    "policy": (policy.entries, "bpf policy get --all"),
    "policy json": (policy.entries, "bpf policy get --all -o json"),
    "policy old": (policy.entries, ""),
    "policy endpoints": (policy.endpoints, "bpf policy get --all"),
    "policy endpoints json": (policy.endpoints, "bpf policy get --all -o json"),
    "hubble": (partial(hubble.event, number=1), ""),
    "monitor": (partial(monitor.event, number=1), "monitor"),
    "monitor json": (partial(monitor.event, number=1), "monitor -j"),
    "status": (agent.status, "status -o json"),
    "wireguard": (agent.wireguard, ""),
    "sizes of maps": (room.sizes, "status -o json"),
    "endpoints": (agent.endpoints, "endpoint list -o json"),
    "endpoint rules": (proxy.rules, "endpoint list -o json"),
    "proxy redirects": (proxy.redirects, "status -o json"),
    "fqdn cache": (proxy.fqdn_cache, ""),
    "nodes": (agent.nodes, "node list -o json"),
    "identities": (agent.identities, "identity list -o json"),
    "version": (agent.version, "version"),
    "config": (config.view, ""),
    "objects": (kube.objects, ""),
}
# Of what no cluster of ours printed a full one: the formats (samples/README.md).
FORMATS = {
    "egress": tuple(f"{version}/format/bpf-egress-list" for version in ("1.10", "1.12", "1.14")),
    "egress json": (
        "1.10/format/bpf-egress-list-o-json",
        "1.18/egress-gateway/bpf-egress-list-o-json",
    ),
    "ipmasq json": ("1.18/egress-gateway/bpf-ipmasq-list-o-json",),
    "wireguard": ("1.19/format/status-o-json",),
    "policy old": (
        "1.9/format/bpf-policy-get--all",
        "1.9/format/bpf-policy-get--all-n",
        "1.9/format/bpf-policy-get--all-o-json",
    ),
    "lb": ("1.9/format/bpf-lb-list", "1.16/format/bpf-lb-list"),
    "source ranges": ("1.14/format/bpf-lb-list--source-ranges",),
    "nat": ("1.10/format/bpf-nat-list", "1.15/format/bpf-nat-list-without-a-clock"),
    "hubble": tuple(f"{version}/node2/hubble-observe" for version in ("1.9.8", "1.13.7", "1.18")),
    "endpoint rules": ("1.18/fqdn-node2/endpoint-list-o-json",),
    "proxy redirects": ("1.18/fqdn-node2/status-o-json",),
    "fqdn cache": ("1.18/fqdn-node2/fqdn-cache-list-o-json",),
    "ct": ("1.9/format/bpf-ct-list-global",),
}
NAMES = sorted(PARSERS)


@cache
def samples(name: str) -> tuple[bytes, ...]:
    """What was recorded of the parser's command, and formats; a part of long ones."""
    words = PARSERS[name][1]
    found = [sample(f"cilium-{path}") for path in FORMATS.get(name, ())]
    if name == "objects":
        kinds = ("pods", "services", "endpointslices", "ciliumendpoints", "ciliumnodes")
        found += [data[:20000] for kind in kinds for data in recorded.api(kind)]
    elif name == "config":
        found += recorded.outputs("cilium", "config", "view")
    elif name == "masq":
        found += [b"IP PREFIX\n10.0.0.0/8\n"]
    elif words:
        found += [data[:6000] for data in recorded.outputs("cilium-dbg", *words.split())]
    if name.endswith("line") or name.startswith(("monitor", "hubble")):
        found = [line for data in found for line in data.split(b"\n") if line]
    return tuple(found)


def keys(value: Any) -> set[str]:
    """Every member name in a JSON value."""
    if isinstance(value, dict):
        return set(value) | {k for item in value.values() for k in keys(item)}
    if isinstance(value, list):
        return {k for item in value for k in keys(item)}
    return set()


@cache
def members(name: str) -> tuple[str, ...]:
    """Member names that the recorded outputs of a parser have."""
    found: set[str] = set()
    for data in samples(name):
        try:
            found |= keys(json.loads(data))
        except ValueError:
            continue
    return tuple(sorted(found))[:80] or ("Key", "Value")


WORDS = ("10.0.0.1", "10.0.0.0/8", "fd00::1", "Pod", "TCP", "", "80/TCP", "node1")


@given(data=st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for name in NAMES:
        facts_of(PARSERS[name][0], data)


@pytest.mark.parametrize("name", NAMES)
@given(draw=st.data())
def test_damaged_recordings(name: str, draw: st.DataObject) -> None:
    facts_of(PARSERS[name][0], draw.draw(damaged(samples(name))))


@pytest.mark.parametrize("name", NAMES)
@given(draw=st.data())
@settings(suppress_health_check=[*settings().suppress_health_check, HealthCheck.data_too_large])
def test_json_with_anything_in_it(name: str, draw: st.DataObject) -> None:
    document = draw.draw(documents(members(name), WORDS))
    facts_of(PARSERS[name][0], json.dumps(document).encode())
