"""Complete the value of a flag, and words that are no objects."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.cli.completion import targets
from kubectl_ebpfnet.cli.completion.candidates import (
    A_FILE,
    FILES,
    NO_FILES,
    NO_SPACE,
    NOTHING,
    Candidates,
)
from kubectl_ebpfnet.cli.completion.given import Given
from kubectl_ebpfnet.cli.completion.names import SECONDS, captured, names_for
from kubectl_ebpfnet.cli.completion.scripts import SCRIPTS
from kubectl_ebpfnet.cli.object_words import is_name

WORDS = ("completion", "show-record")
"""Commands with one word that is no object."""
_KUBECONFIG = {"--context": "contexts", "--cluster": "clusters", "--user": "users"}
_NAMESPACES = ("--namespace", "--to-namespace")
_NODES = {("path", "--via"), ("probe-lb", "--from-node")}
_DESTINATIONS = {("capture", "--to"), ("flows", "--to")}


def of_flag(said: Given, flag: str, param: Any, word: str) -> Candidates:
    """Return what the value of a flag may be.

    Args:
        said: the words before; the first is the command.
        flag: in its long form.
        param: typer's, None before the command's name.
        word: what was typed of the value.

    Raises:
        EbpfnetError: the names of objects cannot be read.
    """
    command = said.words[0]
    if flag in _KUBECONFIG:
        from kubectl_ebpfnet.cluster.client import kubeconfig

        found = kubeconfig.names(said.connection(SECONDS), _KUBECONFIG[flag])
        return Candidates((name, "") for name in found)
    if flag in _NAMESPACES:
        names = names_for(said)
        return Candidates((name, "") for name in names.of("namespaces", "") if is_name(name))
    if (command, flag) in _NODES or (command, flag) in _DESTINATIONS:
        target = targets.NODE if (command, flag) in _NODES else targets.DESTINATION
        names = names_for(said)
        return targets.candidates(target, word, names, said.namespace)
    if flag == "--from":
        return _captures(word)
    if (command, flag) == ("probe-lb", "--port") and len(said.words) > 1:
        name = said.words[-1].rpartition("/")[2]
        return targets.ports_of(names_for(said), said.namespace, name)
    if param is None:
        return A_FILE if flag == "--kubeconfig" else NOTHING
    if known := [value for value in _known(flag, param.help or "") if value.startswith(word)]:
        template = len(known) == 1 and known[0].endswith("=")
        return Candidates(
            ((value, "") for value in known), NO_FILES | (NO_SPACE if template else 0)
        )
    return A_FILE if param.metavar == "FILE" else NOTHING


def words_of(said: Given) -> Candidates:
    """Return what the word of a command of WORDS may be: a shell, or a record's number."""
    command, *more = said.words
    if more:
        return NOTHING
    if command == "completion":
        return Candidates((shell, "") for shell in SCRIPTS)
    bundle = captured(said.flags.get("--from", ""))
    records = bundle.records if bundle is not None else ()
    return Candidates((str(each.number), f"{each.place}: {each.command}") for each in records)


def _known(flag: str, said: str) -> Sequence[str]:
    """Return the values of a flag that has few: those that its help lists, as `One of: a, b=…`."""
    if flag == "--node-access":
        from kubectl_ebpfnet.collect.ask.access import Mode

        return tuple(Mode)
    if flag == "--dry-run":
        from kubectl_ebpfnet.model.dry_run import DryRun

        return tuple(DryRun)
    listed = re.match(r"One of: ([^;(]+)", said)
    return [word.strip().removesuffix("…") for word in listed[1].split(",")] if listed else ()


def _captures(word: str) -> Candidates:
    """Return the demos and the files beside them; where no demo fits, the shell completes files."""
    from kubectl_ebpfnet.capture.demo import DEMOS

    if not any(name.startswith(word) for name in DEMOS):
        return A_FILE
    with os.scandir() as entries:
        files = sorted(
            entry.name + ("/" if entry.is_dir() else "")
            for entry in entries
            if entry.name.startswith(word or ".") == bool(word)
        )
    fitting = [(name, said) for name, said in DEMOS.items() if name.startswith(word)]
    both = [*fitting, *((file, "") for file in files if file not in DEMOS)]
    only_a_folder = len(both) == 1 and both[0][0].endswith("/")
    return Candidates(both, NO_FILES | (NO_SPACE if only_a_folder else FILES))
