"""One verdict of all nodes that a client outside may enter by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_ebpfnet.explain.path import outside
from kubectl_ebpfnet.explain.views.cluster import ClusterView
from kubectl_ebpfnet.model.evidence import API, Record
from kubectl_ebpfnet.model.path import Drop, Fix, Path, Severity, Verdict
from tests.explain.lb.lb_bundle import cluster, endpoint, node, service
from tests.explain.path.test_entrance import asked, leased
from tests.render.path import sample_paths as sample

THROUGH = replace(sample.delivered(), verdict=Verdict.REACHABLE, reason="let through", fix=None)
SEEN = replace(THROUGH, verdict=Verdict.DELIVERED, reason="it was answered")
LOST = replace(
    sample.dropped(), reason="dropped at hop 3: a rule", cause="somebody's rule", fix=Fix("Undo."),
    drop=Drop("derived", 3, "n1", "a rule"),
)  # fmt: skip
OPEN = replace(
    THROUGH, verdict=Verdict.UNKNOWN, reason="unknown at hop 2: a table", cause="a table", fix=None
)

DEPENDS = "it depends on the node that it enters by: "


def of(count: int = 0, **paths: Path) -> Path:
    """The answer where the nodes do this; `count` more nodes are not asked."""
    nodes = [node("n1") | {"metadata": {"name": name}} for name in paths]
    more = [node("n1") | {"metadata": {"name": f"z{n}"}} for n in range(count)]
    ends = (endpoint(name) | {"addresses": [f"10.1.0.{i}"]} for i, name in enumerate(paths, 1))
    view = ClusterView(cluster(service("Cluster"), *ends, nodes=(*nodes, *more)))
    return outside.explain(view, asked(), lambda name: paths.get(name, THROUGH))


@pytest.mark.parametrize(
    ("paths", "verdict", "reason", "shown"),
    [
        ({"n1": THROUGH, "n2": THROUGH}, "reachable",
         "by n1: let through; by n2 nothing stops it either", "n1"),
        ({"n1": THROUGH, "n2": SEEN}, "delivered",
         "by n2: it was answered; by n1 nothing stops it either", "n2"),
        ({"n1": LOST, "n2": LOST}, "dropped",
         "dropped by each of the 2 nodes; by n1 dropped at hop 3: a rule", "n1"),
        ({"n1": THROUGH, "n2": LOST}, "unknown",
         DEPENDS + "dropped by n2 (a rule), reachable by n1", "n2"),
        ({"n1": SEEN, "n2": LOST}, "unknown",
         DEPENDS + "dropped by n2 (a rule), delivered by n1", "n2"),
        ({"n1": THROUGH, "n2": OPEN}, "unknown",
         DEPENDS + "unknown by n2 (a table), reachable by n1", "n2"),
        ({"n1": OPEN, "n2": OPEN}, "unknown",
         "unknown by each of the 2 nodes; by n1: at hop 2: a table", "n1"),
        ({"n1": LOST, "n2": OPEN}, "unknown",
         DEPENDS + "dropped by n1 (a rule), unknown by n2 (a table)",
         "n1"),
    ],
)  # fmt: skip
def test_the_verdict_is_what_holds_for_every_node(
    paths: dict[str, Path], verdict: str, reason: str, shown: str
) -> None:
    path = of(**paths)
    assert (path.verdict, path.reason) == (verdict, reason)
    assert path.outside is not None
    assert path.outside.shown == shown
    assert [entry.node for entry in path.outside.entries] == list(paths)
    assert (path.drop is None) == (verdict != "dropped")
    mixed = LOST in paths.values() and bool({id(THROUGH), id(SEEN)} & set(map(id, paths.values())))
    errors = [f.title for f in path.findings if f.severity is Severity.ERROR]
    assert any("drops what others let through" in title for title in errors) == mixed
    assert (path.cause, path.fix) == (paths[shown].cause or path.cause, paths[shown].fix)


def test_a_drop_is_no_fault_where_health_checks_may_close_the_node() -> None:
    verb = "list endpointslices.discovery.k8s.io in namespace default"
    denied = Record(0, API, ("get", "endpointslices"), None, error="forbidden", denied=verb)
    view = ClusterView(cluster(service("Local"), more=(denied,)))
    paths = {"n1": THROUGH, "n2": LOST, "n3": LOST}
    path = outside.explain(view, asked(), lambda name: paths[name])
    differ = next(f for f in path.findings if "drops what others let through" in f.title)
    assert differ.severity is Severity.INFO
    assert path.fix is not None
    assert path.cause == f"which nodes the health checks close was not read ({verb})"
    assert path.fix.text == (
        f"Grant the permission that is missing: {verb} "
        "(tier agents, kubectl ebpfnet doctor --print-rbac=agents)."
    )


def test_one_node_alone_has_the_last_word() -> None:
    assert of(n1=LOST).reason == LOST.reason
    assert of(n1=LOST).verdict is Verdict.DROPPED


def test_nodes_that_were_not_asked_leave_it_open() -> None:
    names = [f"n{number}" for number in range(8)]
    lost = of(5, **dict.fromkeys(names, LOST))
    assert lost.verdict is Verdict.UNKNOWN
    assert lost.reason.endswith("5 more nodes were not asked")
    assert "dropped by each of the 8 nodes that were asked" in lost.reason
    through = of(5, **dict.fromkeys(names, THROUGH))
    assert through.verdict is Verdict.UNKNOWN
    assert "nothing stops it by any of the 8 nodes that were asked; by n0: " in through.reason
    assert through.reason.endswith("5 more nodes were not asked")
    assert through.fix is not None
    assert "--via node/NAME" in through.fix.text
    assert through.outside is not None
    assert through.outside.left_out == 5


def test_an_address_that_perhaps_nobody_announces_is_unknown_unless_it_was_answered() -> None:
    view = ClusterView(cluster(service("Cluster"), more=(leased(""),)))

    def by(path: Path) -> Path:
        return outside.explain(view, asked(), lambda _: path)

    through = by(THROUGH)
    assert through.verdict is Verdict.UNKNOWN
    assert through.reason == f"unknown: {through.cause}; by n1: let through"
    assert "nobody holds the lease" in through.cause
    assert through.fix is not None
    assert "CiliumL2AnnouncementPolicy" in through.fix.text
    assert by(SEEN).verdict is Verdict.DELIVERED
    assert by(LOST).verdict is Verdict.DROPPED
