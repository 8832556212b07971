"""Words that a shell takes as they are."""

from __future__ import annotations

import subprocess

import pytest

from kubectl_ebpfnet.model.shell import word


@pytest.mark.parametrize("name", ["web-1", "app=web,tier=x", "10.0.0.1:80", "net.ipv4.conf.eth0/7"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert word(name) == name


@pytest.mark.parametrize(
    "name", ["$(id)", "`id`", "a;b", "a b", "it's", "a\nb", "", "~", "*", '"', "a|b", "a\\b"]
)
def test_a_shell_takes_any_name_as_one_word(name: str) -> None:
    script = f"printf '<%s>' {word(name)}"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
    assert shown.decode() == f"<{name}>"
