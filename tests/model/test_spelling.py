"""Which words are near enough to be offered."""

from __future__ import annotations

import pytest

from kubectl_ebpfnet.model.spelling import near

FLAGS = ("from", "to", "output", "protocol", "proxy-url", "to-namespace", "namespace", "timeout")


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("form", FLAGS, ["from"]),
        ("protocl", FLAGS, ["protocol"]),
        ("outptu", FLAGS, ["output"]),
        ("namespcae", FLAGS, ["namespace"]),
        ("to-namepsaces", FLAGS, ["to-namespace"]),
        ("dry-run", FLAGS, []),
        ("watch", FLAGS, []),
        ("tt", FLAGS, []),
        ("wbe", ("web", "wa", "db"), ["web"]),
        ("pth", ("path", "programs"), ["path"]),
        ("cliemt", ("client3", "client", "client2"), ["client", "client3", "client2"]),
        ("ca", ("ac",), []),
        ("abc", ("ca",), []),
        ("x" * 300, ("x" * 299,), []),
        ("web", (), []),
    ],
)
def test_near(word, known, found):
    assert near(word, known) == found
