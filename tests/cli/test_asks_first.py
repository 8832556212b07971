"""`path` on a terminal, whole, where no agent answers: it deploys node pods if the user says so.

The terminal is a real pseudo-terminal, the cluster a FAKE one, whose node pods answer nothing;
deployments on a real one are in tests/lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator

import pytest

from kubectl_ebpfnet.cluster.nodepods.manifest import DEFAULT_IMAGE
from kubectl_ebpfnet.model.node_pods import ANY_IMAGE, EXAMPLE_IMAGE
from tests.cli.console import KUBECTL, PROGRAM, environment, run_process
from tests.cluster.fake_api_server import ExecEnd, FakeApiServer, exited, status_reply
from tests.cluster.fake_cluster import RUNNING, FakeCluster, waiting
from tests.cluster.node_sessions import OURS, answer, requests, session_words

QUESTION = "no Cilium agent runs there: deploy a node pod on n1 (image"
ASKED = f"N{QUESTION[1:]}"
DEPLOYS = f"{QUESTION.replace('deploy', 'deploying')}"


def answers_nothing(end: ExecEnd) -> None:
    """A node side that knows nothing, and pods without a shell."""
    if session_words(end.argv) is None:
        end.end(exited(127))
        return
    bare = ({"id": each["id"], "bytes": 0, "exit_code": 1} for each in requests(end))
    answer(end, OURS, *bare)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A pod on a node, and no agent."""
    server = FakeApiServer()
    one = FakeCluster(server)
    one.node("n1")
    one.objects["/api/v1/nodes/n1"]["metadata"] = {"name": "n1"}
    one.objects["/api/v1/namespaces/default/pods/client"] = {
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "node"}]},
        "status": {**RUNNING, "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]},
    }
    server.program = answers_nothing
    yield one
    server.close()


def words(cluster: FakeCluster, *more: str) -> list[str]:
    return ["path", "pod/client", "1.1.1.1:80", f"--server={cluster.server.url}", *more]


def deployed(cluster: FakeCluster) -> list[str]:
    """Nodes of the pods that were created, which are all gone by now."""
    assert {path.split("/")[3] for path in cluster.objects} == {"nodes", "namespaces"}
    assert [each["metadata"]["name"] for each in cluster.below("pods")] == ["client"]
    assert cluster.below("namespaces") == []
    made = [json.loads(seen.body) for seen in cluster.server.seen if seen.method == "POST"]
    pods = [each for each in made if each["kind"] == "Pod"]
    affinity = [json.dumps(each["spec"]["affinity"]) for each in pods]
    return ["n1" if '"n1"' in each else each for each in affinity]


def typed(argv: list[str], keys: bytes, until: bytes = b"[y/N] ") -> tuple[int, str]:
    """Run a program on a terminal, and type when it has written what is waited for; exit code and
    what the terminal shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, environment(TERM="xterm", COLUMNS="100"))
    seen = b""
    with os.fdopen(terminal, "r+b", buffering=0) as one, contextlib.suppress(OSError):
        while until and not seen.endswith(until):
            seen += one.read(1000)
        one.write(keys)
        while more := one.read(1000):
            seen += more
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, seen.decode().replace("\r\n", "\n")


THROUGH = pytest.mark.parametrize(
    "program", [[PROGRAM], [KUBECTL, "ebpfnet"]], ids=["program", "kubectl"]
)


@THROUGH
def test_yes_deploys(cluster: FakeCluster, program: list[str]) -> None:
    code, shown = typed([*program, *words(cluster)], b"y\n")
    assert code == 4, shown
    assert ASKED in shown
    assert DEPLOYS in shown.partition("[y/N] y\n")[2]
    assert deployed(cluster) == ["n1"]


@THROUGH
@pytest.mark.parametrize(
    "keys", [b"n\n", b"\n", b"\x04", b"yellow\n"], ids=["n", "Enter", "Ctrl-D", "other"]
)
def test_all_else_deploys_nothing_and_the_rest_is_shown(
    cluster: FakeCluster, program: list[str], keys: bytes
) -> None:
    code, shown = typed([*program, *words(cluster)], keys)
    assert code == 4
    assert shown.count("[y/N]") == 1
    before, _, after = shown.partition("[y/N] ")
    assert ASKED in before
    assert after.partition("\n")[0] == keys.decode().strip("\n\x04")  # it ends the line
    assert "UNKNOWN" in after
    assert "no node pod: not wanted" in " ".join(after.split())
    assert deployed(cluster) == []


@THROUGH
def test_ctrl_c_at_the_question_ends_it(cluster: FakeCluster, program: list[str]) -> None:
    code, shown = typed([*program, *words(cluster)], b"\x03")
    assert code in (130, -signal.SIGINT)
    assert shown.partition("[y/N] ")[2] == "^C\nerror: interrupted\n"
    assert deployed(cluster) == []


@pytest.mark.parametrize("flags", [["--yes"], ["--node-access", "pod"]], ids=["yes", "pod"])
def test_a_flag_answers_it_on_a_terminal_and_without_one(
    cluster: FakeCluster, flags: list[str]
) -> None:
    code, shown = typed([PROGRAM, *words(cluster, *flags)], b"", until=b"")
    assert (code, "[y/N]" in shown) == (4, False)
    assert deployed(cluster) == ["n1"]
    done = run_process(*words(cluster, *flags))
    assert (done.returncode, "[y/N]" in done.stderr) == (4, False)
    assert deployed(cluster) == ["n1", "n1"]


@pytest.mark.parametrize("output", [[], ["-o", "json"]], ids=["table", "json"])
def test_without_a_terminal_nothing_is_deployed_and_both_flags_are_named(
    cluster: FakeCluster, output: list[str]
) -> None:
    done = run_process(*words(cluster, *output))
    assert done.returncode == 4
    assert "[y/N]" not in done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    why = "there is no terminal to ask on; --yes or --node-access pod deploys node pods"
    assert why in said
    assert deployed(cluster) == []


@pytest.mark.parametrize(
    "command",
    [["path", "pod/client", "1.1.1.1:80"], ["flows", "pod/client"], ["programs", "node/n1"],
     ["netkat", "node/n1", "1.1.1.1", "80"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_an_image_that_cannot_be_pulled_is_told_with_one_that_will_do(
    cluster: FakeCluster, command: list[str]
) -> None:
    """No release is out: nobody can pull the image that is asked for where no flag names one."""
    cluster.pod_status = lambda _: waiting("ErrImagePull", "not found")
    name, *rest = command
    yes = [] if name == "netkat" else ["--yes"]
    done = run_process(name, f"--server={cluster.server.url}", *yes, *rest)
    said = " ".join(f"{done.stdout}\n{done.stderr}".split())
    told = said.split(f"node n1 cannot pull the image {DEFAULT_IMAGE}: ErrImagePull: not found; ")
    assert len(told) > 1, said
    assert all(each.startswith(ANY_IMAGE) for each in told[1:])
    if name == "path":
        fix = said.partition("Fix ")[2]
        assert fix.startswith("Name an image that the nodes can pull. kubectl ebpfnet path ")
        assert fix.partition(" --node-access pod --image ")[2].startswith(EXAMPLE_IMAGE)
    assert deployed(cluster) == ["n1"]


@pytest.mark.parametrize("name", ["path", "flows"])
def test_admission_that_refuses_is_told_with_its_words_and_what_remains(
    cluster: FakeCluster, name: str
) -> None:
    rule = 'pods "node-1" is forbidden: violates PodSecurity "baseline:latest": host namespaces'
    cluster.refuses = lambda seen: (
        status_reply(403, "Forbidden", rule)
        if (seen.method, seen.path.rpartition("/")[2]) == ("POST", "pods")
        else None
    )
    to = ["1.1.1.1:80"] if name == "path" else []
    done = run_process(name, "pod/client", *to, f"--server={cluster.server.url}", "--yes")
    said = " ".join(f"{done.stdout}\n{done.stderr}".split())
    assert f"no node pod: Pod Security refuses it: {rule}" in said
    assert done.stderr.count("hint: RBAC allows it. Without node pods, --node-access agent") == 1
    if name == "path":
        assert "Have node pods installed by who may. kubectl ebpfnet node-pods" in said


@pytest.mark.parametrize(
    ("ready", "flags", "advised"),
    [(False, ["--yes"], False), (True, [], True)],
    ids=["it cannot be had", "nobody was asked"],
)
def test_node_pods_are_advised_unless_there_can_be_none(
    cluster: FakeCluster, ready: bool, flags: list[str], advised: bool
) -> None:
    cluster.objects["/api/v1/nodes/n1"]["status"]["conditions"][0]["status"] = str(ready)
    done = run_process(*words(cluster, *flags))
    assert done.returncode == 4
    assert (
        "no node pod can start on n1: not Ready since " in " ".join(done.stdout.split())
    ) != ready
    assert ("Let node pods read the nodes." in done.stdout) is advised
    assert deployed(cluster) == []


def test_it_asks_where_the_answer_goes_to_a_pipe(cluster: FakeCluster) -> None:
    """stdin and stderr are the terminal: `path -o json | jq` is asked, and jq reads JSON alone."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, *words(cluster, "-o", "json")],
        env=environment(TERM="xterm"), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while not seen.endswith(b"[y/N] "):
            seen += os.read(ours, 1000)
        os.write(ours, b"n\n")
        out, _ = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 4
    assert "no node pod: not wanted" in json.dumps(json.loads(out))
    assert deployed(cluster) == []
