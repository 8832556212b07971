"""The answer to a shell, in Cobra's form (completions.go): `value<TAB>description` lines, then the
sum of directives, `:N`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FILES, NO_SPACE, NO_FILES = 0, 2, 4
"""Directives: the shell completes file names where nothing else fits; it adds no space behind the
value; it completes no file names."""
_MOST = 10_000
_LONGEST_DESCRIPTION = 120

Pairs = Iterable[tuple[str, str]]
"""Values and what they are, "" for nothing."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Values for a word, in the order in which they are shown, and the directives."""

    pairs: Pairs = ()
    directive: int = NO_FILES

    def answer(self, word: str) -> str:
        """Return the lines for the values that begin with what was typed; of `--flag=word` the
        part behind the `=`, as Cobra's shell scripts expect."""
        lines: list[str] = []
        for value, does in self.pairs:
            # What a terminal would obey comes from a kubeconfig or a capture at worst: never shown.
            if value.startswith(word) and value.isprintable() and len(lines) < _MOST:
                shown = does[:_LONGEST_DESCRIPTION] if does.isprintable() else ""
                lines.append(f"{value}\t{shown}".rstrip())
        return "\n".join([*lines, f":{self.directive}"]) + "\n"


NOTHING = Candidates()
A_FILE = Candidates(directive=FILES)
