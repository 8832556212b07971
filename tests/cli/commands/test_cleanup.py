"""`cleanup` against a fake cluster: what it says, its exit codes. A real one is in tests/lab."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.cli.console import run
from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen, status_reply
from tests.cluster.fake_cluster import RUNNING, FakeCluster

LABELS = {"app.kubernetes.io/managed-by": "kubectl-ebpfnet", "ebpfnet.dev/version": "0.1.0"}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    server = FakeApiServer()
    yield FakeCluster(server)
    server.close()


def leave(
    cluster: FakeCluster, run: str, who: str = "sre@laptop", seconds: float = 3 * 3600
) -> str:
    """What a run left: a namespace of 3 hours with a pod in it; its path."""
    name = f"ebpfnet-{run}"
    labels = {**LABELS, "ebpfnet.dev/run": run}
    notes = {"ebpfnet.dev/started-by": who, "ebpfnet.dev/lifetime-seconds": "600"}
    path = f"/api/v1/namespaces/{name}"
    cluster.objects[path] = {
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "annotations": notes},
    }
    cluster.objects[f"{path}/pods/node-1"] = {
        "kind": "Pod",
        "metadata": {"name": "node-1", "namespace": name, "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": RUNNING,
    }
    cluster.age(path, seconds)
    return path


def cleanup(cluster: FakeCluster, *words: str):
    return run("cleanup", f"--server={cluster.server.url}", *words)


def test_it_removes_all_and_says_what(cluster):
    leave(cluster, "0a1b2c3d")
    leave(cluster, "deadbeef", who="")
    done = cleanup(cluster)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "namespace/ebpfnet-0a1b2c3d (node pods: 1, 3h old, by sre@laptop) removed\n"
        "namespace/ebpfnet-deadbeef (node pods: 1, 3h old) removed\n"
    )
    assert cluster.objects == {}
    done = cleanup(cluster)
    assert (done.returncode, done.stdout) == (0, "No leftovers of any run found.\n")


def test_a_dry_run_touches_nothing(cluster):
    leave(cluster, "0a1b2c3d")
    before = dict(cluster.objects)
    done = cleanup(cluster, "--dry-run=client")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("by sre@laptop) removed (dry run)\n")
    assert cluster.objects == before
    assert cluster.asked("DELETE") == []


def test_one_run_alone(cluster):
    leave(cluster, "0a1b2c3d")
    other = leave(cluster, "deadbeef")
    assert cleanup(cluster, "ebpfnet-0a1b2c3d").returncode == 0
    assert list(cluster.objects) == [other, f"{other}/pods/node-1"]
    done = cleanup(cluster, "default")
    assert (done.returncode, done.stdout) == (
        0, "No leftovers of any run found in namespace default.\n",
    )  # fmt: skip


def test_what_a_run_may_still_use_stays_without_a_yes(cluster):
    leave(cluster, "0a1b2c3d")
    live = leave(cluster, "deadbeef", seconds=60)
    done = cleanup(cluster)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first.endswith(") removed")
    assert "not removed: its time is not over" in second
    assert "--yes removes it" in second
    assert list(cluster.objects) == [live, f"{live}/pods/node-1"]
    assert cleanup(cluster, "--yes").returncode == 0
    assert cluster.objects == {}


def test_a_run_that_is_named_is_removed(cluster):
    leave(cluster, "deadbeef", seconds=60)
    assert cleanup(cluster, "ebpfnet-deadbeef").returncode == 0
    assert cluster.objects == {}


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 1)])
def test_a_terminal_is_asked(cluster, monkeypatch, answer, code):
    questions = []
    monkeypatch.setattr(
        "kubectl_ebpfnet.cli.removal.confirmed", lambda text: (questions.append(text), answer)[1]
    )
    leave(cluster, "deadbeef", seconds=60)
    done = cleanup(cluster)
    assert done.returncode == code
    assert bool(cluster.objects) is not answer
    [question] = questions
    assert question.startswith("namespace/ebpfnet-deadbeef, by sre@laptop: its time is not over")
    assert ("not removed: not wanted" in done.stdout) is not answer


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_for_programs(cluster, form, load):
    leave(cluster, "0a1b2c3d")
    done = cleanup(cluster, "-o", form)
    document = load(done.stdout)
    [item] = document.pop("items")
    assert document == {"schema": "ebpfnet.dev/cleanup/v1", "dry_run": False}
    assert 3 * 3600 <= item.pop("age") < 3 * 3600 + 60
    assert item == {
        "kind": "namespace",
        "namespace": "",
        "name": "ebpfnet-0a1b2c3d",
        "run": "0a1b2c3d",
        "expired": True,
        "version": "0.1.0",
        "who": "sre@laptop",
        "pods": ["node-1"],
        "leaving": False,
        "removed": True,
        "unconfirmed": [],
        "error": "",
    }


def test_what_cannot_be_removed_does_not_stop_the_rest(cluster):
    stays = leave(cluster, "0a1b2c3d")
    leave(cluster, "deadbeef")

    def refuses(seen: Seen) -> Reply | None:
        if (seen.method, seen.path) == ("DELETE", stays):
            return status_reply(403, "Forbidden", "no")
        return None

    cluster.refuses = refuses
    done = cleanup(cluster)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert "not removed: this user may not delete namespaces; a ClusterRole with verb" in first
    assert "--print-rbac=deploy" in first
    assert second.endswith(" removed")
    assert list(cluster.objects) == [stays]


def test_hostile_text_of_a_cluster_is_made_visible(cluster):
    leave(cluster, "0a1b2c3d", who="\x1b[2Jsre")
    assert "\x1b" not in cleanup(cluster).stdout


def test_words_that_it_does_not_know(cluster):
    done = cleanup(cluster, "-o", "wide")
    assert (done.returncode, done.stdout) == (2, "")
    assert "-o 'wide': no such format" in done.stderr


@pytest.mark.parametrize("word", ["--dry-run", "--dry-run=true"])
def test_the_old_form_of_a_dry_run_works_and_says_so(cluster, word):
    leave(cluster, "0a1b2c3d")
    done = cleanup(cluster, word)
    assert done.stdout.endswith(" removed (dry run)\n")
    assert done.stderr.startswith(f"{word} is deprecated")
    assert done.stderr.endswith("can be replaced with --dry-run=client.\n")
    assert cluster.objects


def test_the_server_may_be_asked_in_a_dry_run(cluster):
    stays = leave(cluster, "0a1b2c3d")
    leave(cluster, "deadbeef", seconds=60)
    before = dict(cluster.objects)
    cluster.refuses = lambda seen: (
        status_reply(403, "Forbidden", "no")
        if (seen.method, seen.path) == ("DELETE", stays)
        else None
    )
    done = cleanup(cluster, "--dry-run=server")
    first, second = done.stdout.splitlines()
    assert done.returncode == 1
    assert "not removed: this user may not delete namespaces" in first
    assert second.endswith(" removed (server dry run)")
    assert cluster.objects == before
    deletions = [seen for seen in cluster.server.seen if seen.method == "DELETE"]
    assert [seen.parameters("dryRun") for seen in deletions] == [["All"], ["All"]]


def test_no_dry_run_is_the_default(cluster):
    leave(cluster, "0a1b2c3d")
    assert cleanup(cluster, "--dry-run=none").stdout.endswith(" removed\n")
    assert cluster.objects == {}
