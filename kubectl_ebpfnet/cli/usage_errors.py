"""Turn typer's errors about a command line into kubectl's words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from typing import Any

from typer import TyperException

from kubectl_ebpfnet.cli.help import PROGRAM
from kubectl_ebpfnet.errors import EbpfnetError, UsageError

_EXTRA = re.compile(r"unexpected extra argument(?:s|\(s\))? \((\S+?)[ )]", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}(/(tcp|udp))?", re.ASCII)


def as_usage_error(error: TyperException) -> EbpfnetError:
    """Return the error of errors.py for an error of typer, with a hint to the command's --help."""
    if error.exit_code != UsageError.exit_code:
        return EbpfnetError(error.format_message())
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    extra = _EXTRA.search(error.format_message())
    if extra is None:
        return UsageError(_message(error), hint=f"See '{command} --help' for usage.")
    word = extra[1]
    hint = f"See '{command} --help' for usage."
    if _PORT.fullmatch(word):
        hint = f"a port is written with its address: ADDRESS:{word}"
    return UsageError(f"unexpected argument: {word}", hint=hint)


_ALIKE = 0.8
"""Least likeness of two flags' names (difflib's ratio, without the dashes) to be a slip of the pen.
click takes 0.6 with them, and offers --proxy-url for --dry-run."""


def _alike(option: str, known: Iterable[str]) -> Iterator[str]:
    name = option.lstrip("-")
    for flag in known:
        if SequenceMatcher(None, name, flag.lstrip("-")).ratio() >= _ALIKE:
            yield flag


def _message(error: Any) -> str:
    option = getattr(error, "option_name", None)
    param = getattr(error, "param", None)
    kind = type(error).__name__
    if kind == "NoSuchOption":
        near = sorted(_alike(str(option), error.possibilities or ()))
        return f"unknown flag: {option}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    if kind == "BadOptionUsage":
        return f"flag needs a value: {option}" if "requires" in error.message else error.message
    if kind == "MissingParameter" and param is not None:
        flag = f"{param.opts[0]} " if param.param_type_name == "option" else ""
        return f"{flag}{param.metavar} is missing"
    return str(error.format_message()).rstrip(".")
