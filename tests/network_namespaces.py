"""Network namespaces of our own, with what a test puts into them. Needs root, Linux, iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Namespace:
    """A network namespace, and what this machine's kernel could not make in it."""

    name: str
    missing: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Where it can be entered."""
        return f"/run/netns/{self.name}"

    def run(self, *argv: str) -> bytes:
        """What a command prints in the namespace. Raises CalledProcessError when it fails."""
        whole = ("ip", "netns", "exec", self.name, *argv)
        return subprocess.run(whole, capture_output=True, check=True, timeout=30).stdout

    def tried(self, *argv: str) -> None:
        """Run a command; when it fails, note why in `missing`."""
        try:
            self.run(*argv)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            self.missing.append(f"{' '.join(argv)}: {said}")

    def set_up(self, lines: str, *program: str) -> None:
        """Try the program with the words of each line."""
        for line in lines.strip().splitlines():
            self.tried(*program, *line.split())

    def settle(self) -> None:
        """Wait until link-local addresses are no longer tentative: routes come with them."""
        deadline = time.monotonic() + _DEADLINE_S
        while b"tentative" in self.run("ip", "-6", "addr"):
            if time.monotonic() > deadline:
                raise TimeoutError("IPv6 addresses stayed tentative")
            time.sleep(0.05)


def why_not(*programs: str) -> str:
    """Why no namespace can be made here, or which of these programs is missing; "" when none."""
    if not sys.platform.startswith("linux"):
        return "not Linux"
    if os.geteuid() != 0:
        return "not root"
    missing = [name for name in ("ip", *programs) if not shutil.which(name)]
    return f"no {', '.join(missing)}" if missing else ""


@contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    """Make namespaces, and take them away again; this process's id is added to their names."""
    made = [Namespace(f"ebpfnet-{name}-{os.getpid()}") for name in names]
    with ExitStack() as stack:
        for each in made:
            subprocess.run(("ip", "netns", "add", each.name), check=True)
            delete = ("ip", "netns", "del", each.name)
            stack.callback(subprocess.run, delete, capture_output=True, check=False)
        yield made
