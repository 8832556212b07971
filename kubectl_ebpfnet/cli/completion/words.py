"""Complete a word: commands, flags and their values, and the objects that commands take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubectl_ebpfnet.cli.completion import targets, values
from kubectl_ebpfnet.cli.completion.candidates import NOTHING, Candidates, Pairs
from kubectl_ebpfnet.cli.completion.given import Given, given
from kubectl_ebpfnet.cli.completion.names import names_for
from kubectl_ebpfnet.cli.object_words import is_type, split
from kubectl_ebpfnet.errors import UsageError


def complete(words: Sequence[str], commands: Any) -> str:
    """Return the completion lines that kubectl reads.

    Args:
        words: words after the plugin's name; the last word is incomplete, perhaps "".
        commands: the group of all commands.

    Raises:
        EbpfnetError: the names of objects cannot be read.
    """
    *before, word = words or [""]
    said = given(before, ())
    if not said.words:
        if said.pending:
            none = Given(("",), flags=said.flags)
            return values.of_flag(none, said.pending, None, word).answer(word)
        return Candidates(commands.summaries.items()).answer(word)
    if said.words == ("help",):
        return Candidates(commands.summaries.items()).answer(word)
    command = commands.get_command(None, said.words[0])
    if command is None:
        return NOTHING.answer(word)
    said = given(before, command.params)
    flags = {o: p for p in command.params if p.param_type_name == "option" for o in p.opts}
    if said.pending:
        return values.of_flag(said, said.pending, flags.get(said.pending), word).answer(word)
    flag, equals, value = word.partition("=")
    if equals and flag.startswith("-") and flag in flags:
        long = max(flags[flag].opts, key=len)
        return values.of_flag(said, long, flags[flag], value).answer(value)
    if word.startswith("-"):
        return Candidates(_flag_rows(command)).answer(word)
    return _positional(said, word).answer(word)


def _positional(said: Given, word: str) -> Candidates:
    command, (places, kind) = said.words[0], _typed(said.words[1:])
    if command in values.WORDS:
        return values.words_of(said)
    without_source = command == "path" and "--selector" in said.flags
    target = targets.place(command, len(places) + without_source)
    if target is None:
        return NOTHING
    names = names_for(said)
    namespace = said.flags.get(target.namespace) or said.namespace
    if target is targets.DESTINATION and not namespace:
        namespace = _namespace_in(places[0]) if places else ""
    found = targets.candidates(target, f"{kind}{word}", names, namespace)
    pairs = ((value.removeprefix(kind), does) for value, does in found.pairs)
    return Candidates(pairs, found.directive)


def _typed(words: Sequence[str]) -> tuple[list[str], str]:
    """Return positional words with `TYPE NAME` as `TYPE/NAME`, and `TYPE/` where the next word is
    the name."""
    places: list[str] = []
    kind = ""
    for word in words:
        if kind:
            places.append(kind + word)
            kind = ""
        elif is_type(word):
            kind = f"{word}/"
        else:
            places.append(word)
    return places, kind


def _namespace_in(source: str) -> str:
    """Return the namespace of a source that is NAMESPACE/POD, "" for other forms."""
    try:
        return split(source, "").namespace
    except UsageError:
        return ""


def _flag_rows(command: Any) -> Pairs:
    for param in command.params:
        if param.param_type_name == "option" and not param.hidden:
            said = command.text.help_of(param)
            if said is not None:
                yield max(param.opts, key=len), said
