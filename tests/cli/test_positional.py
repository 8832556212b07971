"""Words that are joined as kubectl and netcat read them."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.cli.positional import joined, typed_names
from tests.cli.console import run

SWITCHES = {"--from": False, "-4": True, "-v": False}


@pytest.mark.parametrize(
    ("words", "count", "read"),
    [
        ("pod/a 1.1.1.1", 2, "pod/a 1.1.1.1"),
        ("pod client", 2, "pod client"),
        ("pod client 1.1.1.1:80", 2, "pod/client 1.1.1.1:80"),
        ("po client svc", 2, "po/client svc"),
        ("pod/a svc web", 2, "pod/a svc/web"),
        ("pod a svc web", 2, "pod/a svc/web"),
        ("pod a svc web 80", 2, "pod/a svc/web:80"),
        ("pod/a 1.1.1.1 80", 2, "pod/a 1.1.1.1:80"),
        ("pod/a 1.1.1.1 53/udp", 2, "pod/a 1.1.1.1:53/udp"),
        ("pod/a fd00::1 80", 2, "pod/a [fd00::1]:80"),
        ("pod/a [fd00::1] 80", 2, "pod/a [fd00::1]:80"),
        ("--from x pod -4 a -v 1 1.1.1.1", 2, "--from x pod/a -4 1.1.1.1 -v 1"),
        ("-4 -- pod a 1.1.1.1", 2, "-4 -- pod/a 1.1.1.1"),
        ("node n1", 1, "node/n1"),
        ("a b", 1, "a b"),
        ("pod pod svc", 2, "pod pod svc"),
        ("pod/a b c", 2, "pod/a b c"),
        ("pod/a pod/b 80 81", 2, "pod/a pod/b 80 81"),
        ("pod a_b 1.1.1.1", 2, "pod a_b 1.1.1.1"),
        ("pod a", 0, "pod a"),
        (" ".join(["pod"] * 40), 2, " ".join(["pod"] * 40)),
    ],
)  # fmt: skip
def test_joined(words, count, read):
    assert joined(words.split(), SWITCHES, count) == read.split()


def test_the_names_of_a_type():
    assert typed_names(["pod", "a", "b"]) == ["pod/a", "pod/b"]
    for words in ([], ["pod"], ["pod", "node/b"], ["web", "db"], ["pod/a", "b"]):
        assert typed_names(words) == words


def test_of_a_command():
    asked = run("path", "pod/client", "1.1.1.1:80", "--from", "demo")
    for words in (("pod", "client", "1.1.1.1:80"), ("pod/client", "1.1.1.1", "80")):
        assert run("path", *words, "--from", "demo").stdout == asked.stdout
    programs = run("programs", "pod/client", "--from", "demo").stdout
    assert run("programs", "pod", "client", "--from", "demo").stdout == programs
