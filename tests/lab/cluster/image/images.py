"""Container images without a registry: docker-archive tars that `ctr images import` takes.

* `lab/pause`: one static binary, `/bare`; it sleeps, serves, or fetches by its argv. No shell, no
  ip, no cat: the image of pods that have nothing.
* `lab/host`: empty folders; the pods that use it mount the machine's /usr read-only, so that every
  tool of the machine is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab.cluster.config import HERE
from tests.lab.cluster.processes import run

BARE = "docker.io/lab/bare:1"
HOST = "docker.io/lab/host:1"


def build(folder: Path) -> list[Path]:
    """Make both archives in a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "bare"
    run(
        ["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", str(binary), str(HERE / "image/bare.c")]
    )
    bare = _layer({"bare": binary.read_bytes()}, [])
    links = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}
    host = _layer(
        {
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
            "etc/group": b"root:x:0:\n",
            "etc/protocols": b"tcp 6 TCP\nudp 17 UDP\nicmp 1 ICMP\n",
        },
        ["usr", "root", "proc", "sys", "dev", "run", "var/run", "host"],
        links,
    )
    config = {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Entrypoint": ["/bare"]}
    return [
        archive(folder / "bare.tar", BARE, [bare], config),
        archive(folder / "host.tar", HOST, [host], config),
    ]


def _layer(
    files: dict[str, bytes], folders: list[str], links: dict[str, str] | None = None
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("tmp")
        info.type, info.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(info)
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archive(path: Path, name: str, layers: Sequence[bytes | Path], config: object) -> Path:
    """Write a docker-archive; its path.

    Args:
        name: with its tag.
        layers: tars, the lowest first.
        config: the image's `config` (OCI image specification).
    """
    digests = [_digest(one) for one in layers]
    whole = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in digests]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(whole).hexdigest()}.json"
    names = [f"{one}/layer.tar" for one in digests]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": names}]).encode()
    new = path.with_suffix(".new")
    with tarfile.open(new, "w") as tar:
        for member, data in zip(
            (config_name, *names, "manifest.json"), (whole, *layers, manifest), strict=True
        ):
            if isinstance(data, Path):
                tar.add(data, member)
            else:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return new.rename(path)


def _digest(layer: bytes | Path) -> str:
    if isinstance(layer, bytes):
        return hashlib.sha256(layer).hexdigest()
    with layer.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
