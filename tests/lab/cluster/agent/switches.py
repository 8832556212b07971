"""What the replay agent else lacks, switched on for a while: the real program's cost, an agent that
hangs, long tables. cilium-dbg.c looks at these files.

Measured on Cilium 1.18: a start of `cilium-dbg` takes 45 ms of CPU whatever it prints, one of
`hubble` 28 ms, and 60,000 conntrack entries (24 MB) half a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.lab.cluster.config import NODES, Node


@contextmanager
def cost() -> Iterator[None]:
    """Let every command of every agent take the CPU of the real program."""
    files = [node.state / "agent-cost" for node in NODES]
    for file in files:
        file.touch()
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


@contextmanager
def hangs(node: Node) -> Iterator[None]:
    """Stop a node's agent, as SIGSTOP does: commands over its socket hang, `bpf` ones answer."""
    file = node.state / "agent-hangs"
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def more(node: Node, command: str, lines: Iterable[str]) -> Iterator[None]:
    """Let an agent print more lines after the answer to a command.

    Args:
        node: of the agent.
        command: its words after `cilium-dbg`.
        lines: to print.
    """
    file = node.state / "agent-more" / command
    file.parent.mkdir(exist_ok=True)
    with file.open("w") as out:
        out.writelines(f"{line}\n" for line in lines)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
