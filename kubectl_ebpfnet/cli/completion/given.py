"""What the words before the one to complete say: the command's positional words and its flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubectl_ebpfnet.cli.given_flags import GlobalFlags
from kubectl_ebpfnet.cli.kubectl_flags import CONNECTION, NO_EFFECT, OPTIONAL_VALUE

if TYPE_CHECKING:
    from kubectl_ebpfnet.cluster.client.access import ConnectionOptions


@dataclass(frozen=True, slots=True)
class Given:
    """The words before the one to complete.

    Attributes:
        words: the command's name, and its positional words.
        pending: the flag whose value the next word is, in its long form; "" for none.
        flags: flag, in its long form → its value, of those that take one; the last one counts.
    """

    words: tuple[str, ...] = ()
    pending: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """Of -n, "" without."""
        return self.flags.get("--namespace", "")

    def connection(self, within: float) -> ConnectionOptions:
        """Return the options for a session, whose requests take `within` seconds at most."""
        values: dict[str, Any] = {}
        for flag in CONNECTION:
            value = self.flags.get(flag.spellings[-1])
            if value is not None:
                values[flag.field] = [value] if flag.repeated else value
        if "--insecure-skip-tls-verify" in self.flags:
            values["insecure_skip_tls_verify"] = True
        return GlobalFlags(values).connection(within=within)


def given(words: Sequence[str], params: Sequence[Any]) -> Given:
    """Read the words before the one to complete, as pflag does: `-o json`, `-o=json`, `-ojson`.

    Args:
        words: after the program's name.
        params: of the command, () where it is not known yet.
    """
    valued, switches = _spellings(params)
    positional: list[str] = []
    flags: dict[str, str] = {}
    pending = ""
    for at, word in enumerate(words):
        head, equals, value = word.partition("=")
        if pending:
            flags[pending], pending = word, ""
        elif word == "--":
            positional += words[at + 1 :]
            break
        elif word in valued and word not in OPTIONAL_VALUE:
            pending = valued[word]
        elif equals and head in valued:
            flags[valued[head]] = value
        elif not word.startswith("--") and word[:2] in valued:
            flags[valued[word[:2]]] = word[2:]
        elif head in switches:
            flags[switches[head]] = value or "true"
        elif not word.startswith("-"):
            positional.append(word)
    return Given(tuple(positional), pending, flags)


def _spellings(params: Sequence[Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return flags with a value and switches: spelling → long form."""
    valued = {s: f.spellings[-1] for f in CONNECTION if f.metavar for s in f.spellings}
    valued |= {flag: flag for flag, (metavar, _) in NO_EFFECT.items() if metavar}
    switches = {s: f.spellings[-1] for f in CONNECTION if not f.metavar for s in f.spellings}
    for param in params:
        if param.param_type_name == "option":
            into = switches if param.is_flag else valued
            into.update({spelling: max(param.opts, key=len) for spelling in param.opts})
    return valued, switches
