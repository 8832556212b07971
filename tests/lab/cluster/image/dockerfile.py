"""Dockerfiles read into instructions: the few kinds that the lab can carry out without Docker.

Source: Docker's "Dockerfile reference" (docs.docker.com/reference/dockerfile). A kind, a flag or a
form that is not here is an error, so that the lab never builds less than Docker would.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KINDS = (
    "FROM", "RUN", "COPY", "ENV", "ARG", "LABEL", "USER", "WORKDIR", "ENTRYPOINT", "CMD",
)  # fmt: skip
_JSON_ALONE = ("ENTRYPOINT", "CMD")
_NOT_PLAIN = re.compile(r"\\|\$\{\w*[^\w}]")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        kind: one of KINDS.
        text: what follows the kind; continued lines are one line, comments are gone.
        line: number of its first line, from 1.
    """

    kind: str
    text: str
    line: int

    def words(self) -> tuple[str, ...]:
        """The words of COPY, of FROM, or of a JSON form."""
        return tuple(json.loads(self.text)) if self.text[:1] == "[" else tuple(self.text.split())

    def pairs(self, values: Mapping[str, str]) -> dict[str, str]:
        """The `key=value` pairs of ENV or LABEL.

        Args:
            values: of ARG and ENV, which `$NAME` and `${NAME}` stand for; one that is not here is
                empty, as in Docker.
        """
        found = {}
        for word in shlex.split(self.text):
            key, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f"line {self.line}: {self.kind} wants key=value, not {word!r}")
            found[key] = expanded(value, values)
        return found


def read(text: str) -> tuple[Instruction, ...]:
    """Read a Dockerfile.

    Raises:
        ValueError: an instruction, flag or form that is not understood; it says where.
    """
    found: list[Instruction] = []
    parts: list[str] = []
    begun = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not parts):
            continue
        begun = begun if parts else number
        parts.append(line.rstrip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            found.append(_instruction(" ".join(parts), begun))
            parts = []
    if parts:
        raise ValueError(f"line {begun}: the last line is continued")
    _check_from(found)
    return tuple(found)


def _instruction(text: str, line: int) -> Instruction:
    kind, _, rest = text.partition(" ")
    kind, rest = kind.upper(), rest.strip()
    if kind not in KINDS:
        raise ValueError(f"line {line}: {kind} is not known here")
    if rest.startswith("--") or "<<" in rest:
        raise ValueError(f"line {line}: {kind} with a flag or a here-document is not known here")
    if kind in _JSON_ALONE and not rest.startswith("["):
        raise ValueError(f"line {line}: {kind} has to be a JSON list")
    if kind == "RUN" and rest.startswith("["):
        raise ValueError(f"line {line}: RUN has to be a shell's line")
    found = Instruction(kind, rest, line)
    if kind in ("ENV", "LABEL", "WORKDIR") and _NOT_PLAIN.search(rest):
        raise ValueError(f"line {line}: {kind} with a backslash or ${{…:…}} is not known here")
    if kind in (*_JSON_ALONE, "COPY"):
        found.words()
    return found


def _check_from(found: Iterable[Instruction]) -> None:
    kinds = [one.kind for one in found]
    if kinds[:1] != ["FROM"] or kinds.count("FROM") != 1:
        raise ValueError("one FROM has to come first, and only one")


def expanded(value: str, values: Mapping[str, str]) -> str:
    """A value with its variables replaced."""
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], ""), value)
