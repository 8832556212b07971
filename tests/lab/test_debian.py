"""Which archive another Debian is made from, and how it is reached: as this machine's apt does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.cluster.image import debian

DEB822 = """Types: deb deb-src
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: {}
Suites: trixie
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sources.list", "deb http://mirror/debian trixie main\n", "http://mirror/debian"),
        ("sources.list", "deb [arch=amd64] https://m/x/debian/ sid main", "https://m/x/debian"),
        ("sources.list.d/a.sources", DEB822.format("http://m/debian/"), "http://m/debian"),
        ("sources.list.d/a.sources.off", DEB822.format("http://m/debian"), ""),
        ("sources.list", "# deb http://mirror/debian trixie main\n", ""),
        ("sources.list", "deb http://mirror/debian-security trixie-security main\n", ""),
        ("sources.list", "deb http://archive.ubuntu.com/ubuntu noble main\n", ""),
        ("sources.list.d/none", "", ""),
    ],
)
def test_the_archive_is_that_of_the_machine(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert debian.mirror(tmp_path) == (expected or "http://deb.debian.org/debian")


def test_another_apt_is_told_how_to_reach_it_and_nothing_else() -> None:
    dumped = [
        'Acquire::http::Proxy "http://proxy:3128";',
        'Acquire::https::CAInfo "/etc/ssl/ours.pem";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::IndexTargets::deb::Packages::Optional "0";',
        'APT::Architecture "arm64";',
        'DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";',
    ]
    assert debian.reach(dumped).splitlines() == dumped[:3]
