"""Turn typer's errors about a command line into kubectl's words."""

from __future__ import annotations

import re
from typing import Any

from typer import TyperException

from kubectl_ebpfnet.errors import EbpfnetError, UsageError
from kubectl_ebpfnet.model.spelling import near

_EXTRA = re.compile(r"unexpected extra argument(?:s|\(s\))? \((\S+?)[ )]", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}(/(tcp|udp))?", re.ASCII)


def as_usage_error(error: TyperException) -> EbpfnetError:
    """Return the error of errors.py for an error of typer."""
    if error.exit_code != UsageError.exit_code:
        return EbpfnetError(error.format_message())
    extra = _EXTRA.search(error.format_message())
    if extra is None:
        return UsageError(_message(error), hint=_hint(error))
    word = extra[1]
    hint = f"a port is written with its address: ADDRESS:{word}" if _PORT.fullmatch(word) else ""
    return UsageError(f"unexpected argument: {word}", hint=hint)


def _hint(error: Any) -> str:
    """Return the flags that an unknown one may have been meant to be."""
    context: Any = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if type(error).__name__ != "NoSuchOption" or context is None or option is None:
        return ""
    if option == "--port":
        return "the port stands behind the destination: svc/web:80, 1.1.1.1:53/udp"
    flags = [flag for each in context.command.get_params(context) for flag in each.opts]
    found = near(str(option).lstrip("-"), [flag[2:] for flag in flags if flag[:2] == "--"])
    return f"did you mean {' or '.join(f'--{each}' for each in found)}?" if found else ""


def _message(error: Any) -> str:
    option = getattr(error, "option_name", None)
    param = getattr(error, "param", None)
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return f"unknown flag: {option}"
    if kind == "BadOptionUsage":
        return f"flag needs a value: {option}" if "requires" in error.message else error.message
    if kind == "MissingParameter" and param is not None:
        flag = f"{param.opts[0]} " if param.param_type_name == "option" else ""
        return f"{flag}{param.metavar} is missing"
    return str(error.format_message()).rstrip(".")
