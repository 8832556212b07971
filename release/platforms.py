"""The platforms of a release, in Go's words, which krew's are."""

from __future__ import annotations

import platform

_SYSTEMS, _MACHINES = ("linux", "darwin", "windows"), ("amd64", "arm64")
PLATFORMS = tuple((os, arch) for os in _SYSTEMS for arch in _MACHINES)
"""(os, arch) of each archive."""
_ARCH = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def this_platform() -> tuple[str, str]:
    """Return the platform of this Python. Raises KeyError for one without a release."""
    return platform.system().lower(), _ARCH[platform.machine().lower()]


def archive_name(version: str, os: str, arch: str) -> str:
    """Return the name of a platform's archive: krew takes both kinds, Windows opens zip."""
    return f"kubectl-ebpfnet_v{version}_{os}_{arch}.{'zip' if os == 'windows' else 'tar.gz'}"


def program_name(os: str) -> str:
    """Return the name of the program in its archive: krew links `.exe` alone on Windows."""
    return "kubectl-ebpfnet.exe" if os == "windows" else "kubectl-ebpfnet"
