"""Node pods against a fake cluster: created, waited for, refused, found, taken away."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cli.terminal import WatchEnded
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.session import Session
from kubectl_ebpfnet.cluster.nodepods import deployment as node_pods
from kubectl_ebpfnet.cluster.nodepods import leftovers as leftovers_module
from kubectl_ebpfnet.cluster.nodepods import status as node_pod_status
from kubectl_ebpfnet.cluster.nodepods.deployment import Deployment, NodePodOptions
from kubectl_ebpfnet.cluster.nodepods.installed import manifests
from kubectl_ebpfnet.cluster.nodepods.kept import find_node_pods
from kubectl_ebpfnet.cluster.nodepods.leftovers import leftovers, remove
from kubectl_ebpfnet.cluster.nodepods.listed import listed_node_pods
from kubectl_ebpfnet.errors import (
    ApiError,
    ApiUnreachable,
    ClusterError,
    Forbidden,
    NotFound,
    UsageError,
)
from kubectl_ebpfnet.model.node_pods import Origin
from kubectl_ebpfnet.model.protocol.node_side import own_digest
from tests.cluster.fake_api_server import FakeApiServer, Reply, Seen, status_reply
from tests.cluster.fake_cluster import RUNNING, FakeCluster, ended, unschedulable, waiting

NAMESPACES = "/api/v1/namespaces"
OURS = re.compile(r"/api/v1/namespaces/ebpfnet-[0-9a-f]{8}")


@pytest.fixture
def cluster(fake: FakeApiServer) -> FakeCluster:
    return FakeCluster(fake)


@pytest.fixture
def api(session: Session) -> Api:
    return Api(session)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def deploy(session: Session, said: list[str]) -> Callable[..., Deployment]:
    """`deploy(keep=True, …)`: a Deployment with these options."""
    return lambda **options: Deployment(session, NodePodOptions(**options), said.append)


def refuse(method: str, ending: str, reply: Reply) -> Callable[[Seen], Reply | None]:
    """Refuse the requests of a method whose path ends so."""
    return lambda seen: (
        reply if (seen.method, seen.path.endswith(ending)) == (method, True) else None
    )


def forbidden(message: str) -> Reply:
    return status_reply(403, "Forbidden", message)


# --- what is created ------------------------------------------------------------------------------


def test_a_run_makes_one_namespace_and_a_pod_a_node_and_takes_them_away(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1", "n2"])
        one, two = deployment.wait("n1", 5), deployment.wait("n2", 5)
        assert (one.node, two.node) == ("n1", "n2")
        assert one.container.namespace == two.container.namespace == deployment.run.namespace
        assert one.container != two.container
        assert len(cluster.below("namespaces")) == 1
        assert len(cluster.below("pods")) == 2
        assert all(OURS.match(path) for path in cluster.objects)
    assert cluster.objects == {}
    assert said == []


def test_more_nodes_join_the_same_namespace(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.start(["n1", "n2"])
        assert [deployment.wait(node, 5).node for node in ("n1", "n2")] == ["n1", "n2"]
        assert len(cluster.below("namespaces")) == 1
        assert len(cluster.below("pods")) == 2


def test_many_nodes_are_waited_for_with_few_requests(
    cluster: FakeCluster, deploy: Callable[..., Deployment], session: Session
) -> None:
    nodes = [f"n{number}" for number in range(100)]
    most, now, lock = 0, 0, threading.Lock()

    def counts(seen: Seen) -> Reply | None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        return None

    cluster.refuses = counts
    cluster.pod_status = lambda node: waiting("ContainerCreating")
    with deploy() as deployment:
        deployment.start(nodes)
        with ThreadPoolExecutor(100) as pool:
            pods = [pool.submit(deployment.wait, node, 20) for node in nodes]
            while len(cluster.below("pods")) < len(nodes):
                time.sleep(0.01)
            for pod in cluster.below("pods"):
                pod["status"] = RUNNING
            assert [each.result().node for each in pods] == nodes
        assert len({each.result().container for each in pods}) == len(nodes)
        # Far fewer than the hundred who wait.
        assert len(cluster.asked("GET")) < 40
    assert cluster.objects == {}
    assert most <= 18  # 16 creations, a list, the sweep


def test_the_namespace_says_whose_it_is_and_admits_privileged_pods(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    with deploy(seconds=90) as deployment:
        deployment.start([])
        [namespace] = cluster.below("namespaces")
    labels, notes = namespace["metadata"]["labels"], namespace["metadata"]["annotations"]
    assert labels == {
        "app.kubernetes.io/name": "ebpfnet",
        "app.kubernetes.io/managed-by": "kubectl-ebpfnet",
        "ebpfnet.dev/run": deployment.run.id,
        "ebpfnet.dev/version": __version__,
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/audit": "privileged",
        "pod-security.kubernetes.io/warn": "privileged",
    }
    assert namespace["metadata"]["name"] == f"ebpfnet-{deployment.run.id}"
    assert notes["ebpfnet.dev/started-by"].count("@") == 1
    started, expires = notes["ebpfnet.dev/started"], notes["ebpfnet.dev/expires"]
    span = datetime.fromisoformat(expires) - datetime.fromisoformat(started)
    assert span == timedelta(seconds=90)


def test_the_pod_asks_for_as_little_as_it_needs(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        [pod] = cluster.below("pods")
    spec = pod["spec"]
    [container] = spec["containers"]
    security = container["securityContext"]
    assert (spec["hostNetwork"], spec["hostPID"]) == (True, True)
    assert "hostIPC" not in spec
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] == 600
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert security["privileged"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(container["resources"]["requests"].values()) == {"0"}
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["image"] == f"ghcr.io/kubectl-ebpfnet/node:{__version__}"
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert list(mounts) == ["/sys/fs/bpf", "/run/ebpfnet", "/usr/local/sbin"]
    assert [mount.get("readOnly", False) for mount in mounts.values()] == [True, False, False]
    assert spec["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Mi"}
    assert pod["metadata"]["annotations"]["ebpfnet.dev/node-side"] == own_digest()
    assert [list(volume) for volume in spec["volumes"]] == [
        ["name", "hostPath"],
        ["name", "emptyDir"],
    ]
    assert pod["metadata"]["labels"]["ebpfnet.dev/run"] == deployment.run.id


def test_a_long_node_name_is_no_trouble(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    node = ".".join(["n" * 60] * 4)
    with deploy() as deployment:
        deployment.start([node])
        assert len(deployment.wait(node, 5).container.pod) < 63


# --- a pull secret --------------------------------------------------------------------------------

REGISTRY = {
    "kind": "Secret",
    "metadata": {"name": "registry", "namespace": "ops", "annotations": {"a": "b"}},
    "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "c2VjcmV0"},
}


@pytest.mark.parametrize("word", ["ops/registry", "registry"])
def test_a_pull_secret_is_copied_for_the_run(
    cluster: FakeCluster, fake: FakeApiServer, open_session: Callable[..., Session], word: str
) -> None:
    place = "ops" if "/" in word else "shop"
    cluster.objects[f"{NAMESPACES}/{place}/secrets/registry"] = REGISTRY
    session = open_session(server=fake.url, namespace="shop")
    said: list[str] = []
    with Deployment(session, NodePodOptions(pull_secret=word), said.append) as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        copy = cluster.objects[f"{NAMESPACES}/{deployment.run.namespace}/secrets/pull"]
        assert (copy["type"], copy["data"]) == (REGISTRY["type"], REGISTRY["data"])
        assert "annotations" not in copy["metadata"]
        [pod] = cluster.below("pods")
        assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert "c2VjcmV0" not in repr(deployment) + " ".join(said)


def test_no_other_secret_is_copied(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    path = f"{NAMESPACES}/ops/secrets/registry"
    cluster.objects[path] = {**REGISTRY, "type": "Opaque"}
    with (
        pytest.raises(ClusterError, match='secret "registry" is of type Opaque') as caught,
        deploy(pull_secret="ops/registry") as deployment,
    ):
        deployment.start(["n1"])
    assert "c2VjcmV0" not in str(caught.value)
    assert list(cluster.objects) == [path]
    with (
        pytest.raises(NotFound, match='secret "gone" not found in namespace ops'),
        deploy(pull_secret="ops/gone") as deployment,
    ):
        deployment.start(["n1"])


@pytest.mark.parametrize("word", ["a/b/c", "../kube-system/x", "A", "/x", "x?y"])
def test_what_cannot_be_a_secret(deploy: Callable[..., Deployment], word: str) -> None:
    with pytest.raises(UsageError, match="--image-pull-secret"):
        deploy(pull_secret=word)


# --- refusals -------------------------------------------------------------------------------------


def test_who_may_not_make_namespaces_is_told_the_verb(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    cluster.refuses = refuse(
        "POST", "/namespaces", forbidden('namespaces is forbidden: User "sre" cannot create')
    )
    with pytest.raises(Forbidden) as caught, deploy() as deployment:
        deployment.start(["n1"])
    assert (caught.value.verb, caught.value.resource) == ("create", "namespaces")
    assert said == []


def test_who_may_not_make_pods_is_told_the_verb_and_nothing_stays(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    message = 'pods "node-1" is forbidden: User "sre" cannot create resource "pods" in API group ""'
    cluster.refuses = refuse("POST", "/pods", forbidden(message))
    with deploy() as deployment:
        deployment.start(["n1"])
        with pytest.raises(Forbidden) as caught:
            deployment.wait("n1", 5)
    assert (caught.value.verb, caught.value.resource) == ("create", "pods")
    assert caught.value.namespace == deployment.run.namespace
    assert cluster.objects == {}


@pytest.mark.parametrize(
    "message",
    [
        'pods "node-1" is forbidden: violates PodSecurity "baseline:latest": host namespaces',
        'admission webhook "validate.kyverno.svc-fail" denied the request: no hostPID',
        'pods "node-1" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1',
        "pods is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
        "pods is forbidden: maximum memory usage per Container is 128Mi, but limit is 256Mi",
    ],
)
def test_a_policy_is_not_taken_for_a_missing_verb(
    cluster: FakeCluster, deploy: Callable[..., Deployment], message: str
) -> None:
    cluster.refuses = refuse("POST", "/pods", forbidden(message))
    with deploy() as deployment:
        deployment.start(["n1"])
        with pytest.raises(ApiError, match=re.escape(message)) as caught:
            deployment.wait("n1", 5)
    assert "RBAC allows it" in caught.value.hint
    assert "--node-access agent" in caught.value.hint


def test_where_the_priority_is_reserved_it_does_without(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    quota = (
        'pods "node-1" is forbidden: insufficient quota to match these scopes: '
        "[{PriorityClass In [system-node-critical system-cluster-critical]}]"
    )

    def refuses(seen: Seen) -> Reply | None:
        is_pod = seen.method == "POST" and seen.path.endswith("/pods")
        return forbidden(quota) if is_pod and b"priorityClassName" in seen.body else None

    cluster.refuses = refuses
    with deploy() as deployment:
        deployment.start(["n1"])
        assert deployment.wait("n1", 5).node == "n1"


def test_it_waits_for_the_account_of_the_new_namespace(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    left = [None, None]
    missing = forbidden(
        'pods "node-1" is forbidden: error looking up service account ebpfnet-1/default: '
        'serviceaccount "default" not found'
    )

    def refuses(seen: Seen) -> Reply | None:
        if seen.method == "POST" and seen.path.endswith("/pods") and left:
            left.pop()
            return missing
        return None

    cluster.refuses = refuses
    with deploy() as deployment:
        deployment.start(["n1"])
        assert deployment.wait("n1", 5).node == "n1"
    assert left == []


INSTALLED = "/api/v1/namespaces/ebpfnet"


def installed_pod(cluster: FakeCluster, node: str = "n1") -> dict[str, Any]:
    """A pod of the printed manifest, applied by somebody; it runs."""
    namespace, pod = manifests("ebpfnet", node, NodePodOptions())
    pod = json.loads(json.dumps(pod))
    pod["spec"]["nodeName"], pod["status"] = node, RUNNING
    pod["metadata"]["creationTimestamp"] = "2026-11-21T09:00:00Z"
    cluster.objects[INSTALLED] = json.loads(json.dumps({**namespace, "status": {}}))
    cluster.objects[f"{INSTALLED}/pods/{pod['metadata']['name']}"] = pod
    return pod


def test_an_installed_pod_is_used_and_stays(cluster: FakeCluster, api: Api) -> None:
    installed_pod(cluster)
    found = find_node_pods(api)
    assert [str(pod.container) for pod in found.values()] == ["ebpfnet/ebpfnet-n1 (node)"]
    assert leftovers(api) == []
    (listed,) = listed_node_pods(api, "default")
    assert (listed.origin, listed.problem, listed.node) == (Origin.INSTALLED, "", "n1")


def test_who_may_list_pods_in_its_namespace_alone_finds_it(cluster: FakeCluster, api: Api) -> None:
    installed_pod(cluster)
    cluster.refuses = lambda seen: (
        forbidden('pods is forbidden: User "u" cannot list resource "pods"')
        if seen.path in ("/api/v1/pods", "/api/v1/namespaces/ebpfnet")
        else None
    )
    assert list(find_node_pods(api, "default")) == ["n1"]
    assert [pod.name for pod in listed_node_pods(api, "default")] == ["ebpfnet-n1"]


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(hostNetwork=False),
        lambda spec: spec.pop("hostPID"),
        lambda spec: spec["containers"][0].update(name="other"),
        lambda spec: spec["containers"][0].pop("securityContext"),
        lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(
            add=["NET_ADMIN"]
        ),
    ],
)
def test_a_label_alone_makes_no_node_pod(
    cluster: FakeCluster, api: Api, change: Callable[[dict[str, Any]], object]
) -> None:
    """Whoever may label a pod must not be sent questions, nor answer them."""
    change(installed_pod(cluster)["spec"])
    assert find_node_pods(api) == {}
    (listed,) = listed_node_pods(api, "default")
    assert listed.problem == "it has the label of a node pod, but is not made as one"


def test_the_daemon_set_has_what_a_runs_pod_has_and_no_owner(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        [ours] = cluster.below("pods")
    (daemon_set,) = manifests("tools", "", NodePodOptions(pull_secret="registry"))
    assert daemon_set["metadata"]["namespace"] == "tools"
    template = daemon_set["spec"]["template"]
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    selected = daemon_set["spec"]["selector"]["matchLabels"].items()
    assert selected <= template["metadata"]["labels"].items()
    assert "app.kubernetes.io/managed-by" not in template["metadata"]["labels"]
    both = ours["spec"].keys() & template["spec"].keys() - {"containers"}
    assert {key: ours["spec"][key] for key in both} == {key: template["spec"][key] for key in both}
    [container], [other] = template["spec"]["containers"], ours["spec"]["containers"]
    del other["securityContext"]["appArmorProfile"]  # the annotation says it
    assert {**container, "command": other["command"]} == json.loads(json.dumps(other))
    assert container["command"][-1] == "0"  # it stays
    assert "activeDeadlineSeconds" not in template["spec"]


# --- pods that do not run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "says", "hint"),
    [
        (
            waiting("ErrImagePull", "rpc error: not found"),
            "node n1 cannot pull the image ghcr.io/kubectl-ebpfnet/node:"
            f"{__version__}: ErrImagePull: rpc error: not found",
            "python:3.13-slim",
        ),
        (waiting("InvalidImageName", "bad"), "InvalidImageName: bad", "--image"),
        (waiting("ImagePullBackOff", "Back-off"), "ImagePullBackOff: Back-off", "--image"),
        (waiting("ErrImageNeverPull"), "ErrImageNeverPull", "--image"),
        (
            unschedulable("0/2 nodes are available: 1 Too many pods."),
            "cannot be scheduled on n1: 0/2 nodes are available: 1 Too many pods.",
            "",
        ),
        (waiting("CreateContainerError", "no such device"), "cannot start: CreateContainerE", ""),
        # As containerd 1.6 and runc 1.1 say it.
        (
            ended(
                128,
                "StartError",
                "failed to create containerd task: failed to create shim task:"
                " OCI runtime create failed: runc create failed: unable to start container"
                ' process: exec: "python3": executable file not found in $PATH: unknown',
            ),
            f"node:{__version__} has no python3; the node side needs 3.11 or later",
            "--image python:3.13-slim",
        ),
        (
            ended(1, "Error", "its Python is 3.9, the node side needs 3.11 or later\n"),
            f"node:{__version__}: its Python is 3.9, the node side needs 3.11 or later",
            "python:3.13-slim",
        ),
        (
            ended(1, "Error", "exec /usr/bin/python3: exec format error"),
            f"node:{__version__} is not for the processor of node n1",
            "python:3.13-slim",
        ),
        (ended(137, "OOMKilled"), "on n1 has ended: OOMKilled, exit code 137", ""),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            "on n1 has ended: Evicted: The node was low on memory.",
            "",
        ),
    ],
)
def test_why_a_pod_never_runs(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    monkeypatch: pytest.MonkeyPatch,
    status: dict[str, object],
    says: str,
    hint: str,
) -> None:
    monkeypatch.setattr(node_pod_status, "_CONTAINER_SECONDS", 0.2)
    monkeypatch.setattr(node_pod_status, "_SCHEDULER_SECONDS", 0.2)
    cluster.pod_status = lambda node: status
    with deploy() as deployment:
        deployment.start(["n1"])
        with pytest.raises(ClusterError, match=re.escape(says)) as caught:
            deployment.wait("n1", 10)
        assert hint in caught.value.hint
    assert cluster.objects == {}


def test_while_the_scheduler_makes_room_it_waits(
    cluster: FakeCluster, deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_pod_status, "_SCHEDULER_SECONDS", 0.2)
    cluster.pod_status = lambda node: {**unschedulable("no room"), "nominatedNodeName": "n1"}
    with deploy() as deployment:
        deployment.start(["n1"])
        threading.Timer(0.7, lambda: cluster.below("pods")[0].update(status=RUNNING)).start()
        assert deployment.wait("n1", 10).node == "n1"


def test_a_node_that_is_not_ready_is_named(
    cluster: FakeCluster, deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_pods, "_NODE_SECONDS", 0.2)
    cluster.node("n1", ready=False)
    cluster.pod_status = lambda node: {"phase": "Pending"}
    with deploy() as deployment:
        deployment.start(["n1"])
        with pytest.raises(ClusterError, match="on n1: not Ready since 2026-11-21T09:00:00Z"):
            deployment.wait("n1", 10)


def test_a_pod_that_takes_too_long(cluster: FakeCluster, deploy: Callable[..., Deployment]) -> None:
    cluster.pod_status = lambda node: waiting("ContainerCreating")
    with deploy() as deployment:
        deployment.start(["n1"])
        with pytest.raises(ClusterError, match=r"n1 does not run in time: it is ContainerCreating"):
            deployment.wait("n1", 0.3)


def test_a_pod_that_somebody_deletes(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    cluster.pod_status = lambda node: waiting("ContainerCreating")
    with deploy() as deployment:
        deployment.start(["n1"])
        threading.Timer(
            0.3, lambda: [cluster.objects.pop(path) for path in list(cluster.objects)]
        ).start()
        with pytest.raises(ClusterError, match="on n1 was deleted during the run"):
            deployment.wait("n1", 10)
    assert said == []


# --- taking away ----------------------------------------------------------------------------------


def test_an_error_takes_everything_away(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    def run() -> None:
        with deploy() as deployment:
            deployment.start(["n1"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert cluster.objects == {}


def test_an_interrupt_while_the_namespace_is_being_made_leaves_nothing(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    came = threading.Event()

    def refuses(seen: Seen) -> Reply | None:
        if (seen.method, seen.path) == ("POST", NAMESPACES):
            came.set()
            time.sleep(0.5)  # a slow server: the interrupt comes before its answer
        return None

    cluster.refuses = refuses
    main = threading.main_thread().ident
    assert main is not None
    threading.Thread(
        target=lambda: came.wait(5) and signal.pthread_kill(main, signal.SIGINT)
    ).start()
    with pytest.raises(KeyboardInterrupt), deploy() as deployment:
        deployment.start(["n1"])
    assert cluster.asked("POST") == [NAMESPACES]
    assert cluster.objects == {}


@pytest.mark.parametrize("first", [None, KeyboardInterrupt])
def test_an_interrupt_during_the_removal_does_not_stop_it(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    said: list[str],
    first: type[BaseException] | None,
) -> None:
    came = threading.Event()

    def refuses(seen: Seen) -> Reply | None:
        if seen.method == "DELETE":
            came.set()
            time.sleep(0.5)
        return None

    cluster.refuses = refuses
    main = threading.main_thread().ident
    assert main is not None
    threading.Thread(
        target=lambda: came.wait(5) and signal.pthread_kill(main, signal.SIGINT)
    ).start()

    def run() -> None:
        with deploy() as deployment:
            deployment.start(["n1"])
            deployment.wait("n1", 5)
            if first is not None:
                raise first

    with pytest.raises(KeyboardInterrupt):
        run()
    assert cluster.objects == {}
    lead = "" if first is None else "interrupted: "
    assert said == [f"{lead}deleting node pods, up to 10 s"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_namespace_whose_creation_is_not_answered_is_named(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_pods, "_CREATION_SECONDS", 0.1)
    release = threading.Event()

    def hangs(seen: Seen) -> Reply | None:
        if seen.method == "POST":
            release.wait(20)
        return None

    cluster.refuses = hangs
    with deploy() as deployment, pytest.raises(ApiUnreachable, match="within"):
        deployment.start(["n1"], 0.1)
    release.set()
    [line] = said
    assert f"namespace {deployment.run.namespace} may be left" in line
    assert "has not answered its creation" in line


def test_an_api_server_that_is_gone_is_told_within_the_time(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leftovers_module, "GONE_SECONDS", 1.0)
    begin = 0.0

    def gone(seen: Seen) -> Reply | None:
        raise ConnectionError  # on connections that are open still

    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        cluster.refuses = gone
        cluster.server.close()
        begin = time.monotonic()
    assert time.monotonic() - begin < node_pods.REMOVAL_SECONDS + 1
    [line] = said
    assert f"namespace {deployment.run.namespace} could not be deleted" in line
    assert "`kubectl ebpfnet cleanup`" in line


def test_an_api_server_that_hangs_is_told_within_the_time(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_pods, "REMOVAL_SECONDS", 0.5)
    release = threading.Event()

    def hangs(seen: Seen) -> Reply | None:
        release.wait(20)
        return None

    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        cluster.refuses = hangs
    release.set()
    [line] = said
    assert "may be left: the API server has not confirmed its deletion within 0.5 s" in line


def test_who_may_not_delete_is_told_what_stays(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        refuses = refuse("DELETE", deployment.run.namespace, forbidden("no"))

        def slow(seen: Seen) -> Reply | None:
            if seen.path.endswith("/node-1"):
                time.sleep(0.5)  # the refusal comes long before the pod has gone
            return refuses(seen)

        cluster.refuses = slow
    [line] = said
    assert "this user may not delete namespaces" in line
    assert cluster.below("pods") == []


def test_a_node_that_does_not_confirm_is_named_and_its_pod_forced_away(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leftovers_module, "GONE_SECONDS", 0.5)
    with deploy() as deployment:
        deployment.start(["n1", "n2"])
        deployment.wait("n1", 5)
        deployment.wait("n2", 5)
        cluster.silent = {"n2"}
    assert said == ["node pods on n2 were deleted, but their end is not confirmed"]
    assert cluster.objects == {}
    path = f"{NAMESPACES}/{deployment.run.namespace}/pods/node-2"
    assert cluster.grace(path) == [["1"], ["0"]]


def test_the_namespace_goes_even_when_its_pods_have_gone(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        for path in [path for path in cluster.objects if "/pods/" in path]:
            del cluster.objects[path]
    assert (cluster.objects, said) == ({}, [])


# --- kept pods ------------------------------------------------------------------------------------


def test_kept_pods_stay_and_are_found(
    cluster: FakeCluster, api: Api, deploy: Callable[..., Deployment], said: list[str]
) -> None:
    with deploy(keep=True) as deployment:
        deployment.start(["n1"])
        pod = deployment.wait("n1", 5)
    [line] = said
    assert re.fullmatch(
        r"kept until \d\d:\d\d UTC: node pods on n1, in namespace ebpfnet-[0-9a-f]{8}; "
        "`kubectl ebpfnet cleanup` deletes them",
        line,
    )
    assert find_node_pods(api) == {"n1": pod}
    [made] = cluster.below("pods")
    assert made["spec"]["activeDeadlineSeconds"] == 8 * 3600
    assert made["spec"]["containers"][0]["command"][-1] == str(8 * 3600)


def test_of_kept_pods_only_those_that_run_stay(
    cluster: FakeCluster, api: Api, deploy: Callable[..., Deployment]
) -> None:
    cluster.pod_status = lambda node: RUNNING if node == "n1" else waiting("ErrImagePull")
    with deploy(keep=True) as deployment:
        deployment.start(["n1", "n2"])
        deployment.wait("n1", 5)
        with pytest.raises(ClusterError):
            deployment.wait("n2", 5)
    assert [pod["spec"]["nodeName"] for pod in cluster.below("pods")] == ["n1"]


def test_a_watch_that_somebody_ends_keeps_its_pods(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    def watch() -> None:
        with deploy(keep=True) as deployment:
            deployment.start(["n1"])
            deployment.wait("n1", 5)
            raise WatchEnded

    with pytest.raises(WatchEnded):
        watch()
    assert [pod["spec"]["nodeName"] for pod in cluster.below("pods")] == ["n1"]


@pytest.mark.parametrize("why", ["interrupt", "nothing ran"])
def test_nothing_is_kept_of_a_run_that(
    cluster: FakeCluster, deploy: Callable[..., Deployment], why: str
) -> None:
    cluster.pod_status = lambda node: RUNNING if why == "interrupt" else waiting("ErrImagePull")

    def run() -> None:
        with deploy(keep=True) as deployment:
            deployment.start(["n1"])
            deployment.wait("n1", 5)
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, ClusterError)):
        run()
    assert cluster.objects == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod.update(status=ended(0)),
        lambda pod: pod["metadata"].update(deletionTimestamp="2026-11-21T09:00:00Z"),
        lambda pod: pod.update(status={**pod["status"], "phase": "Failed", "reason": "Evicted"}),
        lambda pod: pod.update(status={**pod["status"], "reason": "NodeLost"}),
        lambda pod: pod["metadata"].update(namespace="default"),
        lambda pod: pod["metadata"]["labels"].update({"ebpfnet.dev/version": "0.0.1"}),
        lambda pod: pod["metadata"]["annotations"].update(
            {"ebpfnet.dev/expires": "2026-01-01T00:00:00Z"}
        ),
    ],
)
def test_pods_that_are_of_no_use_are_not_found(
    cluster: FakeCluster,
    api: Api,
    deploy: Callable[..., Deployment],
    change: Callable[[dict[str, object]], None],
) -> None:
    with deploy(keep=True) as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
    assert list(find_node_pods(api)) == ["n1"]
    assert [pod.problem for pod in listed_node_pods(api, "default")] == [""]
    change(cluster.below("pods")[0])
    assert find_node_pods(api) == {}
    assert all(pod.problem for pod in listed_node_pods(api, "default"))


def test_pods_of_a_run_that_goes_on_are_not_found(
    cluster: FakeCluster, api: Api, deploy: Callable[..., Deployment]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        assert find_node_pods(api) == {}
        (listed,) = listed_node_pods(api, "default")
        assert listed.problem == "it is of one run"


def test_who_may_not_list_pods_finds_none(cluster: FakeCluster, api: Api) -> None:
    cluster.refuses = refuse("GET", "/pods", forbidden("no"))
    assert find_node_pods(api) == {}


# --- leftovers ------------------------------------------------------------------------------------


@pytest.fixture
def left(
    cluster: FakeCluster, deploy: Callable[..., Deployment], said: list[str]
) -> Callable[..., str]:
    """`left("n1", …)`: what a killed run with these nodes left; its namespace."""

    def kill(*nodes: str, **options: object) -> str:
        deployment = deploy(**options)
        deployment.start(nodes)
        for node in nodes:
            deployment.wait(node, 5)
        return deployment.run.namespace

    return kill


def test_what_is_left_is_found_and_taken_away(
    cluster: FakeCluster, api: Api, left: Callable[..., str]
) -> None:
    name = left("n1", "n2")
    [found] = leftovers(api)
    assert (found.kind, found.name, found.run) == ("namespace", name, name[-8:])
    assert (found.pods, found.expired, found.leaving) == (("node-1", "node-2"), False, False)
    assert found.version == __version__
    assert 0 <= found.age < 60
    assert remove(api, found) == []
    assert cluster.objects == {}
    assert leftovers(api) == []
    assert remove(api, found) == []


def test_a_pod_elsewhere_with_our_label_is_found(cluster: FakeCluster, api: Api) -> None:
    path = f"{NAMESPACES}/shop/pods/x"
    labels = {"app.kubernetes.io/managed-by": "kubectl-ebpfnet"}
    metadata = {"name": "x", "namespace": "shop", "labels": labels}
    cluster.objects[path] = {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {}}
    [found] = leftovers(api)
    assert str(found) == "pod/x in shop"
    remove(api, found)
    assert cluster.objects == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "ebpfnet-12345678", "labels": {"app.kubernetes.io/managed-by": "kubectl-ebpfnet"}},
        {
            "name": "kube-system",
            "labels": {
                "app.kubernetes.io/managed-by": "kubectl-ebpfnet",
                "ebpfnet.dev/run": "12345678",
            },
        },
        {"name": "ebpfnet-12345678", "labels": {"ebpfnet.dev/run": "12345678"}},
    ],
)
def test_what_is_not_ours_without_a_doubt_is_left_alone(
    cluster: FakeCluster, api: Api, deploy: Callable[..., Deployment], metadata: dict[str, object]
) -> None:
    path = f"{NAMESPACES}/{metadata['name']}"
    cluster.objects[path] = {"kind": "Namespace", "metadata": metadata}
    cluster.age(path, 10**8)
    assert leftovers(api) == []
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
    assert list(cluster.objects) == [path]


def test_a_run_sweeps_what_nobody_can_need_any_more(
    cluster: FakeCluster,
    api: Api,
    left: Callable[..., str],
    deploy: Callable[..., Deployment],
    said: list[str],
) -> None:
    old, new, kept = left("n1"), left("n1"), left("n1", keep=True)
    cluster.age(f"{NAMESPACES}/{old}", 600 + 301)
    cluster.age(f"{NAMESPACES}/{new}", 600 + 200)
    cluster.age(f"{NAMESPACES}/{kept}", 7 * 3600)
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        end = time.monotonic() + 5
        while f"{NAMESPACES}/{old}" in cluster.objects:
            assert time.monotonic() < end
            time.sleep(0.02)
    names = {each["metadata"]["name"] for each in cluster.below("namespaces")}
    assert names == {new, kept}
    assert said == []


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_a_laptops_clock_that_is_an_hour_off_takes_no_live_run_for_dead(
    cluster: FakeCluster, api: Api, left: Callable[..., str], ahead: float
) -> None:
    live, old = left("n1"), left("n1")
    cluster.server.ahead = ahead  # it is the fake's clock that differs
    cluster.age(f"{NAMESPACES}/{live}", 60)
    cluster.age(f"{NAMESPACES}/{old}", 600 + 301)
    found = {each.name: each for each in leftovers(api)}
    assert (found[live].expired, round(found[live].age, -1)) == (False, 60)
    assert (found[old].expired, round(found[old].age, -1)) == (True, 900)


def test_a_sweep_that_is_refused_disturbs_nobody(
    cluster: FakeCluster, left: Callable[..., str], said: list[str]
) -> None:
    cluster.refuses = refuse("GET", "/namespaces", forbidden("no"))
    left("n1")
    assert said == []


def test_who_may_not_list_or_delete_is_told_the_verb(
    cluster: FakeCluster, api: Api, left: Callable[..., str]
) -> None:
    name = left("n1")
    [found] = leftovers(api)
    cluster.refuses = refuse("DELETE", "/node-1", forbidden("no"))
    with pytest.raises(Forbidden) as caught:
        remove(api, replace(found, name=name))
    assert (caught.value.verb, caught.value.resource) == ("delete", "pods")
    cluster.refuses = refuse("GET", "/namespaces", forbidden("no"))
    with pytest.raises(Forbidden) as caught:
        leftovers(api)
    assert (caught.value.verb, caught.value.resource) == ("list", "namespaces")


def test_a_lost_connection_may_come_back_during_the_removal(
    cluster: FakeCluster,
    deploy: Callable[..., Deployment],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = [None, None]
    delete = Api.delete

    def breaks(api: Api, path: str, query: object = ()) -> None:
        if path.endswith("node-1") and lost:
            lost.pop()
            raise ApiUnreachable("cannot reach it")
        delete(api, path, query)  # type: ignore[arg-type]

    monkeypatch.setattr(Api, "delete", breaks)
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
    assert (cluster.objects, said, lost) == ({}, [], [])


def test_bodies_are_json_that_servers_take(
    cluster: FakeCluster, deploy: Callable[..., Deployment]
) -> None:
    with deploy() as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
    bodies = [json.loads(seen.body) for seen in cluster.server.seen if seen.method == "POST"]
    assert [(each["apiVersion"], each["kind"]) for each in bodies] == [
        ("v1", "Namespace"),
        ("v1", "Pod"),
    ]


@pytest.mark.parametrize("leaving", ["deletionTimestamp", "phase", "gone"])
def test_pods_of_a_namespace_that_is_being_deleted_are_not_found(
    cluster: FakeCluster, api: Api, deploy: Callable[..., Deployment], leaving: str
) -> None:
    with deploy(keep=True) as deployment:
        deployment.start(["n1"])
        deployment.wait("n1", 5)
        name = deployment.run.namespace
    (path,) = (each for each in cluster.objects if each.endswith(f"/namespaces/{name}"))
    namespace = cluster.objects[path]
    if leaving == "gone":
        del cluster.objects[path]
    elif leaving == "phase":
        namespace["status"] = {"phase": "Terminating"}
    else:
        namespace["metadata"]["deletionTimestamp"] = "2026-11-21T09:00:00Z"
    assert find_node_pods(api) == {}
