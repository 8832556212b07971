"""The archive as krew lays it out, called as `kubectl ebpfnet` by the real kubectl, offline.

tests/lab/test_installed_live.py has the same against a cluster.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.protocol import node_side
from tests.cli.console import KUBECTL, run
from tests.release.made import installed, needs_archive

pytestmark = needs_archive


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("krew"))


def kubectl(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the real kubectl with nothing on PATH but krew's folder and the system's."""
    path = f"{folder}:/usr/bin:/bin"
    env = {"PATH": path, "HOME": str(folder.parent), "LC_ALL": "C.UTF-8", **variables}
    env.setdefault("KUBECONFIG", "/nonexistent/kubeconfig")
    return subprocess.run(
        [KUBECTL, *words], env=env, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "path --help",
        "version",
        "version -o json",
        "node-pods --print-manifest",
        "path pod/client 1.1.1.1:80 --from demo",
        "path pod/client 1.1.1.1:7777 --from demo:dropped -o json",
        "path pod/client 1.1.1.1:7777 --from demo:unknown -o yaml",
        "path pod/client 1.1.1.1:80 --from demo -o html",
        "flows pod/client --from demo",
        "programs -A --from demo",
        "doctor --from demo",
        "probe-lb --help",
        "netkat --help",
        "options",
        "path pod/client",
        "path pod/client 1.1.1.1:80",
    ],
)
def test_it_answers_as_the_checkout(bin_folder: Path, words: str) -> None:
    here = run(*words.split(), env={"LC_ALL": "C.UTF-8"})
    there = kubectl(bin_folder, "ebpfnet", *words.split())
    assert (there.returncode, there.stdout) == (here.returncode, here.stdout)
    assert there.stderr == here.stderr


def test_kubectl_lists_it_without_a_warning(bin_folder: Path) -> None:
    done = kubectl(bin_folder, "plugin", "list")
    assert str(bin_folder / "kubectl-ebpfnet") in done.stdout
    assert "warning" not in done.stderr.lower()


def test_completion_by_the_program_of_the_archive_and_by_install(
    bin_folder: Path, tmp_path: Path
) -> None:
    words = ("path", "--from", "demo", "pod/")
    wanted = run("__complete", *words).stdout
    (store,) = bin_folder.parent.glob("store/ebpfnet/*")
    path = f"{store}:/usr/bin:/bin"  # an archive alone, its folder on PATH
    assert kubectl(bin_folder, "__complete", "ebpfnet", *words, PATH=path).stdout == wanted
    root = tmp_path / "krew"
    folder = installed(root)
    assert kubectl(folder, "__complete", "ebpfnet", *words).stdout != wanted  # krew links one
    done = kubectl(folder, "ebpfnet", "completion", "--install", KREW_ROOT=str(root))
    assert (done.returncode, "not on PATH" in done.stderr) == (0, False)
    assert kubectl(folder, "__complete", "ebpfnet", *words).stdout == wanted


def test_it_carries_the_node_side_of_this_version(bin_folder: Path) -> None:
    (packed,) = bin_folder.parent.rglob(node_side.PACKED)
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert "kubectl_ebpfnet/node/__main__.py" in names
    assert any(name.startswith("pyroute2/") for name in names)
    # Sources alone, that any Python runs.
    probe = "import sys; sys.path[:0] = sys.argv[1:]; import pyroute2, kubectl_ebpfnet as k"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{probe}; print(k.__file__)", str(packed)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(packed))


def test_a_credential_plugin_does_not_get_our_libraries(bin_folder: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\nenv >{tmp_path}/env\nexit 1\n")
    plugin.chmod(0o755)
    execs = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"exec": execs}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    words = ("ebpfnet", "path", "pod/a", "1.1.1.1:80")
    done = kubectl(bin_folder, *words, KUBECONFIG=str(tmp_path / "config"))
    assert done.returncode == 1
    assert "credential plugin" in done.stderr
    told = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert "KUBERNETES_EXEC_INFO" in told
    assert not [name for name in told if name.startswith(("_PYI", "LD_LIBRARY_PATH", "_MEI"))]
    mine = "/opt/theirs"
    kubectl(bin_folder, *words, KUBECONFIG=str(tmp_path / "config"), LD_LIBRARY_PATH=mine)
    assert f"LD_LIBRARY_PATH={mine}\n" in (tmp_path / "env").read_text()
