"""Healthy but unusual configurations of Services, masquerading and encryption: none is an error."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Path
from kubectl_ebpfnet.parse.cilium import agent
from tests.explain.path.changed import SCENARIOS, VXLAN, ask, changed, say
from tests.explain.path.test_backends import CT, LB, SERVICES, STATUS, untracked
from tests.explain.path.variants import edit, json_edit

NAT = "cilium-dbg bpf nat list"


def errors(path: Path) -> list[str]:
    """Titles of the findings that say that something is broken."""
    return [finding.title for finding in path.findings if finding.severity == "error"]


def masquerading(**members: object) -> object:
    """Changes the agent's section about masquerading."""

    def change(value: object) -> None:
        assert isinstance(value, dict)
        value["masquerading"].update(members)

    return change


def masquerading_off() -> Bundle:
    """No masquerading: the network routes the pods' addresses, and the flow was answered."""
    return changed(
        VXLAN,
        json_edit("node2", STATUS, masquerading(enabled=False, enabledProtocols={})),  # type: ignore[arg-type]
        say("node2", NAT, ""),
    )


def spared_by_the_agent() -> Bundle:
    """ip-masq-agent spares the destination."""
    return changed(
        VXLAN,
        json_edit("node2", STATUS, masquerading(**{"ip-masq-agent": True})),  # type: ignore[arg-type]
        say("node2", "cilium-dbg bpf ipmasq list", "IP PREFIX/ADDRESS\n1.1.1.0/24\n"),
        say("node2", NAT, ""),
    )


def local_redirect() -> Bundle:
    """A CiliumLocalRedirectPolicy gives the ClusterIP another backend."""
    return changed(
        VXLAN,
        edit(
            "node2", LB, lambda text: text.replace("[ClusterIP, non-routable]", "[LocalRedirect]")
        ),
        edit("node2", SERVICES, lambda text: text.replace('"ClusterIP"', '"LocalRedirect"')),
        edit("node2", CT, untracked),
    )


def maglev_dsr() -> Bundle:
    """DSR with Maglev: the flags say so, nothing else differs for a pod."""
    return changed(
        VXLAN,
        edit("node2", LB, lambda text: text.replace("non-routable]", "non-routable, dsr]")),
        edit("node2", STATUS, lambda text: text.replace('"SNAT"', '"DSR"')),
    )


@pytest.mark.parametrize(
    ("bundle", "destination"),
    [
        (masquerading_off(), "1.1.1.1:80"),
        (spared_by_the_agent(), "1.1.1.1:80"),
        (local_redirect(), "svc/web:80"),
        (maglev_dsr(), "svc/web:80"),
    ],
    ids=["masquerading-off", "ip-masq-agent", "local-redirect", "maglev-dsr"],
)
def test_a_healthy_odd_cluster_has_no_error(bundle: Bundle, destination: str) -> None:
    path = ask(bundle, "client", destination)
    assert errors(path) == []
    assert path.verdict in ("delivered", "reachable", "leaves"), path.reason


@pytest.mark.parametrize(
    ("name", "destination"),
    [
        ("local-redirect-false-error", "10.96.0.10:53"),
        ("l7lb-called-no-backend", "203.0.113.50:80"),
        ("wireguard-unmentioned", "pod/web:8080"),
        ("which-of-several-addresses", "198.51.100.7:443"),
        ("hostport-on-the-receiving-node", "192.0.2.12:8126"),
        ("netkit-called-veth", "198.51.100.7:443"),
    ],
)
def test_a_healthy_report_has_no_error(name: str, destination: str) -> None:
    protocol = "udp" if destination.endswith(":53") else "tcp"
    path = ask(open_bundle(SCENARIOS / "reports" / name), "client", destination, protocol)
    assert errors(path) == []
    assert path.verdict != "dropped"


def test_the_masquerade_of_one_ip_version_says_nothing_of_the_other() -> None:
    """Only IPv4 is masqueraded; `enabledProtocols` tells which."""
    status = agent.status(
        b'{"masquerading": {"enabled": true, "mode": "BPF", "enabledProtocols": {"ipv4": true}}}'
    )
    assert (status.masquerading_of(4), status.masquerading_of(6)) == ("bpf", "disabled")
    old = agent.status(b'{"masquerading": {"enabled": true, "mode": "iptables"}}')
    assert (old.masquerading_of(4), old.masquerading_of(6)) == ("iptables", "iptables")
