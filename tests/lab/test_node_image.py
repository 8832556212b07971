"""The lab's image is the Dockerfile's: every instruction is carried out, and nothing else is in it.

Opt-in, since it needs a network or Docker: EBPFNET_IMAGE_COMPARE=1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet import __version__
from kubectl_ebpfnet.cluster.nodepods.manifest import DEFAULT_IMAGE
from tests.lab.cluster.image import chroot, debian, dockerfile, node_image
from tests.lab.cluster.processes import run

PACKAGES = "usr/local/lib/python3.11/dist-packages"
compare = pytest.mark.skipif(
    not os.environ.get("EBPFNET_IMAGE_COMPARE"), reason="opt-in: EBPFNET_IMAGE_COMPARE=1"
)


def test_every_instruction_of_the_dockerfile_is_carried_out() -> None:
    settings = node_image.Settings()
    before, rest = node_image.parts()
    for one in (*before, *rest):
        if one.kind == "FROM":
            assert one.text == debian.IMAGE
        elif one.kind == "COPY":
            assert one.words()[1:] == ("/tmp/",)
        elif one.kind != "RUN":
            settings.take(one, {"VERSION": "1.2.3", "REVISION": "abc"})
    config: Any = settings.config()
    assert config["Entrypoint"] == ["python3", "-m", "kubectl_ebpfnet.node"]
    assert config["User"] == "root"
    assert "LC_ALL=C.UTF-8" in config["Env"]
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"


def test_what_is_cached_ends_where_our_own_wheel_comes(tmp_path: Path) -> None:
    _, rest = node_image.parts()
    (wheel,) = chroot.matching(_with_wheel(tmp_path), rest[0].words()[:-1])
    assert wheel.name == f"kubectl_ebpfnet-{__version__}-py3-none-any.whl"


def _with_wheel(folder: Path) -> Path:
    node_image.wheel(folder)
    return folder


def test_runs_ask_for_the_image_that_is_made() -> None:
    assert node_image.NAME == DEFAULT_IMAGE


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("VOLUME /data", "VOLUME is not known"),
        ("COPY --from=other a /tmp/", "flag"),
        ("RUN --mount=type=cache,target=/x true", "flag"),
        ("RUN <<EOF", "here-document"),
        ("RUN ['true']", "shell's line"),
        ("ENTRYPOINT python3", "JSON"),
        ("FROM scratch", "one FROM"),
        ("ENV A=\\$B", "backslash"),
        ("ENV A=${B:-c}", "backslash"),
        ("RUN true \\", "continued"),
    ],
)
def test_what_is_not_understood_is_an_error(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dockerfile.read(f"FROM debian:bookworm-slim\n{line}\n")


def test_another_base_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only debian:bookworm-slim"):
        debian.install("debian:trixie-slim", tmp_path / "root")


def test_lines_comments_and_variables() -> None:
    read = dockerfile.read(
        "# first\nFROM x\n\nRUN one \\\n  # between\n && two\n"
        'LABEL a="b $V" c=${V}d\nCMD ["x", "y z"]\n'
    )
    assert [(one.kind, one.line) for one in read] == [
        ("FROM", 2), ("RUN", 4), ("LABEL", 7), ("CMD", 8),
    ]  # fmt: skip
    assert read[1].text == "one && two"
    assert read[2].pairs({"V": "v"}) == {"a": "b v", "c": "vd"}
    assert read[3].words() == ("x", "y z")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's archive, if its first layer is in the cache: that takes a minute to make."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("chroot needs root and Linux")
    if not any(node_image.CACHE.glob("node-image-*/layer.tar")):
        pytest.skip("no base in the cache: python -m tests.lab build makes it")
    return node_image.build(tmp_path_factory.mktemp("image"))


@pytest.mark.kernel
def test_the_second_layer_is_our_package_alone(image: Path, tmp_path: Path) -> None:
    config, layers = _open(image, tmp_path)
    assert config["config"]["Labels"]["org.opencontainers.image.version"] == __version__
    with tarfile.open(layers[1]) as tar:
        files = {one.name.removeprefix("./"): one for one in tar if one.isfile()}
    ours = f"{PACKAGES}/kubectl_ebpfnet"
    programs = {"usr/local/bin/netkat", "usr/local/bin/ebpfnet-node"}
    assert {name for name in files if not name.startswith((f"{ours}/", f"{ours}-"))} == programs
    assert {files[name].mode for name in programs} == {0o755}
    for name in ("__init__", "errors", "node/server/answer", "model/protocol/questions"):
        folder, _, module = f"{ours}/{name}".rpartition("/")
        assert f"{folder}/__pycache__/{module}.cpython-311.pyc" in files, name
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(image.parent) not in mounts
    assert [one.name for one in image.parent.iterdir()] == ["node.tar"]


@pytest.mark.kernel
def test_the_first_layer_is_small_and_knows_nothing_of_this_machine(
    image: Path, tmp_path: Path
) -> None:
    _, layers = _open(image, tmp_path)
    assert layers[0].stat().st_size < 150 << 20
    with tarfile.open(layers[0]) as tar:
        members = {one.name.removeprefix("./"): one for one in tar}
    assert members["etc/resolv.conf"].size == 0
    assert "etc/hostname" not in members
    assert not [name for name in members if name.startswith(("dev/", "proc/", "tmp/"))]
    docs = [n for n, one in members.items() if n.startswith("usr/share/doc/") and one.isfile()]
    assert docs
    assert all(name.endswith("/copyright") for name in docs)


def _open(image: Path, folder: Path) -> tuple[Any, list[Path]]:
    # Not tarfile.extractall: Python 3.11.2 lacks its filter, and 3.12 warns where none is given.
    run(["tar", "--extract", f"--file={image}", f"--directory={folder}"])
    (manifest,) = json.loads((folder / "manifest.json").read_text())
    config = json.loads((folder / manifest["Config"]).read_text())
    return config, [folder / name for name in manifest["Layers"]]


@pytest.mark.kernel
def test_what_a_run_deletes_is_deleted_in_the_layer(image: Path, tmp_path: Path) -> None:
    tree = chroot.Tree(tmp_path / "tree", node_image.base() / "root")
    command = "rm /etc/issue; rm -r /etc/skel; mkdir /etc/skel; echo new > /etc/skel/one"
    tree.run(command, {}, "/")
    (tmp_path / "two").write_text("")
    tree.copy(tmp_path, ["two", "/tmp/"])
    chroot.pack(tree.upper, tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as tar:
        members = {one.name: one for one in tar}
    names = {"./etc/.wh.issue", "./etc/skel/.wh..wh..opq", "./etc/skel/one", "./tmp/two"}
    assert names == {name for name, one in members.items() if one.isfile()}
    assert members["./tmp"].mode == 0o1777


@compare
def test_the_lab_s_wheel_has_the_files_of_the_real_one(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"  # setuptools leaves a build folder
    shutil.copytree(
        node_image.ROOT, checkout, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests")
    )
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."]
    subprocess.run(argv, cwd=checkout, check=True)
    (real,) = tmp_path.glob("*.whl")
    (tmp_path / "lab").mkdir()
    ours = node_image.wheel(tmp_path / "lab")
    assert _package(ours) == _package(real)
    assert ours.name == real.name


def _package(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return {name for name in opened.namelist() if ".dist-info/" not in name}


@compare
def test_docker_makes_the_same_of_the_dockerfile(image: Path, tmp_path: Path) -> None:
    """Not the same bytes, since the official base image is another day's: config and packages."""
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no running Docker here")
    for wheel in chroot.matching(node_image.context(), ["*.whl"]):
        shutil.copy(wheel, tmp_path)
    node_image.wheel(tmp_path)
    argv = ["docker", "build", "-q", f"--file={node_image.DOCKERFILE}", str(tmp_path)]
    argv[2:2] = [f"--build-arg=VERSION={__version__}"]
    id = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    inspect = subprocess.run(["docker", "inspect", id], capture_output=True, check=True).stdout
    (theirs,) = json.loads(inspect)
    config, _ = _open(image, tmp_path / "lab")
    for key in ("Entrypoint", "Env", "User", "WorkingDir"):
        assert theirs["Config"][key] == config["config"][key], key
    find = f"cd /{PACKAGES} && find . -type f -not -path '*.dist-info/*' | sort"
    listed = ["docker", "run", "--rm", "--entrypoint", "sh", id, "-c", find]
    files = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert files == sorted(_ours(image, tmp_path / "lab"))


def _ours(image: Path, folder: Path) -> list[str]:
    _, layers = _open(image, folder)
    found = []
    for layer in layers:
        with tarfile.open(layer) as tar:
            names = [one.name for one in tar if one.isfile()]
        found += [n for n in names if n.startswith(f"./{PACKAGES}/") and ".dist-info/" not in n]
    return [f"./{name.removeprefix(f'./{PACKAGES}/')}" for name in found]
