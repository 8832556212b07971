"""Recorded clusters told anew as other versions and other settings would tell them.

Each function takes what really was printed and rewrites it by the formats of the version that it
names (Cilium's sources: cilium/cmd/bpf_*.go, pkg/maps/*; iproute2; bpftool). No fact is changed by
`as_cilium`: an answer from its bundle has to be the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model.evidence import Bundle, InMemory, PlaceKind, Record, bundle_of
from kubectl_ebpfnet.model.path import Evidence, Hop, Path
from tests.explain.path.changed import SCENARIOS, Change

Text = Callable[[str], str]


def _rows(text: str) -> list[list[str]]:
    """Cells of the rows of a table after its header; cells are two spaces or more apart."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()[1:] if line.strip()]


def _table(*rows: Sequence[str]) -> str:
    """Rows as Go's tabwriter sets them with Cilium's settings: three spaces after the widest."""
    widths = [max(5, 3 + max(map(len, column))) for column in zip(*rows, strict=True)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in rows
    )


def old_ct(text: str) -> str:
    """≤ 1.14: service entries are `OUT`, backwards and marked; Rx and Tx are counted apart."""
    text = re.sub(r"^(\w+) SVC (\S+) -> (\S+) ", r"\1 OUT \3 -> \2 service ", text, flags=re.M)
    text = text.replace(" Packets=0 Bytes=0 RxFlagsSeen", " RxPackets=0 RxBytes=0 RxFlagsSeen")
    text = text.replace(" TxFlagsSeen", " TxPackets=0 TxBytes=0 TxFlagsSeen")
    return re.sub(r"BackendID=\d+ NatPort=\d+", "IfIndex=0", text)


def old_lb(text: str, version: str) -> str:
    """≤ 1.14: no protocol, and every backend under one key, which is printed once."""
    grouped: dict[str, list[str]] = {}
    for key, value in _rows(text):
        frontend = key.partition(" ")[0].replace("/TCP", "").replace("/ANY", "")
        if frontend.endswith(":0"):
            continue  # the row that answers for every other port came later
        value = value.replace("/TCP", "")
        if version == "1.10":
            value = re.sub(r" \(\d+\)( \[|$)", r"\1", value)
        grouped.setdefault(frontend, []).append(value)
    header = "BACKEND ADDRESS" + (" (REVNAT_ID) (SLOT)" if version == "1.14" else "")
    rows = [
        ("" if number else frontend, value)
        for frontend, values in grouped.items()
        for number, value in enumerate(sorted(values))
    ]
    return _table(("SERVICE ADDRESS", header), *rows)


def old_ipcache(text: str, version: str) -> str:
    """1.10: three bare words; 1.14: with a node id."""
    rows = []
    for prefix, value in _rows(text):
        read = dict(word.split("=") for word in value.split())
        identity, end = read["identity"], read["tunnelendpoint"]
        said = f"{identity} 0 {end}"
        if version == "1.14":
            said = f"identity={identity} encryptkey=0 tunnelendpoint={end} nodeid=0x1a2b"
        rows.append((prefix, said))
    return _table(("IP PREFIX/ADDRESS", "IDENTITY"), *rows)


def old_endpoints(text: str, version: str) -> str:
    """1.10: neither the identity nor the parent's index."""
    text = text.replace("parent_ifindex=0", "")
    return re.sub(r"sec_id=\d+ ?", "", text) if version == "1.10" else text


POLICY_HEADER = (
    "POLICY", "DIRECTION", "IDENTITY", "PORT/PROTO", "PROXY PORT", "AUTH TYPE", "BYTES", "PACKETS",
    "PREFIX",
)  # fmt: skip


def policy_text(text: str, version: str) -> str:
    """`bpf policy get --all -n` out of the JSON of the same map; 1.10 has two columns less."""
    said = ""
    left_out = () if version == "1.14" else ("AUTH TYPE", "PREFIX")
    for block in json.loads(text):
        said += f"Endpoint ID: {block['EndpointID']}\nPath: {block['Path']}\n\n"
        rows = [POLICY_HEADER]
        for entry in block["Content"]:
            key = entry["Key"]
            port = int.from_bytes(key["DestPortNetwork"].to_bytes(2, "little"), "big")
            protocol = {0: "", 6: "TCP", 17: "UDP", 1: "ICMP"}[key["Nexthdr"]]
            rows.append(
                (
                    "Deny" if entry["Flags"] & 1 else "Allow",
                    ("Ingress", "Egress")[key["TrafficDirection"]],
                    str(key["Identity"]),
                    f"{port}/{protocol}" if port else protocol or "ANY",
                    "NONE", "disabled", str(entry["Bytes"]), str(entry["Packets"]), "0",
                )
            )  # fmt: skip
        kept = [n for n, name in enumerate(POLICY_HEADER) if name not in left_out]
        said += _table(*([row[n] for n in kept] for row in rows)) + "\n\n"
    return said


def as_cilium(version: str, scenario: str) -> Bundle:
    """A recorded cluster as Cilium 1.10 or 1.14 would have told it."""
    forms: dict[str, Text] = {
        "bpf ct list global -d": old_ct,
        "bpf nat list": lambda text: text.replace("sec ago NeedsCT", "sec NeedsCT").replace(
            "NeedsCT", "HostLocal" if version == "1.10" else "NeedsCT"
        ),
        "bpf lb list": lambda text: old_lb(text, version),
        "bpf ipcache list": lambda text: old_ipcache(text, version),
        "bpf endpoint list": lambda text: old_endpoints(text, version),
    }
    records = []
    for record in open_bundle(SCENARIOS / scenario).records:
        if record.place.kind is not PlaceKind.AGENT or record.argv[0] != "cilium-dbg":
            records.append(record)
            continue
        words = " ".join(record.argv[1:])
        text = record.stdout.read().decode()
        if words == "bpf policy get --all -o json":
            argv = ("cilium", "bpf", "policy", "get", "--all", "-n")
            records.append(
                replace(record, argv=argv, stdout=InMemory(policy_text(text, version).encode()))
            )
            continue
        if words == "bpf policy get --all" or words in ("bpf ct list global",):
            continue
        if words in forms and record.ok:
            text = forms[words](text)
        argv = ("cilium", *record.argv[1:])
        records.append(replace(record, argv=argv, stdout=InMemory(text.encode())))
    return bundle_of(records, scenario)


def everywhere(*pairs: tuple[str, str], at: str = "") -> Change:
    """Replace words in whatever any command of a node, or of the whole cluster, printed."""

    def change(record: Record) -> Record:
        if at and record.place.node != at:
            return record
        text = record.stdout.read()
        for old, new in pairs:
            text = text.replace(old.encode(), new.encode())
        return record if text == record.stdout.read() else replace(record, stdout=InMemory(text))

    return change


def edit(at: str, command: str, change: Text) -> Change:
    """Change what a command printed at a place, which must change."""

    def changed(record: Record) -> Record:
        here = record.place.pod or record.place.node or "api"
        if (here, record.command) != (at, command):
            return record
        before = record.stdout.read().decode()
        after = change(before)
        assert after != before, record.command
        return replace(record, stdout=InMemory(after.encode()))

    return changed


def json_edit(at: str, command: str, change: Callable[[list[dict[str, object]]], object]) -> Change:
    """Change the list that a command printed as JSON; `change` works in place."""

    def text(before: str) -> str:
        value = json.loads(before)
        change(value)
        return json.dumps(value)

    return edit(at, command, text)


def host_network(address: str) -> Change:
    """The client's Pod object with hostNetwork, which has its node's address."""

    def change(text: str) -> str:
        own = '"nodeName": "node2", "serviceAccountName": "default"'
        assert own in text
        shared = own.replace(", ", ', "hostNetwork": true, ', 1)
        return text.replace(own, shared).replace(f'"{address}"', '"172.30.0.12"')

    return edit("api", "get pods", change)


def told(hop: Hop) -> tuple[object, ...]:
    """What a hop says; where the proof stands differs between versions."""
    return (hop.place, hop.where, hop.node, hop.kind, hop.summary, hop.state, hop.packet, hop.drops)


def shown(path: Path, kind: str, node: str = "") -> list[str]:
    """Summaries of the hops of a kind, of one node or of all."""
    return [hop.summary for hop in path.hops if hop.kind == kind and node in ("", hop.node)]


def says(bundle: Bundle, evidence: tuple[Evidence, ...], words: str) -> bool:
    """Whether one of the lines pointed at has these words, in the record and in the excerpt."""
    for piece in evidence:
        text = bundle.numbered(piece.record).stdout.read().decode()
        lines = text.splitlines()
        pointed = [lines[number - 1] for number in piece.lines] or [text]
        if any(words in line for line in pointed) and any(words in said for said in piece.excerpt):
            return True
    return False
