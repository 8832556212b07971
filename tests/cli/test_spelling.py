"""pflag's spelling of flags, which click does not know."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.cli.app import normalize
from kubectl_ebpfnet.cli.help import click_spelling
from kubectl_ebpfnet.errors import UsageError

SWITCHES = {"-v": False, "--v": False, "-o": False, "--output": False, "-n": False, "--bare": True}


@pytest.mark.parametrize(
    ("typed", "clicks"),
    [
        ("a b", "a b"),
        ("-o=json", "-o json"),
        ("-o json", "-o json"),
        ("-ojson", "-ojson"),
        ("--output=json", "--output=json"),
        ("-n=a=b", "-n a=b"),
        ("--bare", "--bare"),
        ("--bare=true x", "--bare x"),
        ("--bare=false x", "x"),
        ("-v a", "-v 1 a"),
        ("a -v", "a -v 1"),
        ("-v 4 a", "-v 4 a"),
        ("--v=9", "-v 9"),
        ("--v 9", "-v 9"),
        ("-v=0", "-v 0"),
        ("-v=99", "-v 10"),
        ("-vv", "-v 2"),
        ("-vvv a", "-v 3 a"),
        ("-v4", "-v4"),
        ("-v -o=json", "-v 1 -o json"),
        ("-n -v a", "-n -v a"),
        ("-- -v -o=json", "-- -v -o=json"),
        ("--unknown=x -x=y", "--unknown=x -x=y"),
    ],
)
def test_spelling(typed, clicks):
    assert list(click_spelling(typed.split(), SWITCHES)) == clicks.split()


@pytest.mark.parametrize("typed", ["-v=x", "-v=", "--v=-1", "--bare=maybe"])
def test_what_has_no_spelling(typed):
    with pytest.raises(UsageError):
        list(click_spelling(typed.split(), SWITCHES))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("", "--help"),
        ("help", "--help"),
        ("help path", "path --help"),
        ("--version -o json", "version -o json"),
        ("-n shop path a b", "path -n shop a b"),
        ("--user=x -s y version", "version --user=x -s y"),
        ("--insecure-skip-tls-verify version", "version --insecure-skip-tls-verify"),
        ("-n shop", "--help"),
        ("--nope path", "--nope path"),
        ("-h", "-h"),
        ("path -n shop a", "path -n shop a"),
    ],
)  # fmt: skip
def test_what_stands_before_the_command(typed, read):
    assert normalize(typed.split()) == read.split()
