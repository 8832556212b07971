"""Make typer read flags and print help as kubectl does.

kubectl's flags are pflag's (github.com/spf13/pflag): `-o=json`, `--switch=true`. click, inside
typer, takes `=json` for the value of the first and refuses the second, so words are rewritten to
click's spelling first. The help has kubectl's order: summary, description, examples, flags.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kubectl_ebpfnet.cli.dry_run import BARE
from kubectl_ebpfnet.cli.kubectl_flags import CONNECTION, NO_EFFECT, VERBOSITY
from kubectl_ebpfnet.cli.positional import joined
from kubectl_ebpfnet.cli.terminal import Progress, for_terminal
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.dataclass import dataclass

PROGRAM = "kubectl ebpfnet"
OPTIONS_HINT = f"""
Use "{PROGRAM} options" for the kubectl flags that every command accepts.
"""
_LEVEL = VERBOSITY.spellings
_MOST_VERBOSE = 10
_NAMESPACE = "namespace"
_SHARED = frozenset(flag.field for flag in (*CONNECTION, VERBOSITY))
_LOG_ALONE = "Log HTTP requests on stderr: -v=6 to -v=9"
_BARE = {"--dry-run": BARE, "--print-rbac": "all"}
"""What a flag without a value means; pflag's NoOptDefVal."""
_TRUE = ("true", "True", "TRUE", "t", "T", "1")
_FALSE = ("false", "False", "FALSE", "f", "F", "0")
SETTINGS = {"help_option_names": ["-h", "--help"], "terminal_width": 80}


@dataclass(frozen=True, slots=True)
class CommandText:
    """The texts of a command's help.

    Attributes:
        usage: the words after the command's name.
        summary: one line, at the head of the help.
        description: paragraphs, wrapped at 80 columns.
        examples: pairs of a comment and the command line after `kubectl ebpfnet`.
        namespace: help of -n, "" where it has no meaning and is not shown.
        evidence: -v shows evidence, and does not only log requests.
        connects: a cluster may be asked; without, kubectl's flags are accepted but not shown.
    """

    usage: str
    summary: str
    description: str
    examples: tuple[tuple[str, str], ...]
    namespace: str = "Namespace of the pod"
    evidence: bool = True
    connects: bool = True

    def help_of(self, param: Any) -> str | None:
        """Return the help of a flag that several commands share, None where it is not shown."""
        if not self.connects and param.name in _SHARED:
            return None
        if param.name == _NAMESPACE:
            return self.namespace or None
        if param.name == VERBOSITY.field and not self.evidence:
            return _LOG_ALONE
        return param.help or ""


class _TextType:
    """Replace typer's coercion, which imports pydantic (60 ms) to make a str of a str."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002 -- typer's
        if value is None and (param.multiple or param.nargs == -1):
            return ()
        return value


class Command(TyperCommand):
    """A command whose values stay text; arguments.py reads them."""

    text: CommandText

    def __init__(self, name: str | None, **more: Any) -> None:
        super().__init__(name, **more)
        for param in self.params:
            _unchecked(param)
        self._takes = {s: bool(getattr(p, "is_flag", False)) for p in self.params for s in p.opts}

    def get_help_option(self, ctx: Any) -> Any:
        """Return click's --help option, without typer's coercion."""
        return _unchecked(super().get_help_option(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after rewriting them to click's spelling."""
        spelled = list(click_spelling(args, self._takes))
        places = [param for param in self.params if param.param_type_name == "argument"]
        if places and all(param.nargs == 1 for param in places):
            spelled = joined(spelled, self._takes, len(places))
        rest = super().parse_args(ctx, spelled)
        for param in self.params:
            _refuse_empty(ctx, param)
        return rest

    def get_help(self, ctx: Any) -> str:
        """Return the help, for the terminal that it is printed on."""
        return for_terminal(super().get_help(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write summary, description, examples, arguments, flags and usage, in kubectl's order."""
        text = self.text
        examples = "\n".join(f"  # {why}\n  {PROGRAM} {line}\n" for why, line in text.examples)
        formatter.write(f"{text.summary}\n\n{text.description}\n\nExamples:\n{examples}")
        shown = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            helps = ((p, text.help_of(p)) for p in shown if p.param_type_name == kind)
            rows = [_row(p, said) for p, said in helps if said is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        usage = f"{PROGRAM} {self.name} {text.usage}".rstrip()
        formatter.write(f"\nUsage:\n  {usage}\n{OPTIONS_HINT}")


def _unchecked(param: Any) -> Any:
    # A typer without this attribute coerces the values itself: slower, with the same result.
    if hasattr(param, "get_runtime_param"):
        param.get_runtime_param = _TextType
    return param


def _refuse_empty(ctx: Any, param: Any) -> None:
    """Refuse "" for a flag whose default it is: an unset variable of a shell must not change the
    question (`--from "$FILE"` would ask the live cluster)."""
    means_nothing = param.default == "" or param.required
    if param.param_type_name != "option" or ctx.params.get(param.name) != "" or not means_nothing:
        return
    if ctx.get_parameter_source(param.name).name == "COMMANDLINE":
        flag = max(param.opts, key=len)
        raise UsageError(f"{flag} is empty", hint=f"leave {flag} out, or give it a value")


def _row(param: Any, said: str) -> tuple[str, str]:
    # typer would write `<str>` and `[required]` at every argument; kubectl writes neither.
    if param.param_type_name == "argument":
        return param.metavar, said
    flags = ", ".join(sorted(param.opts, key=len))
    text = said if "--help" not in param.opts else "Show this help"
    if param.default and not param.is_flag and param.show_default:
        text = f"{text} (default {param.default})"
    return flags if param.is_flag else f"{flags} {param.metavar}", text


def click_spelling(args: Sequence[str], switches: dict[str, bool]) -> Iterator[str]:
    """Rewrite flags from pflag's spelling to click's.

    `-o=json` → `-o json`; `--switch=true` → `--switch`; `--switch=false` → nothing; `-v` → `-v 1`;
    `-vv` → `-v 2`. A number after a bare `-v` is its value, as for kubectl. Flags of kubectl that
    have no effect are left out, with a line on stderr.

    Args:
        args: words of the command line, after the command's name.
        switches: spelling of a flag → whether it is a switch.

    Raises:
        UsageError: -v or a switch has a value that it does not take.
    """
    words = iter(args)
    pending = next(words, None)
    while pending is not None:
        word, pending = pending, next(words, None)
        if word == "--":
            yield from (w for w in (word, pending, *words) if w is not None)
            return
        flag, equals, value = word.partition("=")
        if flag in _LEVEL and _LEVEL[0] in switches:
            if not equals and pending is not None and pending.isdecimal():
                value, pending = pending, next(words, None)
            yield from (_LEVEL[0], _level(value if equals or value else "1"))
        elif word[:2] == "-v" and word.strip("v") == "-" and _LEVEL[0] in switches:
            yield from (_LEVEL[0], _level(str(len(word) - 1)))
        elif flag in NO_EFFECT and flag not in switches:
            metavar, why = NO_EFFECT[flag]
            if metavar and not equals:
                if pending is None:
                    raise UsageError(f"flag needs a value: {flag}")
                pending = next(words, None)
            Progress().warn(f"{flag} has no effect: {why}")
        elif word in _BARE and switches.get(word) is False:
            yield f"{word}={_BARE[word]}"  # as with kubectl a value stands behind = alone
        elif equals and switches.get(flag):
            yield from _switch(flag, value)
        elif equals and len(flag) == 2 and flag in switches:
            yield from (flag, value)
        else:
            yield word
            if switches.get(word) is False and pending is not None:
                yield pending
                pending = next(words, None)


def _level(word: str) -> str:
    if word.isascii() and word.isdecimal():
        return word if len(word) == 1 else str(_MOST_VERBOSE)
    raise UsageError(f"-v {word!r} is not a number", hint="e.g. -v, -v=1, --v=1")


def _switch(flag: str, value: str) -> Iterator[str]:
    if value in _TRUE:
        yield flag
    elif value not in _FALSE:
        raise UsageError(f"{flag}={value}: must be true or false")


def build(name: str, function: Callable[..., int], text: CommandText) -> TyperCommand:
    """Make a command from a function with typer's annotations.

    Args:
        name: the command's name.
        function: runs the command and returns the exit code.
        text: texts of its help.
    """
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command(name, cls=Command, context_settings=dict(SETTINGS))(function)
    command = typer.main.get_command(app)
    assert isinstance(command, Command)
    command.text = text
    return command


class Commands(TyperGroup):
    """The group of all commands; a command's module is imported when the command is used."""

    summaries: dict[str, str]
    """Name → summary; the module of a command is called as the command, with _ for -."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return click's --help option, without typer's coercion."""
        return _unchecked(super().get_help_option(ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 -- typer's signature
        """Return the names, in the order of the help."""
        return list(self.summaries)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """Import and build a command, None for an unknown name."""
        if cmd_name not in self.summaries:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"kubectl_ebpfnet.cli.commands.{name}")
        return build(cmd_name, module.run, module.TEXT)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the first word names.

        Raises:
            UsageError: no command has this name; the hint names a similar command.
        """
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            from kubectl_ebpfnet.model.spelling import near

            found = near(name, self.summaries)
            hint = f"did you mean `{PROGRAM} {found[0]}`?" if found else ""
            raise UsageError(f"unknown command {name!r} for {PROGRAM!r}", hint=hint)
        return name, command, args[1:]

    def get_help(self, ctx: Any) -> str:
        """Return the help, for the terminal that it is printed on."""
        return for_terminal(super().get_help(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 -- typer's signature
        """Write the program's description, the commands and the usage."""
        formatter.write(f"{self.help}\n\nExamples:\n{self.epilog}")
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))
        formatter.write(f"\nUsage:\n  {PROGRAM} COMMAND [flags]\n\n")
        formatter.write(f'Use "{PROGRAM} COMMAND --help" for more about a command.{OPTIONS_HINT}')
