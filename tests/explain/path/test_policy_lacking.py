"""Which rule to add for a packet that no rule allows, where the other end is the API server."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from kubectl_ebpfnet.capture.demo import open_demo
from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.evidence import InMemory, Record, bundle_of
from kubectl_ebpfnet.model.path import Fix


def fix_to(destination: str, *egress: dict[str, Any]) -> Fix:
    """What is proposed to the demo's client, whose one policy has these rules."""

    def changed(record: Record) -> Record:
        if record.argv != ("get", "ciliumnetworkpolicies", "-A"):
            return record
        value = json.loads(record.stdout.read())
        value["items"][0]["spec"]["egress"] = list(egress)
        return replace(record, stdout=InMemory(json.dumps(value).encode()))

    bundle = bundle_of(map(changed, open_demo("demo").records), "demo")
    there = arguments.destination(destination)
    request = arguments.request(arguments.source("pod/client"), there, 6, "default", "")
    fix = explain(request, bundle).fix
    assert fix is not None
    return fix


def rule(**peers: Any) -> dict[str, Any]:
    return {**peers, "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}


def test_the_api_servers_port_is_not_opened_to_the_whole_world() -> None:
    """It is outside of the demo's cluster: its labels are kube-apiserver and world."""
    for wide in (rule(toEntities=["world"]), rule()):
        assert fix_to("svc/kubernetes", wide).text == (
            "If it may pass, add a rule that allows 6443/TCP to 172.31.7.1 by toEntities "
            "kube-apiserver to CiliumNetworkPolicy default/client-egress."
        )


def test_a_rule_of_its_own_address_takes_the_port() -> None:
    fix = fix_to("svc/kubernetes", rule(toCIDR=["172.31.7.1/32"]))
    assert fix.text.startswith("If it may pass, add 6443/TCP to egress[0] of")


def test_a_port_of_the_world_is_added_to_the_rule_of_the_world() -> None:
    fix = fix_to("1.1.1.1:7777", rule(toEntities=["world"]))
    assert fix.text.startswith("If it may pass, add 7777/TCP to egress[0] of")
