"""Archives: the same bytes from the same files, nothing that krew does not unpack."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from kubectl_ebpfnet.model.tiers import ABOUT, Tier
from release import archive, manifest
from tests.release import krew
from tests.release.made import ARCHIVE, DIST, needs_archive

EPOCH = 1_700_000_000
KINDS = pytest.mark.parametrize("kind", ["tar.gz", "zip"])


def folder(at: Path) -> Path:
    """A program's folder, as PyInstaller makes it."""
    (at / "_internal/empty").mkdir(parents=True)
    (at / "_internal/lib.so").write_bytes(b"library")
    (at / "LICENSE").write_text("Apache")
    (at / "kubectl-ebpfnet").write_text("#!/bin/sh\necho it runs\n")
    (at / "kubectl-ebpfnet").chmod(0o700)
    return at


@KINDS
def test_the_same_files_are_the_same_bytes(tmp_path: Path, kind: str) -> None:
    made = []
    for name in ("one", "another/below"):
        source = folder(tmp_path / name)
        os.utime(source / "LICENSE", (len(name), len(name)))
        archive.pack(source, tmp_path / f"{len(name)}.{kind}", EPOCH)
        made.append((tmp_path / f"{len(name)}.{kind}").read_bytes())
    assert made[0] == made[1]
    (tmp_path / "one/LICENSE").write_text("Apache 2")
    archive.pack(tmp_path / "one", tmp_path / f"changed.{kind}", EPOCH)
    assert (tmp_path / f"changed.{kind}").read_bytes() != made[0]


@KINDS
def test_krew_unpacks_it_as_it_was(tmp_path: Path, kind: str) -> None:
    source = folder(tmp_path / "source")
    archive.pack(source, tmp_path / f"a.{kind}", EPOCH)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    krew.unpack((tmp_path / f"a.{kind}").read_bytes(), unpacked)
    names = {path.relative_to(source) for path in source.rglob("*")}
    assert {path.relative_to(unpacked) for path in unpacked.rglob("*")} == names
    assert (unpacked / "LICENSE").read_text() == "Apache"
    assert os.access(unpacked / "kubectl-ebpfnet", os.X_OK)
    assert not os.access(unpacked / "LICENSE", os.X_OK)


def refused(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "LICENSE"
        tar.addfile(entry)
    return whole.getvalue()


@pytest.mark.parametrize(
    "content",
    [refused("../x"), refused("/x"), refused("a..b"), refused("x", tarfile.SYMTYPE),
     refused("x", tarfile.LNKTYPE), b"text"],
    ids=["parent", "absolute", "dots", "symlink", "hard link", "no archive"],
)  # fmt: skip
def test_what_krew_does_not_unpack(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"refusing|file type|neither"):
        krew.unpack(content, tmp_path)


@needs_archive
def test_the_archive_is_small_and_krew_takes_all_of_it(tmp_path: Path) -> None:
    content = ARCHIVE.read_bytes()
    assert len(content) < 30e6
    krew.unpack(content, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 48e6
    assert any(krew.LICENSE.fullmatch(path.name) for path in tmp_path.iterdir())
    assert (tmp_path / "LICENSE").read_bytes() == (DIST.parent / "LICENSE").read_bytes()


@needs_archive
def test_only_what_is_imported_is_inside_with_its_licence(tmp_path: Path) -> None:
    krew.unpack(ARCHIVE.read_bytes(), tmp_path)
    listed = json.loads(ARCHIVE.with_name(f"{ARCHIVE.name}.cdx.json").read_text())
    parts = {each["name"] for each in listed["components"]}
    assert {folder.name for folder in (tmp_path / "licenses").iterdir()} == parts
    for each in listed["components"]:
        texts = list((tmp_path / "licenses" / each["name"]).iterdir())
        assert max(text.stat().st_size for text in texts) > 150, each
        said = json.dumps(each["licenses"])
        assert not re.search(r"\bA?GPL", said) or " WITH " in said, each
    # The client imports these, the node side pyroute2, whose sources go with it.
    assert {"kubernetes", "typer", "tabulate", "PyYAML", "websocket-client", "pyroute2"} <= parts
    assert {"libbpf", "libelf"} <= parts  # for node pods, with the BPF objects
    with zipfile.ZipFile(next(tmp_path.rglob("node-side.zip"))) as sent:
        built = {Path(name).name for name in sent.namelist() if "/built/" in name}
    assert {"trace.bpf.o", "programs.bpf.o", "libbpf-arm64.so", "libelf-amd64.so"} <= built
    assert not parts & {"aiohttp", "rich", "Pygments", "setuptools", "pip", "readline", "pytest"}
    names = [path.name for path in tmp_path.rglob("*")]
    assert not [
        name for name in names if name.startswith(("readline", "libgcc_s", "sqlite", "_tk"))
    ]
    assert names.count("node-side.zip") == 1


@needs_archive
def test_a_start_does_nothing_that_the_program_does_not_need(tmp_path: Path) -> None:
    """bench/frozen.py has what each of these is worth."""
    krew.unpack(ARCHIVE.read_bytes(), tmp_path)
    program = (tmp_path / "kubectl-ebpfnet").read_bytes()
    assert b"pyimod02_importers" in program  # what is before it stands there by name
    assert b"pyi_rth_" not in program
    assert ABOUT[Tier.DEPLOY].encode() in program  # modules are stored, not deflated
    assert not [path for path in tmp_path.rglob("*") if "ctypes" in path.name]
    libraries = [*tmp_path.rglob("libpython*"), *tmp_path.rglob("*.cpython-*.so")]
    assert len(libraries) > 20
    assert not [path for path in libraries if b".symtab" in path.read_bytes()]


@needs_archive
def test_checksums_and_manifest_are_of_these_files() -> None:
    digests = manifest.digests(DIST)
    listed = dict(
        reversed(line.split("  ")) for line in (DIST / "SHA256SUMS").read_text().splitlines()
    )
    assert listed == {name: digest for name, digest in digests.items() if name != "SHA256SUMS"}
    assert digests[ARCHIVE.name] in (DIST / "plugin.yaml").read_text()
