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
from pathlib import Path

from tests.lab.config import HERE
from tests.lab.processes import run

BARE = "docker.io/lab/bare:1"
HOST = "docker.io/lab/host:1"


def build(folder: Path) -> list[Path]:
    """Make both archives in a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "bare"
    run(["gcc", "-static", "-Os", "-Wall", "-Werror", "-o", str(binary), str(HERE / "bare.c")])
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
    return [_archive(folder / "bare.tar", BARE, bare), _archive(folder / "host.tar", HOST, host)]


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


def _archive(path: Path, name: str, layer: bytes) -> Path:
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Entrypoint": ["/bare"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps(
        [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    ).encode()
    with tarfile.open(path, "w") as tar:
        for member, data in (
            (config_name, config),
            (f"{digest}/layer.tar", layer),
            ("manifest.json", manifest),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
