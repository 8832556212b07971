"""kubectl's flags on the wire, and what a cluster refuses, as a person sees it.

The cluster is a fake API server (tests/cluster/fake_api_server.py); a real one is in tests/lab.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.console import run, run_process, through_kubectl
from tests.cluster.fake_api_server import FakeApiServer, Reply, status_reply

POD = "/api/v1/namespaces/shop/pods/client"


@pytest.fixture
def fake() -> Iterator[FakeApiServer]:
    server = FakeApiServer()
    yield server
    server.close()


def path(fake: FakeApiServer, *words: str, how=run):
    return how("path", "pod/client", "1.1.1.1:80", "-n", "shop", f"--server={fake.url}", *words)


def test_flags_reach_the_server(fake):
    done = path(
        fake,
        "--token=secret",
        "--as=sre",
        "--as-group",
        "one",
        "--as-group=two",
        "--as-uid=7",
        "--as-user-extra=scopes=dev",
        how=through_kubectl,
    )
    assert (done.returncode, done.stdout) == (1, "")
    seen = next(seen for seen in fake.seen if seen.path == POD)
    assert seen.values("Authorization") == ["Bearer secret"]
    assert seen.values("Impersonate-User") == ["sre"]
    assert seen.values("Impersonate-Group") == ["one", "two"]
    assert seen.values("Impersonate-Uid") == ["7"]
    assert seen.values("Impersonate-Extra-scopes") == ["dev"]
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (
            status_reply(404, "NotFound", 'pods "client" not found', name="client", kind="pods"),
            'pod "client" not found in namespace shop',
        ),
        (
            status_reply(403, "Forbidden", 'pods "client" is forbidden: no', kind="pods"),
            "this user may not get pods in namespace shop\nhint: a Role",
        ),
        (status_reply(401, "Unauthorized", "Unauthorized"), "error: "),
        (status_reply(500, "InternalError", "etcd is away"), "etcd is away"),
        (Reply(200, b"<html>a proxy's log-in page</html>"), "error: "),
    ],
)
def test_what_a_server_refuses(fake, reply, says):
    fake.routes[POD] = reply
    done = path(fake)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pod_that_is_pending_is_an_answer(fake):
    fake.routes[POD] = Reply(
        body={
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": "shop"},
            "spec": {"containers": [{"name": "main"}]},
            "status": {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                ],
            },
        }
    )
    done = path(fake)
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout.startswith("UNKNOWN    pod/client → 1.1.1.1:80/TCP\n")
    assert "Pending" in done.stdout.splitlines()[1]


def test_capture_keeps_a_file_that_is_there(tmp_path: Path, fake):
    there = tmp_path / "case.zip"
    there.write_bytes(b"precious")
    done = run("capture", "-o", str(there), f"--server={fake.url}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is there already" in done.stderr
    assert "--force" in done.stderr
    assert there.read_bytes() == b"precious"


def test_capture_and_read_it_again(tmp_path: Path, fake):
    """Nothing answers but the pod: the rest is in the file as what could not be had."""
    fake.routes[POD] = Reply(
        body={
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": "shop"},
            "spec": {"containers": [{"name": "main"}], "nodeName": "n1"},
            "status": {"phase": "Pending"},
        }
    )
    file = tmp_path / "case.zip"
    words = ("pod/client", "-n=shop", f"--server={fake.url}", "--node-access", "agent")
    done = run("capture", "-o", str(file), *words)
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(
        rf"wrote {file} \(\d+ records, \d+ KB\). Read it with: "
        rf"kubectl ebpfnet path -n shop pod/client … --from {file}\n",
        done.stderr,
    )
    assert [f.name for f in tmp_path.iterdir()] == ["case.zip"]
    again = run("path", "pod/client", "1.1.1.1", "-n", "shop", "--from", str(file))
    assert again.returncode == 4, again
    assert again.stdout.startswith("UNKNOWN ")


@pytest.fixture
def empty(fake: FakeApiServer) -> FakeApiServer:
    """A cluster without nodes."""
    fake.routes["/api/v1/nodes"] = Reply(body={"kind": "NodeList", "items": []})
    return fake


def test_capture_gives_the_file_a_name(tmp_path: Path, empty, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("capture", f"--server={empty.url}", "--node-access=none", "--timeout=5s")
    done = run(*words)
    [file] = tmp_path.iterdir()
    assert re.fullmatch(r"capture-\d{8}-\d{6}\.zip", file.name)
    assert done.stderr.endswith(f"Read it with: kubectl ebpfnet path … --from {file.name}\n")


def test_the_old_name_of_the_flag_works_and_says_so(tmp_path: Path, empty):
    file = tmp_path / "case.zip"
    done = run("capture", "-f", str(file), f"--server={empty.url}", "--node-access=none")
    assert done.returncode == 0
    assert done.stderr.startswith("Flag --file has been deprecated, use -o: in kubectl -f is an i")
    assert file.exists()


def test_capture_to_stdout_is_read_from_stdin(tmp_path: Path, empty):
    ask = f"kubectl-ebpfnet capture -o - --server={empty.url} --node-access=none --timeout=5s"
    read = "kubectl-ebpfnet doctor --from - -o json"
    done = run_process("-c", f"{ask} | {read}", program=("sh",), env={"TMPDIR": str(tmp_path)})
    assert json.loads(done.stdout)["schema"] == "ebpfnet.dev/doctor/v1"
    assert "Read it with: kubectl ebpfnet path … --from -\n" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_node_pods_says_what_would_be_created(fake):
    words = ("-n", "shop", "--node-access=pod", "--dry-run=client")
    fake.routes[POD] = Reply(
        body={
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": "shop"},
            "spec": {"containers": [{"name": "main"}], "nodeName": "n1"},
            "status": {"phase": "Running", "podIP": "10.0.0.9"},
        }
    )
    fake.routes["/api/v1/nodes/n1"] = Reply(body={"kind": "Node", "metadata": {"name": "n1"}})
    done = path(fake, *words)
    assert done.returncode == 4
    namespace, pod = done.stderr.splitlines()
    assert re.fullmatch(r"namespace/ebpfnet-[0-9a-f]{8} created \(dry run\)", namespace)
    assert pod == "pod/node-1 created on n1 (dry run)"
    assert "no node pod is deployed" in done.stdout.replace("\n", " ")
    assert [seen for seen in fake.seen if seen.method == "POST"] == []
