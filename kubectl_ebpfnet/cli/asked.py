"""What was asked, a cluster or a capture, for the commands that an answer or a hint proposes.

kubectl acts on the current context, and a plugin of it reads a cluster where no capture is named:
what is pasted must name what the run named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.shell import word

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.path import Path

_CHOOSE = ("kubeconfig", "context", "cluster", "user", "server")
"""Flags that choose a cluster; none of them is a secret."""
_COMMAND = re.compile(r"kubectl (?P<ours>ebpfnet )?(?P<verb>(?!ebpfnet)[a-z][a-z-]*)(?![\w-])")
_IN_PROSE = re.compile(rf"(?<=`){_COMMAND.pattern}")
_READ_CAPTURES = ("path", "flows", "programs")
"""Commands whose answer of a capture says as much; the others are proposed to ask, or to send."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, by flags.

    Attributes:
        cluster: words for a shell: `--context prod`; "" for the current context.
        capture: words for a shell: `--from case.zip`; "" for a cluster.
    """

    cluster: str = ""
    capture: str = ""

    def command(self, text: str) -> str:
        """Return a command line for what was asked: a plugin's flags stand behind its name."""
        return _COMMAND.sub(self._addressed, text, count=1) if _COMMAND.match(text) else text

    def prose(self, text: str) -> str:
        """Return a text, each command that stands in it in backticks for what was asked.

        A name in it may be anybody's, with backticks in quotes: words that a shell reads as more
        than words are not put there.
        """
        if "'" in self.cluster + self.capture:
            return text
        return _IN_PROSE.sub(self._addressed, text)

    def path(self, path: Path) -> Path:
        """Return an answer of `path` whose commands are for what was asked."""
        if not self.cluster and not self.capture:
            return path
        fix = path.fix
        if fix is not None:
            fix = replace(fix, text=self.prose(fix.text), command=self.command(fix.command))
        findings = tuple(replace(f, detail=self.prose(f.detail)) for f in path.findings)
        return replace(path, fix=fix, findings=findings)

    def _addressed(self, found: re.Match[str]) -> str:
        captured = self.capture and found["ours"] and found["verb"] in _READ_CAPTURES
        more = self.capture if captured else self.cluster
        return " ".join(filter(None, (found[0], more)))


def asked(flags: Mapping[str, Any], capture: str = "") -> Asked:
    """Return what was asked.

    Args:
        flags: kubectl's, as given: field of ConnectionOptions → value.
        capture: of --from, "" without it; `-`, standard input, cannot be asked again.
    """
    chosen = [f"--{name} {word(flags[name])}" for name in _CHOOSE if flags.get(name)]
    again = f"--from {word(capture)}" if capture not in ("", "-") else ""
    return Asked(" ".join(chosen), again)
