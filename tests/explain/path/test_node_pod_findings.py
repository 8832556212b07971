"""What a node pod's facts alone can show across hops."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.kernel import Counter
from kubectl_ebpfnet.model.net import TCP
from kubectl_ebpfnet.model.path import PathRequest, Severity
from tests.explain.path.node_pod_bundle import NODE, answer, bundle, pod_object

REQUEST = PathRequest(
    source="pod/cart",
    source_kind="pod",
    source_namespace="shop",
    source_name="cart",
    destination="1.1.1.1",
    destination_kind="address",
    destination_address=ip_address("1.1.1.1"),
    port=80,
    protocol=TCP,
)


@pytest.mark.parametrize(
    ("count", "severity"), [(100, Severity.ERROR), (96, Severity.WARNING), (94, None)]
)
def test_a_full_conntrack_table_is_a_finding(count: int, severity: Severity | None) -> None:
    counters = answer(
        NODE,
        "counters",
        Counter("conntrack", "nf_conntrack_count", count),
        Counter("conntrack", "nf_conntrack_max", 100),
    )
    found = [
        finding
        for finding in explain(REQUEST, bundle(pod_object(), counters)).findings
        if "nf_conntrack of n1" in finding.title
    ]
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    for finding in found:
        assert f"holds {count} of at most 100" in finding.title
        assert finding.evidence[0].lines == (1, 2)
