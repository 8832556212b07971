"""`node-pods`: what it lists, and the manifests that it prints."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.nodepods.installed import manifests
from kubectl_ebpfnet.cluster.nodepods.manifest import DEFAULT_IMAGE, NodePodOptions
from kubectl_ebpfnet.model.node_pods import ANY_IMAGE
from tests.cli.console import run
from tests.cluster.fake_api_server import FakeApiServer
from tests.cluster.fake_cluster import RUNNING, FakeCluster, waiting


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    server = FakeApiServer()
    yield FakeCluster(server)
    server.close()


def test_the_manifest_is_what_kubectl_reads_and_asks_no_cluster() -> None:
    done = run("node-pods", "--print-manifest", "--image", "python:3.13-slim", "-n", "ebpfnet")
    assert (done.returncode, done.stderr) == (0, "")
    objects = list(yaml.safe_load_all(done.stdout))
    wanted = manifests("ebpfnet", "", NodePodOptions("python:3.13-slim"))
    assert objects == json.loads(json.dumps(wanted))
    assert "\\n" not in done.stdout  # the program is readable lines
    assert "*id0" not in done.stdout
    as_json = run("node-pods", "--print-manifest", "node/n1", "-o", "json")
    listed = json.loads(as_json.stdout)["items"]
    assert [each["kind"] for each in listed] == ["Namespace", "Pod"]
    assert listed[1]["metadata"]["name"] == "ebpfnet-n1"
    assert listed[0]["metadata"]["name"] == "ebpfnet"


def test_our_image_is_not_named_without_another_that_will_do() -> None:
    ours = run("node-pods", "--print-manifest").stdout.splitlines()
    assert ours[0] == f"# {DEFAULT_IMAGE} is the quick way; {ANY_IMAGE}."
    other = run("node-pods", "--print-manifest", "--image", "x").stdout
    assert not other.startswith("#")


def test_a_node_pod_whose_image_cannot_be_pulled_is_listed_with_what_to_do(
    cluster: FakeCluster,
) -> None:
    (_, made) = manifests("ebpfnet", "n1", NodePodOptions())
    made = {**json.loads(json.dumps(made)), "status": waiting("ErrImagePull", "not found")}
    made["spec"]["nodeName"] = "n1"
    made["spec"]["containers"][0]["image"] = DEFAULT_IMAGE
    cluster.objects["/api/v1/namespaces/ebpfnet/pods/ebpfnet-n1"] = made
    done = run("node-pods", f"--server={cluster.server.url}", "-o", "json")
    (listed,) = json.loads(done.stdout)["items"]
    why = f"node n1 cannot pull the image {DEFAULT_IMAGE}: ErrImagePull: not found; {ANY_IMAGE}"
    assert listed["problem"] == why


@pytest.mark.parametrize("words", [(), ("node/n1",)])
def test_a_namespace_of_others_is_neither_made_nor_deleted(words: tuple[str, ...]) -> None:
    """`node-pods --print-manifest -n tools | kubectl delete -f -` must leave what is in tools."""
    done = run("node-pods", "--print-manifest", *words, "-n", "tools")
    (made,) = yaml.safe_load_all(done.stdout)
    assert made["kind"] == ("Pod" if words else "DaemonSet")
    assert made["metadata"]["namespace"] == "tools"
    assert "namespace tools must exist" in done.stderr
    assert "pod-security.kubernetes.io/enforce=privileged" in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("node/n1",), "for --print-manifest"),
        (("--image", "x"), "for --print-manifest"),
        (("--print-manifest", "pod/x"), "is no node"),
        (("--print-manifest", "-o", "table"), "no such format"),
        (("--print-manifest", "-n", "A b"), "not a namespace's name"),
        (("--print-manifest", "-n", "a.b"), "not a namespace's name"),
        (("--print-manifest", "--image-pull-secret", "ops/pull"), "not a Secret's name"),
        (("-o", "bogus", "--server=http://127.0.0.1:1"), 'the output format "bogus"'),
    ],
)
def test_wrong_words(words: tuple[str, ...], why: str) -> None:
    done = run("node-pods", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr


def test_those_that_are_there_are_listed_and_cleanup_leaves_installed_ones(
    cluster: FakeCluster,
) -> None:
    server = f"--server={cluster.server.url}"
    done = run("node-pods", server)
    assert (done.returncode, done.stdout) == (0, "")
    assert "No node pods found" in done.stderr
    _, pod = manifests("ebpfnet", "n1", NodePodOptions())
    pod = json.loads(json.dumps(pod))
    pod["spec"]["nodeName"], pod["status"] = "n1", RUNNING
    cluster.objects["/api/v1/namespaces/ebpfnet/pods/ebpfnet-n1"] = pod
    done = run("node-pods", server)
    header, line = (text.split() for text in done.stdout.splitlines())
    assert header == ["NODE", "NAMESPACE", "POD", "ORIGIN", "STATUS"]
    assert line == ["n1", "ebpfnet", "ebpfnet-n1", "installed", "Running"]
    document = json.loads(run("node-pods", server, "-o", "json").stdout)
    assert document["schema"] == "ebpfnet.dev/node-pods/v1"
    assert document["items"][0]["version"] == __version__
    done = run("cleanup", "--yes", server)
    assert done.returncode == 0
    assert "left alone: 1 installed node pods in namespace ebpfnet" in done.stderr
    assert cluster.below("pods") == [pod]
