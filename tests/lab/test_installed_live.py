"""The archive of `make dist` against a cluster: as krew lays it out, by the real kubectl.

And the client as macOS and Windows see it (tests/foreign), whose sockets and threads are these.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.foreign.test_as_seen_on import PRELUDE
from tests.lab.cluster.config import NODES, WORLD_ADDRESS
from tests.lab.cluster.image import plain_python
from tests.lab.cluster.kubectl import program
from tests.lab.cluster.nodes.node import import_image
from tests.lab.conftest import Lab
from tests.release.made import installed, needs_archive

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]
PATH = ("path", "pod/client", f"{WORLD_ADDRESS}:80", "-o", "json")


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("krew"))


def environment(lab: Lab, folder: Path) -> Mapping[str, str]:
    """Nothing of Python on PATH: what the archive needs is in it."""
    home = str(folder.parent)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": home, "KUBECONFIG": str(lab.kubeconfig)}


def answered(done: subprocess.CompletedProcess[bytes]) -> None:
    answer = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert answer["verdict"] in ("delivered", "leaves", "reachable")
    assert {"bpf", "policy"} & {hop["kind"] for hop in answer["hops"]}


@needs_archive
def test_path_by_kubectl(our_lab: Lab, bin_folder: Path) -> None:
    env = environment(our_lab, bin_folder)
    answered(
        subprocess.run([program(), "ebpfnet", *PATH], env=env, capture_output=True, check=False)
    )


@needs_archive
@pytest.mark.parametrize("image", ["ours", plain_python.DEBIAN_12])
def test_netkat_by_kubectl(our_lab: Lab, bin_folder: Path, tmp_path: Path, image: str) -> None:
    """From our image, and from one of Python alone, to which the archive sends its node side."""
    flags = []
    if image != "ours":
        import_image(NODES[0], plain_python.debian_12(tmp_path))
        flags = ["--image", image]
    argv = [program(), "ebpfnet", "netkat", *flags, "node/node1", WORLD_ADDRESS, "7777"]
    done = subprocess.run(
        argv, env=environment(our_lab, bin_folder), input=b"there and back\n", capture_output=True,
        timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"there and back\n"), done.stderr


@needs_archive
def test_completion_from_the_cluster(our_lab: Lab, bin_folder: Path) -> None:
    env = {**environment(our_lab, bin_folder), "KREW_ROOT": str(bin_folder.parent)}
    for words in (
        ("ebpfnet", "completion", "--install"),
        ("__complete", "ebpfnet", "path", "pod/cl"),
    ):
        done = subprocess.run([program(), *words], env=env, capture_output=True, check=True)
    assert b"pod/client\n" in done.stdout or b"pod/client\t" in done.stdout


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_path_as_seen_on(our_lab: Lab, system: str) -> None:
    argv = [sys.executable, PRELUDE, system, "kubectl-ebpfnet", *PATH]
    answered(subprocess.run(argv, env=our_lab.env(), capture_output=True, check=False))
