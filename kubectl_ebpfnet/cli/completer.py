"""Complete a word: names of commands, flags, values of flags and kinds of targets.

The answer has Cobra's form (completions.go): `value<TAB>description` lines, then `:N`, the sum of
directives: 2 adds no space after the value, 4 completes no file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kubectl_ebpfnet.cli.destinations import PROTOCOLS
from kubectl_ebpfnet.cli.kubectl_flags import OPTIONAL_VALUE, takes_value
from kubectl_ebpfnet.render.path.formats import FORMATS
from kubectl_ebpfnet.render.text.style import COLOR_MODES

_FILES, _NO_SPACE, _NO_FILES = 0, 2, 4
_VALUES: dict[tuple[str, str], Sequence[str]] = {
    ("path", "--output"): FORMATS,
    ("path", "--protocol"): tuple(PROTOCOLS),
    ("path", "--color"): COLOR_MODES,
    ("version", "--output"): ("json",),
}
_SOURCES = {
    "pod/": "a pod",
    "deploy/": "a ready pod of a Deployment",
    "sts/": "a ready pod of a StatefulSet",
    "ds/": "a ready pod of a DaemonSet",
    "node/": "a node, as kubelet's probes; an address is a client outside",
}
_NODE_FLAGS = {("path", "--via"): {"node/": "a node"}}
_TARGETS: dict[tuple[str, int], dict[str, str]] = {
    ("path", 0): _SOURCES,
    ("netkat", 0): {"node/": "a node"},
    ("path", 1): {"pod/": "a pod", "svc/": "a Service", "node/": "a node"},
}
_CAPTURE_TARGETS = {"pod/": "a pod", "node/": "a node"}

Pairs = Iterable[tuple[str, str]]


def complete(words: Sequence[str], commands: Any) -> str:
    """Return the completion lines that kubectl reads.

    Args:
        words: words after the plugin's name; the last word is incomplete, perhaps "".
        commands: the group of all commands.
    """
    *before, word = words or [""]
    positional, pending_flag = _split(before, _takes_value(()))
    if not positional:
        if pending_flag:
            return _answer((), word, _FILES)
        return _answer(commands.summaries.items(), word)
    command = commands.get_command(None, positional[0])
    if command is None:
        return _answer((), word)
    flags = {spelling: param for param in command.params for spelling in _flags_of(param)}
    positional, pending_flag = _split(before, _takes_value(command.params))
    name, at = positional[0], len(positional) - 1
    if pending_flag:
        return _value(name, flags[pending_flag], word)
    flag, equals, value = word.partition("=")
    if equals and flag in flags:
        return _value(name, flags[flag], value, f"{flag}=")
    if word.startswith("-"):
        return _answer(_flag_rows(command.params), word)
    targets = _CAPTURE_TARGETS if name == "capture" else _TARGETS.get((name, at), {})
    return _answer(targets.items(), word, _NO_FILES | _NO_SPACE)


def _value(command: str, param: Any, word: str, prefix: str = "") -> str:
    flag = (command, max(param.opts, key=len))
    if flag in _NODE_FLAGS:
        return _answer(_NODE_FLAGS[flag].items(), word, _NO_FILES | _NO_SPACE)
    values = _VALUES.get(flag)
    if values is None:
        files = param.metavar == "FILE"
        return _answer((), word, _FILES if files else _NO_FILES)
    return _answer(((prefix + value, "") for value in values), prefix + word)


def _flag_rows(params: Sequence[Any]) -> Pairs:
    for param in params:
        if param.param_type_name == "option" and not param.hidden:
            yield max(param.opts, key=len), param.help or ""


def _flags_of(param: Any) -> list[str]:
    return list(param.opts) if param.param_type_name == "option" else []


def _takes_value(params: Sequence[Any]) -> set[str]:
    """Return the spellings of flags that need a value; that of -v and --dry-run is optional."""
    found = {flag for flag, takes in takes_value().items() if takes}
    for param in params:
        if param.param_type_name == "option" and not param.is_flag:
            found.update(param.opts)
    return found - set(OPTIONAL_VALUE)


def _split(words: Sequence[str], takes_value: set[str]) -> tuple[list[str], str]:
    """Return the positional words, and the flag that still needs a value, or ""."""
    positional: list[str] = []
    pending_flag = ""
    for word in words:
        if pending_flag:
            pending_flag = ""
        elif word in takes_value:
            pending_flag = word
        elif not word.startswith("-"):
            positional.append(word)
    return positional, pending_flag


def _answer(pairs: Pairs, word: str, directive: int = _NO_FILES) -> str:
    lines = [f"{value}\t{does}".rstrip() for value, does in pairs if value.startswith(word)]
    return "\n".join([*lines, f":{directive}"]) + "\n"
