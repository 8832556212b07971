"""krew's rules, and its way of installing: a fake, since krew itself is not to be had here.

Read from kubernetes-sigs/krew: pkg/index/types.go, internal/index/validation/validate.go,
internal/download/downloader.go, internal/installation/install.go, internal/installation/semver, and
cmd/validate-krew-manifest/main.go, with which krew-index checks what it takes.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLATFORMS = [(os, arch) for os in ("linux", "darwin", "windows") for arch in ("amd64", "arm64")]
_API = "krew.googlecontainertools.github.com/v1alpha2"
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}
# semver.org's expression, with krew's v.
_SEMVER = re.compile(
    r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][\w-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][\w-]*))*)?(\+[\w-]+(\.[\w-]+)*)?"
)
LICENSE = re.compile(r"(license|licence|copying)s?(\.txt|\.md)?", re.IGNORECASE)


def faults(manifest: Mapping[str, Any]) -> list[str]:
    """Return what krew would refuse of a manifest."""
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    found = []
    if (manifest.get("apiVersion"), manifest.get("kind")) != (_API, "Plugin"):
        found.append("apiVersion or kind")
    if not re.fullmatch(r"[\w-]+", name) or name.lower() in _RESERVED:
        found.append(f"name {name}")
    if not _SEMVER.fullmatch(spec.get("version", "")):
        found.append(f"version {spec.get('version')}")
    if not spec.get("shortDescription") or "\n" in spec["shortDescription"]:
        found.append("shortDescription")
    if not spec.get("platforms"):
        found.append("no platforms")
    for place, platform in enumerate(spec.get("platforms", ())):
        found += [f"platforms[{place}]: {fault}" for fault in _platform_faults(platform)]
    for each in PLATFORMS:
        if (chosen := sum(selects(p["selector"], *each) for p in spec["platforms"])) > 1:
            found.append(f"{chosen} selectors select {each}")
    return found


def _platform_faults(platform: Mapping[str, Any]) -> list[str]:
    found = [key for key in ("uri", "bin") if not platform.get(key)]
    if not re.fullmatch("[a-f0-9]{64}", platform.get("sha256", "")):
        found.append("sha256")
    if not platform.get("uri", "").endswith((".tar.gz", ".zip")):
        found.append("uri: neither .tar.gz nor .zip")
    if "files" in platform and not platform["files"]:
        found.append("files")
    selector = platform.get("selector") or {}
    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    if not {*labels, *(each["key"] for each in expressions)} <= {"os", "arch"} or not selector:
        found.append("selector")
    elif not any(selects(selector, *each) for each in PLATFORMS):
        found.append("selector of no platform")
    if selector.get("matchLabels", {}).get("os") == "windows" and not platform["bin"].endswith(
        ".exe"
    ):
        found.append("bin: Windows runs .exe")
    return found


def selects(selector: Mapping[str, Any], os_name: str, arch: str) -> bool:
    """Tell whether a label selector takes a platform."""
    labels = {"os": os_name, "arch": arch}
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for each in selector.get("matchExpressions") or ():
        inside = labels.get(each["key"]) in each.get("values", ())
        if inside != (each["operator"] == "In"):
            return False
    return True


def unpack(archive: bytes, into: Path) -> None:
    """Unpack an archive as krew does. Raises ValueError where krew refuses it."""
    if archive.startswith(b"PK"):
        _unpack_zip(archive, into)
    elif archive.startswith(b"\x1f\x8b"):
        _unpack_tar(archive, into)
    else:
        raise ValueError("neither a zip nor gzip")


def _checked(name: str) -> str:
    if ".." in name or name.startswith(("/", "\\")):
        raise ValueError(f"refusing to unpack {name}")
    return name


def _unpack_tar(archive: bytes, into: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for entry in tar:
            path = into / _checked(entry.name)
            if entry.type == tarfile.DIRTYPE:
                path.mkdir(parents=True, exist_ok=True)
            elif entry.type == tarfile.REGTYPE:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = tar.extractfile(entry)
                assert file is not None
                path.write_bytes(file.read())
                path.chmod(entry.mode)
            else:
                raise ValueError(f"unable to handle file type of {entry.name}")


def _unpack_zip(archive: bytes, into: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        for entry in whole.infolist():
            path = into / _checked(entry.filename)
            if entry.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:  # its folder has to be there: krew makes none
                path.write_bytes(whole.read(entry))
                path.chmod(entry.external_attr >> 16)


def install(
    manifest: Mapping[str, Any], archive: Path, root: Path, os_name: str, arch: str
) -> Path:
    """Install as `kubectl krew install --manifest=… --archive=…`; return the folder for PATH.

    Raises:
        ValueError: krew would not.
    """
    spec = manifest["spec"]
    (chosen,) = [p for p in spec["platforms"] if selects(p["selector"], os_name, arch)]
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != chosen["sha256"]:
        raise ValueError("checksum does not match")
    store = root / "store" / manifest["metadata"]["name"] / spec["version"]
    store.mkdir(parents=True)
    unpack(content, store)
    if not (store / chosen["bin"]).is_file():
        raise ValueError(f"no {chosen['bin']} in the archive")
    link = root / "bin" / f"kubectl-{manifest['metadata']['name'].replace('-', '_')}"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(store / chosen["bin"], link.parent))
    return link.parent
