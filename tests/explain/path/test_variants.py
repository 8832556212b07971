"""Other versions, ways of attaching programs and addresses, each told on a recorded cluster."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model.evidence import Bundle, bundle_of
from kubectl_ebpfnet.render.path.formats import render
from kubectl_ebpfnet.render.text.view import View
from tests.explain.path.changed import (
    NATIVE,
    POLICY,
    SCENARIOS,
    VXLAN,
    ask,
    changed,
    fail,
    swap,
    without,
)
from tests.explain.path.variants import as_cilium, edit, everywhere, json_edit, says, shown, told

# ruff: noqa: E501 -- what programs print in one line stays in one line here


@pytest.mark.parametrize("version", ["1.10", "1.14"])
@pytest.mark.parametrize(
    ("scenario", "destination"),
    [
        (VXLAN, "1.1.1.1:80"),
        (VXLAN, "9.9.9.9:80"),
        (VXLAN, "pod/web:8080"),
        (VXLAN, "svc/web:80"),
        (VXLAN, "172.30.0.12:32479"),
        (POLICY, "1.1.1.1:443"),
        (NATIVE, "1.1.1.1:80"),
        (NATIVE, "svc/web"),
    ],
)
def test_older_forms_of_the_same_facts_give_the_same_hops(
    version: str, scenario: str, destination: str
) -> None:
    """Every table of the agent in the text of that version, by the name `cilium`."""
    now = ask(changed(scenario), "client", destination)
    then = ask(as_cilium(version, scenario), "client", destination)
    assert [told(hop) for hop in then.hops] == [told(hop) for hop in now.hops]
    assert (then.verdict, then.reason) == (now.verdict, now.reason)
    assert [f.title for f in then.findings] == [f.title for f in now.findings]


def by_clsact(text: str) -> str:
    """bpftool's form of a legacy filter: another kind and id, the device in the name."""
    value = json.loads(text)
    for row in value[0]["tc"]:
        row["kind"] = row["kind"].replace("tcx", "clsact")
        row["name"] += f"-{row['devname']}"
        row["id"] = row.pop("prog_id")
        for name in ("link_id", "link_flags", "prog_flags"):
            del row[name]
    return json.dumps(value)


def test_programs_attached_by_clsact() -> None:
    bundle = changed(
        VXLAN,
        edit("node2", "bpftool -j net show", by_clsact),
        edit("node2", "bpftool -j link show", lambda text: "[]"),
        without("node2", "ls -R /sys/fs/bpf"),
    )
    programs = shown(ask(bundle, "client", "1.1.1.1:80"), "program")
    assert "cil_from_container (clsact/ingress, id 2205, tag" in programs[0]
    assert "what leaves the pod" in programs[0]
    assert "cil_to_netdev (clsact/egress" in programs[1]


def test_programs_attached_by_netkit() -> None:
    """What leaves the pod is at the peer hook of the host side device (cilium-facts 4.1)."""
    row = '"devname":"lxcca1c984e26ef","ifindex":13,"kind":"tcx/ingress"'
    bundle = changed(
        VXLAN, swap("node2", "bpftool -j net show", row, row.replace("tcx/ingress", "netkit/peer"))
    )
    path = ask(bundle, "client", "9.9.9.9:80")
    (hop,) = [hop for hop in path.hops if hop.where == "lxcca1c984e26ef" and hop.kind == "program"]
    assert "cil_from_container (netkit/peer, id 2205" in hop.summary
    assert says(bundle, hop.evidence, "netkit/peer")


def test_endpoint_routes_lead_past_cilium_host() -> None:
    """enable-endpoint-routes: a route to the pod's own device, and a program at its egress."""

    def on(value: dict[str, dict[str, str]]) -> None:
        value["data"]["enable-endpoint-routes"] = "true"

    def route(routes: list[dict[str, object]]) -> None:
        routes.insert(0, {"dst": "10.244.0.251", "dev": "lxc454044f1d690", "scope": "link"})

    def program(value: list[dict[str, list[dict[str, object]]]]) -> None:
        value[0]["tc"].append(
            {"devname": "lxc454044f1d690", "ifindex": 12, "kind": "tcx/egress",
             "name": "cil_to_container", "prog_id": 2999, "link_id": 300}
        )  # fmt: skip

    bundle = changed(
        NATIVE,
        json_edit("api", "get cilium-config", on),
        json_edit("node1", "ip -j route show table all", route),
        json_edit("node1", "bpftool -j net show", program),
    )
    path = ask(bundle, "client", "pod/web:8080")
    assert path.verdict.let_through
    assert shown(path, "route", "node1") == ["10.244.0.251/32 dev lxc454044f1d690"]
    assert "cil_to_container (tcx/egress" in shown(path, "program", "node1")[-1]
    assert not any(hop.where == "cilium_host" for hop in path.hops)


TO_IPV6 = (
    ("10.244.1.53/32", "fd00:10:1::35/128"), ("10.244.0.251/32", "fd00:10::fb/128"),
    ("10.244.1.114/32", "fd00:10:1::72/128"), ("10.244.0.180/32", "fd00:10::b4/128"),
    ("10.244.1.53", "fd00:10:1::35"), ("10.244.0.251", "fd00:10::fb"),
    ("10.244.1.114", "fd00:10:1::72"), ("10.244.0.180", "fd00:10::b4"),
    ("10.244.0.0/24", "fd00:10::/64"), ("10.244.1.0/24", "fd00:10:1::/64"),
    ("10.244.0.0/16", "fd00:10::/32"), ("172.30.0.11", "fd00:30::b"),
    ("172.30.0.12", "fd00:30::c"), ('"ipv4":', '"ipv6":'), ('"family":"inet"', '"family":"inet6"'),
    ("    inet ", "    inet6 "), ('"prefixlen":32', '"prefixlen":128'),
)  # fmt: skip


def in_ipv6() -> Bundle:
    """The native cluster with IPv6 addresses in place of its own."""
    records = []
    for record in open_bundle(SCENARIOS / NATIVE).records:
        if record.command in ("ip6tables-save", "cat /proc/net/ipv6_route"):
            continue
        forms = {
            "ip route": ("ip", "-6", "route"),
            "ip -j rule": ("ip", "-j", "-6", "rule"),
            "iptables-save -c": ("ip6tables-save", "-c"),
        }
        here = everywhere(*TO_IPV6)(record)
        assert here is not None
        if record.place.pod or record.command != "ip route":
            here = replace(here, argv=forms.get(record.command, record.argv))
        records.append(here)
    return bundle_of(records, NATIVE)


def test_two_pods_that_speak_ipv6() -> None:
    path = ask(in_ipv6(), "client", "pod/web:8080")
    plain = ask(changed(NATIVE), "client", "pod/web:8080")
    assert [(h.kind, h.node, h.state) for h in path.hops] == [
        (h.kind, h.node, h.state) for h in plain.hops
    ]
    assert "gateway fd00:10:1::72 (cilium_host of node2)" in path.hops[0].summary
    assert shown(path, "route", "node2")[1] == "fd00:10::/64 via fd00:30::b dev eth0"
    assert str(path.hops[-1].packet.flow) == "TCP [fd00:10:1::35]:53954 → [fd00:10::fb]:8080"


HOSTILE = "\x1b]0;x\x07\u202e$(reboot)`'\"\\<b>|\u0000\r"


def test_hostile_words_in_what_the_cluster_says_are_words() -> None:
    """In labels, comments of rules, reasons and what stderr says; every form shows them escaped."""
    word = json.dumps(HOSTILE)[1:-1]
    bundle = changed(
        NATIVE,
        edit("node2", "iptables-save -c", lambda t: t.replace("cilium masquerade", HOSTILE.replace('"', ""))),
        edit("api", "get pods", lambda t: t.replace('"app": "web"', f'"app": "{word}"')),
        edit("node2", "cilium-dbg identity list -o json", lambda t: t.replace("k8s:app=web", f"k8s:app={word}")),
        edit("api", "get ciliumidentities", lambda t: t.replace('"web"', f'"{word}"')),
        fail("client", "ip route", HOSTILE),
    )  # fmt: skip
    for destination in ("1.1.1.1:80", "9.9.9.9:1", "pod/web:8080", "svc/web"):
        path = ask(bundle, "client", destination)
        for form in ("table", "wide", "mermaid", "dot", "html"):
            text = render(path, bundle, form, View(width=0, color=False, evidence=True))
            assert not {"\x1b", "\x07", "\u202e", "\u0000", "\r"} & set(text), form
            assert form != "html" or "<script" not in text
        assert json.loads(render(path, bundle, "json", View()))["verdict"] == path.verdict
