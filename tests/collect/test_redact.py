"""A redacted capture holds nothing of the original's names and says the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_ebpfnet.collect.bundle_file import open_bundle, write_bundle
from kubectl_ebpfnet.collect.redact import NOTE, Substitution, prefixes, redact
from kubectl_ebpfnet.collect.redact_addresses import AddressMap
from kubectl_ebpfnet.collect.redact_names import names_of
from kubectl_ebpfnet.model.codec import plain
from kubectl_ebpfnet.model.evidence import (
    API,
    CLIENT,
    Bundle,
    Held,
    Record,
    agent_place,
    bundle_of,
    pod_place,
)
from kubectl_ebpfnet.parse import conntrack, iproute, nettools, procfs

SCENARIOS = Path(__file__).parent.parent / "scenarios"
NAMES = ["vxlan-kpr", "vxlan-kpr-egress-policy", "native-iptables", "tp06"]
KEY = b"k" * 32

v4 = st.ip_addresses(v=4)
addresses = v4 | st.ip_addresses(v=6)


# --- addresses ----------------------------------------------------------------------------------


@given(st.lists(v4, max_size=20, unique=True), st.lists(st.tuples(v4, st.integers(8, 32))))
def test_it_is_one_to_one_and_keeps_networks(
    some: list[IPv4Address], networks: list[tuple[IPv4Address, int]]
) -> None:
    table = AddressMap(KEY, networks)
    mapped = [table.address(address) for address in some]
    assert len(set(mapped)) == len(some)
    for address, length in networks:
        network = ip_network((address, length), strict=False)
        image = ip_network((table.address(network.network_address), length))  # strict: no host bits
        for one in some:
            assert (one in network) == (table.address(one) in image)


@given(addresses)
def test_what_an_address_is_good_for_stays(address: Any) -> None:
    mapped = AddressMap(KEY).address(address)
    assert mapped.version == address.version
    for quality in ("is_multicast", "is_loopback", "is_link_local", "is_unspecified"):
        assert getattr(mapped, quality) == getattr(address, quality)
    if address.version == 4:
        private = [ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
        private.append(ip_network("100.64.0.0/10"))
        assert [address in n for n in private] == [mapped in n for n in private]
    else:
        ula = ip_network("fc00::/7")
        assert (address in ula) == (mapped in ula)


def test_another_key_gives_other_addresses() -> None:
    address = ip_address("10.244.1.160")
    found = {AddressMap(bytes((n,)) * 32).address(address) for n in range(8)}
    assert len(found) > 4
    assert address not in found


def test_every_way_to_write_an_address() -> None:
    words = Substitution(AddressMap(KEY), {"client": "pod-1"})
    new = AddressMap(KEY).address(ip_address("10.244.0.213"))
    new6 = AddressMap(KEY).address(ip_address("fd00:0:0:1::d5"))
    mac = words.text("f6:93:7d:11:4d:37")
    assert str(new) != "10.244.0.213"
    assert str(new6) != "fd00:0:0:1::d5"
    cases = {
        "10.244.0.213:46486 -> x": f"{new}:46486 -> x",
        "(10.244.0.213)": f"({new})",
        "src=10.244.0.213.": f"src={new}.",
        "10.244.0.213/32": f"{new}/32",
        "[fd00:0:0:1::d5]:80": f"[{new6}]:80",
        "src=fd00:0000:0000:0001:0000:0000:0000:00d5 x": f"src={new6.exploded} x",
        '"SourceAddr":[10,244,0,213],"Pad":[10,244,0,213]': (
            f'"SourceAddr":[{",".join(map(str, new.packed))}],"Pad":[10,244,0,213]'
        ),
        '"DestAddr": [\n 10,\n 244,\n 0,\n 213\n]': (
            '"DestAddr": [\n ' + ",\n ".join(map(str, new.packed)) + "\n]"
        ),
        "F6:93:7D:11:4D:37": mac.upper(),
        "brd ff:ff:ff:ff:ff:ff 00:00:00:00:00:00": "brd ff:ff:ff:ff:ff:ff 00:00:00:00:00:00",
        "netmask 255.255.255.128": "netmask 255.255.255.128",
        "default via 0.0.0.0 127.0.0.1 ::1 ::": "default via 0.0.0.0 127.0.0.1 ::1 ::",
        "6.18.44 12:30:45 a:b 1.2.3": "6.18.44 12:30:45 a:b 1.2.3",
        'client client-2 xclient "client": "client"': 'pod-1 client-2 xclient "client": "pod-1"',
        "default/client client.default.svc": "default/pod-1 pod-1.default.svc",
    }
    for text, expected in cases.items():
        assert words.text(text) == expected


@given(st.binary(max_size=200))
def test_other_bytes_stay(data: bytes) -> None:
    words = Substitution(AddressMap(KEY), {})
    if not re.search(rb"[:.]", data):
        assert words.line(data) == data
    else:
        words.line(data)


# --- scenarios ----------------------------------------------------------------------------------


def everything(bundle: Bundle) -> str:
    parts = [bundle.note]
    for r in bundle.records:
        out = r.stdout.read().decode("latin-1")
        parts += [str(r.place), *r.argv, out, r.stderr.decode("latin-1"), r.error, *r.kept]
    return "\n".join(parts)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_original_is_left(name: str, tmp_path: Path) -> None:
    original = open_bundle(SCENARIOS / name)
    # A key of ours: by chance another key makes of one address what was another's.
    write_bundle(tmp_path / "x.zip", redact(original, KEY).records)
    redacted = open_bundle(tmp_path / "x.zip")
    text = everything(redacted)
    for word in names_of(original):
        assert not re.search(rf'(?<![\w-]){re.escape(word)}(?![\w-])(?!"\s*:)', text), word
    addresses = set(re.findall(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])", everything(original)))
    for word in addresses:
        try:
            kept = ip_address(word)
        except ValueError:
            continue
        if kept.packed[0] in (0, 127, *range(224, 256)) or kept.is_link_local:
            continue
        if kept.packed[1:] == bytes(3):
            continue  # 10.0.0.0/8: a range, and nobody's
        assert not re.search(rf"(?<![\d.]){re.escape(word)}(?![\d.])", text), word
    macs = set(re.findall(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", everything(original)))
    for mac in macs:
        if not int(mac[:2], 16) & 1 and set(mac) != {"0", ":"}:
            assert mac not in text


def fully(substitution: Substitution, value: Any) -> Any:
    """The substitution of every text in plain facts."""
    if isinstance(value, str):
        return substitution.text(value)
    if isinstance(value, list):
        return [fully(substitution, item) for item in value]
    if isinstance(value, dict):
        return {key: fully(substitution, item) for key, item in value.items()}
    return value


def nf_conntrack(data: bytes) -> list[Any]:
    return [conntrack.entry(line, number) for number, line in enumerate(data.splitlines(), start=1)]


READERS: list[tuple[tuple[str, ...], Callable[[bytes], Any]]] = [
    (("ip", "-j", "route", "show", "table", "all"), iproute.routes),
    (("ip", "route"), iproute.routes),
    (("ip", "-j", "addr"), iproute.addresses),
    (("ip", "addr"), iproute.addresses),
    (("ip", "a"), iproute.addresses),
    (("ip", "-j", "neigh"), iproute.neighbours),
    (("ip", "neigh"), iproute.neighbours),
    (("cat", "/proc/net/arp"), procfs.neighbours),
    (("cat", "/proc/net/route"), procfs.routes),
    (("cat", "/proc/net/ipv6_route"), procfs.routes6),
    (("route", "-n"), nettools.routes),
    (("arp", "-an"), nettools.neighbours),
    (("cat", "/proc/net/nf_conntrack"), nf_conntrack),
]


@pytest.mark.parametrize("name", NAMES)
def test_facts_of_the_redacted_are_the_facts_redacted(name: str) -> None:
    original = open_bundle(SCENARIOS / name)
    redacted = redact(original, KEY)
    words = Substitution(AddressMap(KEY, prefixes(original)), names_of(original))
    compared = 0
    for before, after in zip(original.records, redacted.records, strict=True):
        for argv, reader in READERS:
            if before.argv == argv and before.ok:
                facts = plain(list(reader(before.stdout.read())))
                assert plain(list(reader(after.stdout.read()))) == fully(words, facts)
                compared += bool(facts)
    assert compared >= 5


@pytest.mark.parametrize("name", NAMES)
def test_json_stays_json_with_the_same_keys(name: str) -> None:
    original = open_bundle(SCENARIOS / name)

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return sorted((re.sub(r"[\d.]{7,}", "A", k), shape(v)) for k, v in value.items())
        return [shape(item) for item in value] if isinstance(value, list) else type(value)

    for before, after in zip(original.records, redact(original).records, strict=True):
        try:
            value = json.loads(before.stdout.read())
        except ValueError:
            continue
        assert str(shape(json.loads(after.stdout.read()))) == str(shape(value))


def test_names_of_every_kind_are_replaced_and_still_belong_together() -> None:
    pod = {
        "kind": "Pod",
        "metadata": {
            "name": "shop-5d4f8-x1",
            "namespace": "acme",
            "labels": {"team": "payments", "v": "1"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-5d4f8"}],
        },
    }
    records = [
        Record(1, API, ("get", "pods", "-n", "acme"), 0, Held(json.dumps(pod).encode())),
        Record(
            2,
            pod_place("acme", "shop-5d4f8-x1"),
            ("cat", "/etc/resolv.conf"),
            0,
            Held(b"search acme.svc.cluster.local corp.example\n"),
        ),
        Record(3, CLIENT, ("resolve", "db.corp.example"), 0, Held(b"10.0.0.7\n")),
        Record(
            4,
            agent_place("ip-10-0-0-1"),
            ("ip", "a"),
            None,
            error="no agent on ip-10-0-0-1",
            denied="create pods/exec in namespace acme",
            kept=("10.0.0.7",),
        ),
    ]
    bundle = redact(bundle_of(records, note="of acme"))
    text = everything(bundle)
    for word in ("acme", "shop", "payments", "corp", "ip-10", "10.0.0.7"):
        assert word not in text
    assert bundle.note == f"of namespace-1 {NOTE}"
    api, resolv, look_up, agent = bundle.records
    value = json.loads(api.stdout.read())
    assert value["metadata"]["name"] == resolv.place.pod == "pod-1"
    assert value["metadata"]["namespace"] == resolv.place.namespace == "namespace-1"
    assert value["metadata"]["labels"] == {"team": "label-1", "v": "1"}
    assert value["metadata"]["ownerReferences"][0]["name"] == "object-1-rs1"
    assert look_up.argv == ("resolve", "domain-2.invalid")
    assert agent.place == agent_place("node-1")
    assert agent.error == "no agent on node-1"
    assert agent.denied == "create pods/exec in namespace namespace-1"
    assert agent.kept == (look_up.stdout.read().decode().strip(),)
