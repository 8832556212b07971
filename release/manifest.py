"""krew's manifest, from one template, with the digest of each archive that is there.

What an archive has not been made of yet has a digest of 64 zeros, which krew refuses to install,
and says so in a comment; the release workflow makes all of them, and fills all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from string import Template

from release.platforms import PLATFORMS, archive_name, program_name

TEMPLATE = Path(__file__).parent / "plugin.template.yaml"
RELEASES = "https://github.com/kubectl-ebpfnet/kubectl-ebpfnet/releases/download"
NOT_BUILT = "0" * 64


def manifest(version: str, digests: Mapping[str, str]) -> str:
    """Return the manifest's text.

    Args:
        version: of the program, without a `v`.
        digests: SHA-256 by the name of an archive.
    """
    head = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(version=version)
    return head + "".join(_platform(version, os, arch, digests) for os, arch in PLATFORMS)


def _platform(version: str, os: str, arch: str, digests: Mapping[str, str]) -> str:
    name = archive_name(version, os, arch)
    digest = digests.get(name, NOT_BUILT)
    mark = "  # not built: the release fills it" if digest == NOT_BUILT else ""
    return (
        f"  - selector: {{matchLabels: {{os: {os}, arch: {arch}}}}}\n"
        f"    uri: {RELEASES}/v{version}/{name}\n"
        f'    sha256: "{digest}"{mark}\n'
        f"    bin: {program_name(os)}\n"
    )


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by name, {} where there is none."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
