"""The licences of all that is inside an archive: each in a folder of its name under licenses/.

A part of which no licence is known ends the build: nobody may pass it on.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kubectl_ebpfnet.node.bpf.libbpf import BUILT
from release.frozen import Inside

TEXTS = Path(__file__).parent / "licenses"
ROOT = Path(__file__).parent.parent
_LICENSE_FILE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)
_GPL = re.compile(r"\bA?GPL")
_CHOSEN = {"pyroute2": "Apache-2.0"}
"""Distribution of more licences than one → the one that it is taken under."""
_BOOTLOADER = "GPL-2.0-or-later WITH Bootloader-exception"
"""PyInstaller's, whose exception lets it be a part of any program."""
_LEFT_OUT = {"pyroute2": "LICENSE.GPL-2.0-or-later"}


@dataclass(frozen=True, order=True)
class Part:
    """Something of others inside an archive."""

    name: str
    version: str
    """"" where a library does not tell it."""
    license: str
    """SPDX expression, or the words of its author."""
    files: tuple[Path, ...]
    """The licence's texts."""
    on_pypi: bool = False


_LIBRARIES = (
    (r"(lib)?python3?[\d.]*(\.|$)", "Python"),
    (r"lib(crypto|ssl)", "OpenSSL"),
    (r"libffi", "libffi"),
    (r"(libz\.|zlib)", "zlib"),
    (r"libbz2", "bzip2"),
    (r"liblzma", "xz"),
    (r"libexpat", "Expat"),
    (r"libmpdec", "mpdecimal"),
    (r"(vcruntime|msvcp|ucrtbase|api-ms-win-)", "Microsoft Visual C++ Runtime"),
)
"""File name of a shared library → the part that it is of."""
_SPDX = {
    "Python": "PSF-2.0",
    "OpenSSL": "Apache-2.0",
    "libffi": "MIT",
    "zlib": "Zlib",
    "bzip2": "bzip2-1.0.6",
    "xz": "0BSD",
    "Expat": "MIT",
    "mpdecimal": "BSD-2-Clause",
    "LibYAML": "MIT",
    "Microsoft Visual C++ Runtime": "LicenseRef-Microsoft-Visual-C++-Runtime",
}
_SENT = {
    "libbpf": ("1.1.2-0+deb12u1", "BSD-2-Clause", ()),
    "libelf": ("0.188-2.1", "LGPL-3.0-or-later", ("LGPL-3.0.txt", "GPL-3.0.txt")),
}
"""What node pods get with the node side, unchanged from Debian 12 (bpf/libraries.py): version, the
licence that it is taken under, texts beside Debian's own. The sources are Debian's, by version."""
_ALWAYS = ("Expat", "LibYAML", "OpenSSL", "Python", "bzip2", "mpdecimal", "xz", "zlib")
"""Parts that extension modules or the interpreter may have linked in, where no file shows it."""


def parts(inside: Inside) -> list[Part]:
    """Return the parts of a frozen program but our own.

    Raises:
        LookupError: a part has no licence that is known, or is under the GPL alone.
    """
    found = [_of(each) for each in inside.distributions() if each.name != "kubectl-ebpfnet"]
    found.append(_of(metadata.distribution("pyinstaller"), _BOOTLOADER))
    names = {_library(name) for name in inside.libraries} | set(_ALWAYS)
    found += [*(_carried(name) for name in names), *_sent()]
    return sorted(found, key=lambda part: part.name.lower())


def write(inside: Inside, into: Path) -> list[Part]:
    """Write LICENSE, and the licences of the parts, into a folder; return the parts.

    Raises:
        LookupError: as `parts`.
    """
    shutil.copy(ROOT / "LICENSE", into / "LICENSE")
    found = parts(inside)
    for part in found:
        folder = into / "licenses" / part.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for file in part.files:
            shutil.copy(file, folder / file.name)
    return found


def _sent() -> Iterator[Part]:
    for name, (version, license, texts) in _SENT.items():
        if list(BUILT.glob(f"{name}-*.so")):
            files = (BUILT / f"{name}.copyright", *(TEXTS / text for text in texts))
            yield Part(name, version, license, files)


def _of(distribution: metadata.Distribution, license: str = "") -> Part:
    name = distribution.name
    license = license or _CHOSEN.get(name) or _said(distribution)
    files = tuple(sorted(_files(distribution)))
    if not files or not license:
        raise LookupError(f"{name}: no licence, or no text of it")
    if _GPL.search(license) and " WITH " not in license and "LGPL" not in license:
        raise LookupError(f"{name} is under {license}: it must not ship")
    return Part(name, distribution.version, license, files, on_pypi=True)


def _said(distribution: metadata.Distribution) -> str:
    said = distribution.metadata
    classifiers = [
        text for text in said.get_all("Classifier") or () if text.startswith("License ::")
    ]
    fields = (said["License-Expression"], said["License"], *classifiers, "")
    # Some have the whole text where others have the name.
    return next(
        text.rpartition(" :: ")[2] for text in fields if text is not None and "\n" not in text
    )


def _files(distribution: metadata.Distribution) -> Iterator[Path]:
    for file in distribution.files or ():
        left_out = file.name == _LEFT_OUT.get(distribution.name)
        if ".dist-info" in file.parts[0] and _LICENSE_FILE.match(file.name) and not left_out:
            yield Path(str(file.locate()))


def _library(file: str) -> str:
    for pattern, name in _LIBRARIES:
        if re.match(pattern, file, re.IGNORECASE):
            return name
    raise LookupError(f"{file}: a library of nobody that release/licenses.py knows")


def _carried(name: str) -> Part:
    if name == "Python":
        version = ".".join(map(str, sys.version_info[:3]))
        return Part(name, version, _SPDX[name], (_python(),))
    text = TEXTS / f"{name.replace(' ', '-')}.txt"
    if not text.is_file():
        raise LookupError(f"{name}: no text of its licence at {text}")
    return Part(name, "", _SPDX[name], (text,))


def _python() -> Path:
    places = (Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix))
    for place in places:
        if (place / "LICENSE.txt").is_file():
            return place / "LICENSE.txt"
    raise LookupError(f"no LICENSE.txt of Python in {' or '.join(map(str, places))}")
