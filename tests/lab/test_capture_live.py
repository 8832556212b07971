"""`kubectl ebpfnet capture` live: the same answer from the file, and nothing private in it."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.datapath import policy
from tests.lab.cluster.tools.live import FETCH, Answer, objects, path, pod_of_our_own
from tests.lab.conftest import Lab

WORLD = f"{WORLD_ADDRESS}:80"
SECRET = "e2e-secret-value-5bd0"
PLAIN = "e2e-environment-value-77aa"


def test_capture_answers_as_the_cluster_did(our_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    our_lab.run("client", *FETCH, "-o", "/dev/null", f"http://{WORLD_ADDRESS}/")
    done = our_lab.kubectl("ebpfnet", "capture", "-o", str(file), "pod/client", "--to", "svc/web")
    assert done.returncode == 0, done.stderr
    for to in (WORLD, f"{WORLD_ADDRESS}:4242", "pod/bare:8080", "svc/web", "svc/nobackend"):
        live, kept = (
            path(our_lab, "pod/client", to),
            path(our_lab, "client", to, "--from", str(file)),
        )
        assert (kept.code, kept.verdict) == (live.code, live.verdict), to
        assert shape(kept) == shape(live), to
        assert kept.titles == live.titles, to


def shape(answer: Answer) -> list[tuple[str, ...]]:
    """Hops without what time changes: states of neighbours, ages."""
    found: list[tuple[str, ...]] = []
    for hop in answer.hops:
        summary = hop["summary"]
        if hop["kind"] == "neighbour":
            summary = summary.rpartition(" (")[0] or summary
        if hop["kind"] == "conntrack":
            summary = summary.partition(", identity")[0]
        found.append((hop["place"], hop["where"], hop["node"], hop["kind"], summary))
    return found


@pytest.fixture
def keeper(our_lab: Lab) -> Iterator[str]:
    """A pod with a secret and a plain value in its environment."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "e2e-secret", "namespace": "default"},
        "stringData": {"password": SECRET},
    }
    env = [
        {"name": "PLAIN", "value": PLAIN},
        {
            "name": "PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "e2e-secret", "key": "password"}},
        },
    ]
    with (
        objects(our_lab, secret),
        pod_of_our_own(our_lab, "e2e-keeper", "node1", {"env": env}) as name,
    ):
        assert SECRET in our_lab.run(name, "cat", "/proc/1/environ")
        yield name


def test_no_secret_and_no_environment_is_in_it(our_lab: Lab, keeper: str, tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    done = our_lab.ebpfnet("capture", "-o", str(file), f"pod/{keeper}", "pod/client")
    assert done.returncode == 0, done.stderr
    text = everything(file)
    assert keeper.encode() in text, "what is looked for in the file can be found in it"
    assert SECRET.encode() not in text
    assert PLAIN.encode() not in text


def test_redacted_capture(our_lab: Lab, keeper: str, tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    done = our_lab.ebpfnet("capture", "-o", str(file), "--redact", f"pod/{keeper}")
    assert done.returncode == 0, done.stderr
    text = everything(file)
    mine = policy.endpoint("default", keeper)
    for word in (
        keeper,
        "client2",
        "bare-client",
        "hostnet",
        str(mine["address"]),
        *(node.address for node in NODES),
        "node1",
    ):
        assert word.encode() not in text, word
    assert str(mine["host_mac"]).encode() not in text


def everything(file: Path) -> bytes:
    """All bytes of a capture, unpacked, names of its members included."""
    found = []
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            body = archive.read(member)
            if body[:2] == b"\x1f\x8b":
                body = gzip.decompress(body)
            found += [member.filename.encode(), body]
    return b"\n".join(found)
