"""What is sent to a node: these files, these bytes, whatever they are read from."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kubectl_ebpfnet.errors import EbpfnetError
from kubectl_ebpfnet.model.protocol import node_side


def test_it_is_the_installed_sources_of_what_runs_on_a_node() -> None:
    files = node_side.installed()
    rooms = {tuple(name.split("/")[:2]) for name in files if name.startswith("kubectl_ebpfnet/")}
    assert rooms == {
        ("kubectl_ebpfnet", part) for part in ("__init__.py", "errors.py", "model", "node")
    }
    assert {name.split("/")[0] for name in files} == {"kubectl_ebpfnet", "pyroute2"}
    built = {name.rpartition("/")[2] for name in files if not name.endswith(".py")}
    assert all(name.endswith((".bpf.o", ".so")) for name in built)
    here = Path(node_side.__file__)
    assert files["kubectl_ebpfnet/model/protocol/node_side.py"] == here.read_bytes()
    assert list(files) == sorted(files)
    assert len(node_side.packed(files)) < 3 << 19


def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / node_side.PACKED
    digest = node_side.write(path)
    other = [
        sys.executable, "-c",
        "import sys, pathlib\nfrom kubectl_ebpfnet.model.protocol import node_side\n"
        "print(node_side.write(pathlib.Path(sys.argv[1])))",
        str(tmp_path / "again.zip"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    said = subprocess.run(other, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == digest == node_side.own_digest()
    assert (tmp_path / "again.zip").read_bytes() == path.read_bytes()


def test_of_the_zip_comes_the_same_as_of_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_side.write(tmp_path / node_side.PACKED)
    monkeypatch.setattr(node_side, "_PACKAGE", tmp_path)
    packed = node_side.files.__wrapped__()
    assert packed == node_side.installed()


def test_the_digest_is_of_names_and_contents() -> None:
    one = {"a.py": b"1", "b.py": b"2"}
    same = dict(reversed(one.items()))
    assert node_side.digest(one) == node_side.digest(same)
    others = [{"a.py": b"12", "b.py": b""}, {"a.py": b"2", "b.py": b"1"}, {"a.pyb.py": b"12"}, {}]
    assert len({node_side.digest(each) for each in (one, *others)}) == 5
    with zipfile.ZipFile(io.BytesIO(node_side.packed(one))) as archive:
        again = {name: archive.read(name) for name in archive.namelist()}
    assert again == one


def test_a_program_without_sources_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_side.util, "find_spec", lambda _: None)
    with pytest.raises(EbpfnetError, match="no sources of kubectl_ebpfnet that it could send"):
        node_side.installed()
