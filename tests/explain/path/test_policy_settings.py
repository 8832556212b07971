"""Cilium's settings about policies: those that were read, and those that nobody read."""

from __future__ import annotations

import json

from kubectl_ebpfnet.explain.path.stages.policy_settings import around, enforcement
from kubectl_ebpfnet.explain.policy.party import Party
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import API, CLIENT, InMemory, Record, bundle_of

WEB = Party(frozenset({"k8s:app=web"}), namespace="shop")


def config_map(**data: str) -> Record:
    """cilium-config, with these settings."""
    settings = {name.replace("_", "-"): value for name, value in data.items()}
    value = {
        "apiVersion": "v1", "kind": "ConfigMap", "data": settings,
        "metadata": {"namespace": "kube-system", "name": "cilium-config"},
    }  # fmt: skip
    argv = ("get", "configmaps", "cilium-config", "-n", "kube-system")
    return Record(0, API, argv, 0, InMemory(json.dumps(value).encode()))


def view(*records: Record) -> ClusterView:
    return ClusterView(bundle_of(records))


def test_settings_that_are_not_said_have_cilium_s_defaults() -> None:
    read = enforcement(view(config_map(debug="false")), WEB)
    assert (read.mode, read.kubernetes, read.allow_localhost) == ("default", True, True)
    never = enforcement(view(config_map(enable_policy="Never", allow_localhost="policy")), WEB)
    assert (never.mode, never.allow_localhost) == ("never", False)


def test_settings_that_nobody_read_are_open() -> None:
    nothing = view()
    assert (enforcement(nothing, WEB).mode, enforcement(nothing, WEB).allow_localhost) == ("", None)
    assert around(nothing).nodes_by_cidr is None


def test_settings_of_the_datapath_alone_say_nothing_of_policies() -> None:
    said = Record(0, CLIENT, q.CONFIG_VIEW.read[0].argv, 0, InMemory(b"routing-mode     tunnel\n"))
    cluster = view(said)
    assert cluster.settings_record is not None
    assert enforcement(cluster, WEB).mode == ""
