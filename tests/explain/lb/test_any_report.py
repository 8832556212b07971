"""Any cluster, any attempts: a report comes out, and its parts agree with each other."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import example, given
from hypothesis import strategies as st

from kubectl_ebpfnet.explain.lb.judge import judge
from kubectl_ebpfnet.model.evidence import Bundle
from kubectl_ebpfnet.model.path import Severity
from kubectl_ebpfnet.model.probe import (
    Answers,
    AttemptOutcome,
    Judgement,
    ProbeAttempt,
    ProbeReport,
    SourceFate,
)
from tests.explain.lb.lb_bundle import (
    ADDRESSES,
    KUBE_PROXY,
    REQUEST,
    attempt,
    by_udp,
    check,
    cilium,
    cluster,
    config,
    endpoint,
    node,
    pod,
    rules,
    service,
)

NAMES = tuple(ADDRESSES)[:3]
EXCLUDED = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}

flags = st.booleans()
ends = st.lists(
    st.builds(
        lambda name, host, ready, serving, terminating: endpoint(
            name, f"10.244.{name[1:]}.{host}",
            ready=ready, serving=serving, terminating=terminating,
        ),
        st.sampled_from(NAMES), st.integers(2, 4), flags, flags, flags,
    ),
    max_size=4,
)  # fmt: skip
specs = st.builds(
    lambda make, policy, ranges, publish: make(
        policy, loadBalancerSourceRanges=ranges, publishNotReadyAddresses=publish
    ),
    st.sampled_from([service, by_udp]),
    st.sampled_from(["Local", "Cluster"]),
    st.sampled_from([[], [], ["203.0.113.0/24"], ["192.0.2.12/32"], ["192.0.2.0/24"]]),
    flags,
)
nodes = st.tuples(*(
    st.builds(
        lambda ready, out, version, name=name: node(
            name, ready=ready, labels=EXCLUDED if out else {}, version=version
        ),
        st.sampled_from([True, True, True, False]), st.sampled_from([False, False, True]),
        st.sampled_from(["v1.20.2", "v1.24.0", "v1.31.2"]),
    )
    for name in NAMES
))  # fmt: skip
read = st.lists(
    st.builds(
        rules,
        st.sampled_from(NAMES),
        st.sampled_from(["local.node1", "local.node2", "cluster.node2"]),
    ),
    max_size=2,
    unique_by=lambda record: record.place,
)
bundles = st.builds(
    lambda web, found, machines, how, ready, more: cluster(
        web, *found, nodes=machines, pods=(pod("n1", ready=ready),), settings=how, more=tuple(more)
    ),
    specs,
    ends,
    nodes,
    st.sampled_from([KUBE_PROXY, cilium("snat"), cilium("dsr"), config()]),
    flags,
    read,
)
tries = st.lists(
    st.builds(
        attempt,
        st.sampled_from(NAMES),
        st.sampled_from(list(AttemptOutcome)),
        st.sampled_from(["preserved", "", *ADDRESSES.values(), "10.244.1.1", "203.0.113.9"]),
        backend=st.sampled_from([None, ip_address("10.244.1.2")]),
    ),
    max_size=5,
)
checks = st.lists(
    st.builds(check, st.sampled_from(NAMES), st.sampled_from([200, 503, None])), max_size=2
)


def of(bundle: Bundle, attempts: list[ProbeAttempt]) -> list[ProbeAttempt]:
    """The attempts, at what the bundle's Service has."""
    (target,) = judge(REQUEST, bundle).targets
    return [replace(one, target=target) for one in attempts]


def rows_agree(report: ProbeReport) -> None:
    """Each row's words follow from its parts."""
    for row in report.rows:
        wanted, counted = row.expected, row.endpoints
        assert wanted.why
        if wanted.answers is Answers.YES:
            local = counted.local or counted.local_terminating
            assert local if report.policy == "Local" else counted.total or counted.terminating
        if wanted.answers is Answers.NO:
            assert wanted.source is SourceFate.UNKNOWN
        elif report.policy == "Local" and wanted.answers is Answers.YES:
            assert wanted.source is SourceFate.PRESERVED
        assert 0 <= row.connected <= row.told <= len(row.attempts)
        assert (row.seconds is not None) == bool(row.connected)
        if row.judgement is Judgement.AS_ASKED:
            assert row.told


def contradictions_are_found(report: ProbeReport) -> None:
    """A contradiction has a finding, and there are no errors without one."""
    bad = {r.node for r in report.rows if r.judgement is Judgement.CONTRADICTED}
    for name in bad:
        assert any(f.title.startswith((f"{name} ", f"{name}:")) for f in report.findings)
    counted = [r for r in report.rows if not r.expected.excluded]
    worst = any(r.judgement is Judgement.CONTRADICTED for r in counted)
    assert (report.verdict is Judgement.CONTRADICTED) == worst
    serious = [f for f in report.findings if f.severity is not Severity.INFO]
    assert bool(serious) == worst


def proof_stands(report: ProbeReport, bundle: Bundle) -> None:
    """Evidence quotes lines that are there."""
    cited = [e for row in report.rows for e in row.evidence]
    cited += [e for finding in report.findings for e in finding.evidence]
    for item in cited:
        lines = bundle.numbered(item.record).stdout.read().decode().splitlines()
        assert all(0 < number <= len(lines) for number in item.lines)
        if item.lines:
            assert [lines[n - 1].strip()[:400] for n in item.lines] == list(item.excerpt)


THREE = tuple(node(name) for name in NAMES)
MASQUERADED = cluster(service("Cluster"), endpoint("n1", "10.244.1.2"), nodes=THREE)


@given(bundles, tries, checks)
@example(MASQUERADED, [attempt("n3"), attempt("n3", seen=ADDRESSES["n3"])], [])
def test_a_report_agrees_with_itself(bundle, attempts, answers) -> None:
    report = judge(REQUEST, bundle, of(bundle, attempts), answers)
    assert [row.node for row in report.rows] == list(NAMES)
    rows_agree(report)
    contradictions_are_found(report)
    proof_stands(report, bundle)


@given(bundles, tries)
def test_the_plan_is_what_is_expected_afterwards(bundle, attempts) -> None:
    planned = judge(REQUEST, bundle)
    assert planned.verdict is Judgement.UNKNOWN
    assert planned.findings == () or {f.severity for f in planned.findings} == {Severity.INFO}
    done = judge(REQUEST, bundle, of(bundle, attempts))
    assert [r.expected for r in planned.rows] == [r.expected for r in done.rows]


@given(bundles, tries, st.sampled_from(NAMES))
def test_attempts_may_come_in_any_order(bundle, attempts, sender) -> None:
    request, attempts = replace(REQUEST, from_node=sender), of(bundle, attempts)
    one = judge(request, bundle, attempts)
    other = judge(request, bundle, sorted(attempts, key=lambda a: (a.node, a.outcome)))
    assert one.verdict == other.verdict
    assert [r.judgement for r in one.rows] == [r.judgement for r in other.rows]
