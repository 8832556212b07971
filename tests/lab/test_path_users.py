"""`kubectl ebpfnet path` as users who may do all, what tier `agents` has, less, nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster.config import WORLD_ADDRESS
from tests.lab.cluster.tools.live import FETCH, Answer, objects, path
from tests.lab.conftest import Lab, wait_until

WORLD = f"{WORLD_ADDRESS}:80"
RBAC = "rbac.authorization.k8s.io"
READER = "e2e-reader"
"""A user who exists only by impersonation."""


def role(name: str, rules: list[dict[str, Any]], namespace: str = "") -> list[dict[str, Any]]:
    """A role and its binding to READER; of the whole cluster when no namespace is named."""
    kind, meta = ("Role", {"name": name, "namespace": namespace}) if namespace else (
        "ClusterRole", {"name": name}
    )  # fmt: skip
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": READER}],
        },
    ]


READS = [
    {"apiGroups": [""], "resources": ["pods", "nodes", "services"], "verbs": ["get", "list"]},
    {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["get", "list"],
    },
]
EXECS = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}]


@pytest.fixture
def reader(lab: Lab) -> Iterator[str]:
    """May read pods, nodes, services and their endpoints; may exec nowhere."""
    with objects(lab, *role("e2e-reader", READS)):
        may = ("auth", "can-i", "get", "pods", "--as", READER, "-n", "default")
        wait_until(lambda: lab.kubectl(*may).returncode == 0)
        yield READER


@pytest.fixture
def reader_of_pods(lab: Lab, reader: str) -> Iterator[str]:
    """The same, who may exec into pods of namespace default, so not into Cilium's agents."""
    with objects(lab, *role("e2e-exec", EXECS, "default")):
        may = (
            "auth",
            "can-i",
            "create",
            "pods",
            "--subresource=exec",
            "--as",
            READER,
            "-n",
            "default",
        )
        wait_until(lambda: lab.kubectl(*may).returncode == 0)
        yield reader


def shape(answer: Answer) -> list[tuple[str, ...]]:
    """What two runs must agree on, whatever the time between them did to ages."""
    parts = ("place", "where", "node", "kind", "state")
    return [tuple(str(hop[part]) for part in parts) for hop in answer.hops]


def stable_pair(lab: Lab, words: tuple[str, ...], theirs: Path) -> tuple[Answer, Answer]:
    """The answers of the admin and of another user. Entries of flows run out in between: where two
    of the admin's differ, the user's between them tells nothing, and all are asked again."""
    before = path(lab, *words)
    for _ in range(3):
        answer, after = path(lab, *words, kubeconfig=theirs), path(lab, *words)
        if (shape(before), before.titles) == (shape(after), after.titles):
            return after, answer
        before = after
    raise AssertionError(f"the admin's answers differ: {shape(before)}")


def test_what_the_tier_allows_is_enough(our_lab: Lab, sre: Path) -> None:
    # A flow that is answered: without, an agent with an old bpftool leaves node2's tcx undecided.
    web = our_lab.get("service", "web")["spec"]["clusterIP"]
    our_lab.run("client2", *FETCH, f"http://{web}/")
    for words in (("pod/client", WORLD), ("deploy/web", "pod/bare:8080"), ("client2", "svc/web")):
        admins, theirs = stable_pair(our_lab, words, sre)
        assert (theirs.code, theirs.verdict) == (admins.code, admins.verdict)
        assert admins.code == 0, admins.document["reason"]
        assert shape(theirs) == shape(admins)
        assert theirs.titles == admins.titles


def test_nobody_is_told_which_verb_is_missing(our_lab: Lab, nobody: Path) -> None:
    answer = path(our_lab, "pod/client", WORLD, kubeconfig=nobody)
    assert (answer.code, answer.document) == (1, {})
    assert 'verb "get" on "pods" in namespace default' in answer.stderr
    assert "--print-rbac=agents" in answer.stderr


def test_user_without_rights_by_impersonation(lab: Lab) -> None:
    answer = path(lab, "-n", "default", "pod/e2e-x", "192.0.2.1:80", "--as", "e2e-nobody")
    assert (answer.code, answer.document) == (1, {})
    assert 'verb "get" on "pods" in namespace default' in answer.stderr


def test_reads_but_may_not_exec(our_lab: Lab, reader: str) -> None:
    answer = path(our_lab, "pod/client", WORLD, "--as", reader)
    assert (answer.code, answer.verdict) == (4, "unknown")
    assert answer.document["source"]["address"]
    unknown = [hop for hop in answer.hops if hop["state"] == "unknown"]
    assert unknown
    assert "pods/exec" in answer.document["reason"] + answer.summaries()
    assert any("pods/exec" in f["title"] + f["detail"] for f in answer.document["findings"])


def test_may_exec_but_not_into_the_agent(our_lab: Lab, reader_of_pods: str) -> None:
    answer = path(our_lab, "pod/client", WORLD, "--as", reader_of_pods)
    assert (answer.code, answer.verdict) == (4, "unknown")
    own = [hop for hop in answer.hops if hop["place"] == "pod"]
    assert [hop["kind"] for hop in own][:2] == ["route", "neighbour"]
    assert own[1]["state"] == "observed"
    (finding,) = [f for f in answer.document["findings"] if "could not be asked" in f["title"]]
    said = finding["title"] + finding["detail"]
    assert "pods/exec" in said
    assert "kube-system" in said
