"""Many commands in one exec: the words for the shell script that runs them (script.py), and its
output, cut at the marks into a record for each command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from errno import ENOBUFS

from kubectl_ebpfnet.capture.spool import Spool, StderrSpool
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.script import ALL_LINES, HANG_SECONDS
from kubectl_ebpfnet.collect.ask.unasked import AGENT_HANGS
from kubectl_ebpfnet.model.catalogue import TC_FILTERS
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.evidence import InMemory, LineCounts, Output, Record

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_STATE = re.compile(r"[0ehs]|f[0-9]{1,9}(?:,[0-9]{1,9}){6}", re.ASCII)
_STDERR = "e"
_LONGEST_HEADER = 128
"""Most bytes of a mark after its nonce; a device name has 15 at most."""
_MOST_SECTIONS = 5000
_MOST_IN_MEMORY = 256 << 20
"""Bytes of all outputs that are too short for a file (capture/spool.py): a pod's image may mark
outputs without end."""
TIMED_OUT = 124
"""Exit code of timeout(1) when it ended the command."""


@dataclass(frozen=True, slots=True)
class Section:
    """The output of one command on one stream, and its exit code.

    Attributes:
        index: 1-based, of the command among all forms of all questions.
        exit_code: of the command.
        state: 0 for a whole output, `fN,…`, `h` or `s`; `e` for a stderr on stdout (script.py).
        device: (direction, device) of tc's filters, else ().
        output: the exact bytes.
    """

    index: int
    exit_code: int
    state: str
    device: tuple[str, ...]
    output: Output


def new_nonce() -> str:
    """Return a word that no output can predict."""
    return os.urandom(16).hex()


def script_argv(
    first: Sequence[Question],
    nonce: str,
    seconds: int,
    hang_seconds: float = HANG_SECONDS,
    *,
    second: Sequence[Question] = (),
    trusted: bool = True,
) -> list[str]:
    """Return the argv of one exec that asks all questions. Its stdin is the script.

    Args:
        first: in the order to run them.
        nonce: a fresh one of `new_nonce`.
        seconds: time limit of one command, in an image that has timeout(1).
        hang_seconds: time limit of a command that asks the agent over its socket.
        second: beside `first`, in an image that is trusted.
        trusted: the image's `ip`, `cat` and the like are genuine and need no time limit.
    """
    words, beside = lane_words(first), lane_words(second)
    forms = sum(len(question.fact.forms) for question in first)
    newest = next((one.newest for one in (*first, *second) if one.line_rules), 0) or ALL_LINES
    said = [nonce, seconds, f"{hang_seconds:g}", 1 if trusted else "", len(words), forms, newest]
    return ["sh", "-s", *map(str, said), *words, *beside]


def lane_words(questions: Iterable[Question]) -> list[str]:
    """Return the words of the script that ask questions one after another."""
    words: list[str] = []
    known = ""
    for question in questions:
        if question.fact is TC_FILTERS:
            words.append("@")
            continue
        rules, maps = question.line_rules, " ".join(question.fact.maps)
        for number, argv in enumerate(question.fact.forms):
            kind, lines = ("o" if number else "n"), ("." if rules and rules == known else rules)
            words += [kind, str(len(argv)), maps, lines, *argv]
            known = rules or known
    return words


class Splitter:
    """Cuts a stream of the script at its marks as the pieces come."""

    def __init__(self, nonce: str, spool: Callable[[], Spool] = Spool) -> None:
        """`spool` makes the buffer of one command's output."""
        self._mark = b"\n" + nonce.encode() + b" "
        self._new_spool = spool
        self._spool = spool()
        self._tail = b""
        self._in_memory = 0
        self.sections: list[Section] = []

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises OSError when there is no room for it."""
        if self._in_memory > _MOST_IN_MEMORY:
            raise OSError(ENOBUFS, f"its commands printed more than {_MOST_IN_MEMORY >> 20} MiB")
        data = self._tail + data
        at = data.find(self._mark)
        start = 0
        while at >= 0:
            begin = at + len(self._mark)
            end = data.find(b"\n", begin, begin + _LONGEST_HEADER)
            if end < 0 and len(data) < begin + _LONGEST_HEADER:
                break
            header = _header(data[begin:end]) if end >= 0 else None
            if header is None or len(self.sections) >= _MOST_SECTIONS:  # not our mark
                end = max(end, at + 1)
                self._spool.write(data[start:end])
                start = end
            else:
                self._spool.write(data[start:at])
                output = self._spool.output()
                self._in_memory += len(output.data) if isinstance(output, InMemory) else 0
                self.sections.append(Section(*header, output))
                self._spool = self._new_spool()
                start = end + 1
            at = data.find(self._mark, start)
        # A possible beginning of a mark waits for the next piece.
        keep = at if at >= 0 else max(start, len(data) - len(self._mark) + 1)
        self._spool.write(data[start:keep])
        self._tail = data[keep:]

    def rest(self) -> Output:
        """Return the bytes after the last mark; nothing may be fed afterwards."""
        self._spool.write(self._tail)
        self._tail = b""
        return self._spool.output()


def _header(line: bytes) -> tuple[int, int, str, tuple[str, ...]] | None:
    words = line.decode("utf-8", "surrogateescape").split(" ", 4)
    if len(words) not in (3, 5) or not all(_NUMBER.fullmatch(word) for word in words[:2]):
        return None
    if not _STATE.fullmatch(words[2]):
        return None
    return int(words[0]), int(words[1]), words[2], tuple(words[3:])


def records(
    questions: Sequence[Question],
    stdout: Splitter,
    stderr: Splitter,
    *,
    started: str = "",
    error: str = "",
    denied: str = "",
    seconds: int = 0,
    hang_seconds: float = HANG_SECONDS,
) -> Iterator[Record]:
    """Yield a record for each command that ran.

    Args:
        questions: the ones of `script_argv`.
        stdout, stderr: its streams, cut into sections.
        started: RFC 3339 time.
        error: why the exec ended early, "" when it ran to its end. The record of the command that
            was cut off has this error and the output so far.
        denied: the missing permission.
        seconds, hang_seconds: time limits, for the error of a command that exceeded one.
    """
    commands = [(question, argv) for question in questions for argv in question.fact.forms]
    errors = {(s.index, s.device): s.output for s in stderr.sections}
    follow = [section for section in stdout.sections if section.state == _STDERR]
    errors |= {(s.index, s.device): _shortened(s.output) for s in follow}
    rest = stderr.rest().read()  # of the first command whose mark did not come
    for section in stdout.sections:
        if section.state == _STDERR or not 1 <= section.index <= len(commands):
            continue
        question, argv = commands[section.index - 1]
        if section.device:
            direction, device = section.device
            argv = (*argv, device, direction)
        if (section.index, section.device) in errors:
            words = errors[section.index, section.device].read()
        else:
            words, rest = rest, b""
        why = _why_not_ended(section, seconds, hang_seconds)
        selected = section.state.startswith("f")
        out, beside, *counts = map(int, section.state[1:].split(",")) if selected else (0, 0)
        selected = selected and not (question.fact.by_endpoint and not out)
        yield Record(
            0,
            question.place,
            argv,
            None if why else section.exit_code,
            section.output,
            words,
            started,
            why,
            line_filter=question.needles if selected else (),
            left_out=out,
            beside_left_out=beside,
            flows=question.by_lines if selected else (),
            counts=LineCounts(*counts) if selected else None,
        )
    if error:
        index = _command_cut_off(questions, stdout.sections)
        if index < len(commands):
            question, argv = commands[index]
            yield Record(0, question.place, argv, None, stdout.rest(), rest, started, error, denied)


def _shortened(stderr: Output) -> Output:
    spool = StderrSpool()
    for piece in stderr.chunks():
        spool.write(piece)
    return spool.output()


def _why_not_ended(section: Section, seconds: int, hang_seconds: float) -> str:
    # Less than HANG_SECONDS is no sign of anything but of a short --timeout.
    why = AGENT_HANGS if hang_seconds >= HANG_SECONDS else "--timeout leaves no more"
    if section.state == "h":
        return f"it did not answer within {hang_seconds:g} s: {why}"
    if section.state == "s":
        return f"not asked: {why}"
    if section.exit_code == TIMED_OUT and seconds > 0:
        return f"it did not end within {seconds} s"
    return ""


def asks_agent(question: Question) -> bool:
    """Tell whether a question's commands wait for the agent's socket, in Cilium's image."""
    program, *words = next(iter(question.fact.forms), ("",))
    return program == "hubble" or (program.startswith("cilium") and words[:1] != ["bpf"])


def _command_cut_off(questions: Sequence[Question], sections: Sequence[Section]) -> int:
    """Return the 0-based index of the command that ran when the stream was cut."""
    if not sections:
        return 0
    last = sections[-1]
    end = 0
    for question in questions:
        begin, end = end, end + len(question.fact.forms)
        if begin < last.index <= end:
            if question.fact is TC_FILTERS:
                return last.index - 1  # among the devices
            return end if last.exit_code == 0 else last.index
    return end
