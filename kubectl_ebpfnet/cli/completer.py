"""What a word may be completed to: names of commands, flags, and the words that flags take.

The answer's form is Cobra's (completions.go): `value<TAB>description` lines, then `:N` with
directives added up: 2 no space after it, 4 no file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kubectl_ebpfnet.cli.arguments import PROTOCOLS
from kubectl_ebpfnet.cli.flags import CONNECTION, VERBOSITY
from kubectl_ebpfnet.render.path.formats import FORMATS
from kubectl_ebpfnet.render.text.style import COLOR_MODES

_FILES, _NO_SPACE, _NO_FILES = 0, 2, 4
_VALUES: dict[tuple[str, str], Sequence[str]] = {
    ("path", "--output"): FORMATS,
    ("path", "--protocol"): tuple(PROTOCOLS),
    ("path", "--color"): COLOR_MODES,
    ("version", "--output"): ("json",),
}
_SENDERS = {
    "pod/": "a pod",
    "deploy/": "a ready pod of a Deployment",
    "sts/": "a ready pod of a StatefulSet",
    "ds/": "a ready pod of a DaemonSet",
}
_PLACES: dict[tuple[str, int], dict[str, str]] = {
    ("path", 0): _SENDERS,
    ("netkat", 0): {"node/": "a node"},
    ("path", 1): {"pod/": "a pod", "svc/": "a Service", "node/": "a node"},
}
_CAPTURED = {"pod/": "a pod", "node/": "a node"}

Pairs = Iterable[tuple[str, str]]


def complete(words: Sequence[str], commands: Any) -> str:
    """The lines for kubectl.

    Args:
        words: after the plugin's name; the last one is still being typed, perhaps "".
        commands: the tree of commands.
    """
    *before, word = words or [""]
    plain, waiting = _read(before, _takes_value(()))
    if not plain:
        if waiting:
            return _said((), word, _FILES)
        return _said(((n, does) for n, (_, does) in commands.modules.items()), word)
    command = commands.get_command(None, plain[0])
    if command is None:
        return _said((), word)
    flags = {spelling: param for param in command.params for spelling in _flags_of(param)}
    plain, waiting = _read(before, _takes_value(command.params))
    name, at = plain[0], len(plain) - 1
    if waiting:
        return _value(name, flags[waiting], word)
    flag, equals, value = word.partition("=")
    if equals and flag in flags:
        return _value(name, flags[flag], value, f"{flag}=")
    if word.startswith("-"):
        return _said(_flag_rows(command.params), word)
    places = _CAPTURED if name == "capture" else _PLACES.get((name, at), {})
    return _said(places.items(), word, _NO_FILES | _NO_SPACE)


def _value(command: str, param: Any, word: str, prefix: str = "") -> str:
    values = _VALUES.get((command, max(param.opts, key=len)))
    if values is None:
        files = param.metavar == "FILE"
        return _said((), word, _FILES if files else _NO_FILES)
    return _said(((prefix + value, "") for value in values), prefix + word)


def _flag_rows(params: Sequence[Any]) -> Pairs:
    for param in params:
        if param.param_type_name == "option" and not param.hidden:
            yield max(param.opts, key=len), param.help or ""


def _flags_of(param: Any) -> list[str]:
    return list(param.opts) if param.param_type_name == "option" else []


def _takes_value(params: Sequence[Any]) -> set[str]:
    """Spellings of the flags after which a value follows; -v's is optional."""
    found = {s for flag in CONNECTION if flag.metavar for s in flag.spellings}
    for param in params:
        if param.param_type_name == "option" and not param.is_flag:
            found.update(param.opts)
    return found - set(VERBOSITY.spellings)


def _read(words: Sequence[str], takes_value: set[str]) -> tuple[list[str], str]:
    """The words that are no flags, and the flag that still waits for its value, or ""."""
    plain: list[str] = []
    waiting = ""
    for word in words:
        if waiting:
            waiting = ""
        elif word in takes_value:
            waiting = word
        elif not word.startswith("-"):
            plain.append(word)
    return plain, waiting


def _said(pairs: Pairs, word: str, directive: int = _NO_FILES) -> str:
    lines = [f"{value}\t{does}".rstrip() for value, does in pairs if value.startswith(word)]
    return "\n".join([*lines, f":{directive}"]) + "\n"
