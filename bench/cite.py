"""`path` and `programs` over a node with 1,000 and with 4,000 endpoints, against json.loads.

    .venv/bin/python bench/cite.py

Grows the cluster of tests/scenarios/vxlan-kpr: the lists of its second node begin with an entry
for each endpoint more. Then, each the best of 3: the answer to `path pod/client 1.1.1.1:80`, that
to `programs node/node2`, which cites every program, a citation of each endpoint, found by its
address, and json.loads of the list of endpoints alone.
Exits 1 when one of them grows more than twice as much as json.loads from the one to the other: then
each citation reads or searches its record anew.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.stages.forward import endpoint_evidence
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.explain.programs.listing import of_node
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, Record, bundle_of

FEW, MANY, TIMES_AT_MOST = 1000, 4000, 2.0
NODE, JSON = "node2", "json.loads"
ENDPOINTS = "cilium-dbg endpoint list -o json"


def address(number: int) -> str:
    """Of an endpoint more."""
    return f"10.99.{number >> 8}.{number & 255}"


def endpoint(item: Any, number: int) -> Any:
    """An endpoint like another one, with names of its own."""
    networking = item["status"]["networking"]
    networking["addressing"] = [{"ipv4": address(number)}]
    networking["interface-name"] = f"lxcmore{number}"
    return {**item, "id": 10_000 + number}


def program(number: int) -> dict[str, Any]:
    """The program at an endpoint's device, as `bpftool -j net show` has it."""
    return {
        "devname": f"lxcmore{number}", "ifindex": 10_000 + number, "kind": "tcx/ingress",
        "name": "cil_from_container", "prog_id": 100_000 + number, "link_id": 100_000 + number,
    }  # fmt: skip


def link(number: int) -> dict[str, Any]:
    """The device of an endpoint."""
    name = f"lxcmore{number}"
    return {"ifindex": 10_000 + number, "ifname": name, "flags": ["UP", "LOWER_UP"], "mtu": 1500}


def with_endpoints(value: Any, more: range) -> None:
    """Add to `endpoint list`."""
    value[:0] = [endpoint(copy.deepcopy(value[0]), number) for number in more]


def with_links(value: Any, more: range) -> None:
    """Add to `ip link`."""
    value[:0] = [link(number) for number in more]


def with_attachments(value: Any, more: range) -> None:
    """Add to `bpftool net`."""
    value[0]["tc"][:0] = [program(number) for number in more]


def with_programs(value: Any, more: range) -> None:
    """Add to `bpftool prog`."""
    names = {"type": "sched_cls", "name": "cil_from_contai", "tag": "0" * 16}
    value[:0] = [{"id": 100_000 + number, **names} for number in more]


def with_policies(value: Any, more: range) -> None:
    """Add to `bpf policy get`."""
    value[:0] = [{**value[0], "EndpointID": str(10_000 + number)} for number in more]


LISTS: dict[str, Callable[[Any, range], None]] = {
    ENDPOINTS: with_endpoints,
    "ip -j -d link": with_links,
    "bpftool -j net show": with_attachments,
    "bpftool -j prog show": with_programs,
    "cilium-dbg bpf policy get --all -o json": with_policies,
}
TABLES = {
    "cilium-dbg bpf ipcache list": "{}/32   identity=2 encryptkey=0 tunnelendpoint=0.0.0.0\n",
    "cilium-dbg bpf endpoint list": "{}:0   id=1 sec_id=2 flags=0x0000 ifindex=3 mac=02:00\n",
}


def grown(record: Record, more: range) -> Record:
    """A record of the node with an entry for each endpoint more."""
    text = record.stdout.read().decode()
    if record.command in TABLES:
        text += "".join(TABLES[record.command].format(address(number)) for number in more)
    elif record.command in LISTS:
        value = json.loads(text)
        LISTS[record.command](value, more)
        text = json.dumps(value, indent=2)
    return replace(record, stdout=InMemory(text.encode()))


def cluster(endpoints: int) -> Bundle:
    """The recorded cluster with so many endpoints more on its second node."""
    recorded = open_bundle(Path(__file__).parents[1] / "tests/scenarios/vxlan-kpr")
    return bundle_of(
        grown(record, range(endpoints)) if record.place.node == NODE and record.ok else record
        for record in recorded.records
    )


def best(work: Callable[[], object]) -> float:
    """Seconds of this process, the fewest of three."""
    found = []
    for _ in range(3):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def cite_endpoints(bundle: Bundle, count: int) -> None:
    """Find and cite each endpoint more."""
    node = ClusterView(bundle).node(NODE)
    for number in range(count):
        found = node.local_endpoint(ip_address(address(number)))
        assert found is not None
        (cited,) = endpoint_evidence(node, found)
        assert address(number) in cited.excerpt[0]


def measured(endpoints: int) -> dict[str, float]:
    """Seconds of each work on a cluster with so many endpoints more."""
    bundle = cluster(endpoints)
    there = arguments.destination("1.1.1.1:80")
    number = arguments.protocol("tcp", there)
    request = arguments.request(arguments.source("client"), there, number, "default", "")
    assert explain(request, bundle).source.node == NODE
    assert len(of_node(NODE, bundle).programs) > FEW
    (listed,) = (r for r in bundle.records if r.command == ENDPOINTS and r.place.node == NODE)
    text = listed.stdout.read()
    return {
        "path": best(lambda: explain(request, bundle)),
        "programs node": best(lambda: of_node(NODE, bundle)),
        "cite each endpoint": best(lambda: cite_endpoints(bundle, endpoints)),
        JSON: best(lambda: json.loads(text)),
    }


def main() -> int:
    """Measure and print. Returns the exit code."""
    few, many = measured(FEW), measured(MANY)
    print(f"{'endpoints on the node':26} {FEW:>9,}    {MANY:>9,}    ratio")
    growth = {name: many[name] / seconds for name, seconds in few.items()}
    for name, seconds in few.items():
        both = f"{seconds * 1000:9.1f} ms {many[name] * 1000:9.1f} ms"
        print(f"{name:26} {both} {growth[name]:8.1f}")
    print(f"path over json.loads: {few['path'] / few[JSON]:.1f}, {many['path'] / many[JSON]:.1f}")
    worst = max(growth.values()) / growth[JSON]
    print(f"growth over that of json.loads: {worst:.1f} (at most {TIMES_AT_MOST:.0f})")
    return 0 if worst <= TIMES_AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
