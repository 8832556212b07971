"""Many commands in one exec: a constant shell script runs them in turn and marks where each ends.

An exec costs some 80 ms whatever it runs, so one exec asks a place everything. The script is
constant; the commands are its positional parameters, so the shell never parses a word of them
(POSIX.1-2017, Shell Command Language 2.5.1). It runs under dash, BusyBox, bash and mksh. Each
command takes these words:

    n|o COUNT FILTER WORD…   n begins a question, o is its next form, run if the last one failed;
                             FILTER is "" or strings to keep lines with, one a line (grep -F)
    @                        tc's filters of every device, in both directions

Where the image has timeout(1), it limits each command's time, except for commands that read kernel
state, BPF maps included: they cannot hang, the second process would double their time, and a long
table must not be cut. The run's deadline limits them too. The exception is for an agent's image
alone: `ip` in a pod's image may be any program, and must not outlive the client.

After each command the script writes a mark to stdout and to stderr, a line that only this run can
write, since it has a nonce: NONCE INDEX EXIT-CODE FILTERED [DIRECTION DEVICE].
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from errno import ENOBUFS

from kubectl_ebpfnet.capture.spool import Spool
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.model.catalogue import TC_FILTERS
from kubectl_ebpfnet.model.evidence import InMemory, Output, Place, Record

# `eval` sees digits alone: it makes "${1}" "${2}" … of a count. The exit code of a command whose
# lines are filtered comes back by descriptor 3, its lines go round that by descriptor 4.
SCRIPT = r"""
n=$1 t=$2 s=$3 i=0 r=0 x=; shift 3
LC_ALL=C; export LC_ALL
T=; timeout $t sh -c : </dev/null >/dev/null 2>&1 && T="timeout $t"
G=; command -v grep >/dev/null 2>&1 && G=1
exec 4>&1
run() {
f=$1 k=0 p=$T; shift
[ "$s" ] && case "$1 $2" in
cat\ *|ls\ *|ip\ *|ip*-save*|tc\ *|bpftool\ *|cilium*\ bpf) p=;;
esac
if ! command -v "$1" >/dev/null 2>&1; then
r=127; printf '%s: not found\n' "$1" >&2
elif [ "$f" ] && [ "$G" ]; then
k=1
r=$({ { $p "$@" </dev/null 3>&- 4>&-; echo $? >&3; } | grep -F -e "$f" >&4 3>&- 4>&-; } 3>&1)
else
$p "$@" </dev/null 4>&-; r=$?
fi
printf '\n%s\n' "$n $i ${r:-255} $k$x"
printf '\n%s\n' "$n $i ${r:-255} $k$x" >&2
}
devices() {
command -v tc >/dev/null 2>&1 || return
q=$(tc qdisc show 2>/dev/null) c=0
for d in /sys/class/net/*; do
[ -d "$d" ] || continue
d=${d##*/}
case $d in
lo) continue;;
lxc*) case $q in *"qdisc clsact ffff: dev $d "*) ;; *) continue;; esac;;
esac
c=$((c+1)); [ $c -gt 200 ] && break
for w in ingress egress; do x=" $w $d"; run '' tc filter show dev "$d" $w; done
done
x=
}
while [ $# -gt 0 ]; do
i=$((i+1))
if [ "$1" = @ ]; then shift; devices; continue; fi
g=$1 m=$2 F=$3; shift 3
if [ $g = n ] || [ "$r" != 0 ]; then
a= j=1
while [ $j -le $m ]; do a="$a \"\${$j}\""; j=$((j+1)); done
eval "run \"\$F\" $a"
fi
shift $m
done
exit 0
""".strip()

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
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
        filtered: `output` has only the lines that passed the filter.
        device: (direction, device) of tc's filters, else ().
        output: the exact bytes.
    """

    index: int
    exit_code: int
    filtered: bool
    device: tuple[str, ...]
    output: Output


def new_nonce() -> str:
    """Return a word that no output can predict."""
    return secrets.token_hex(16)


def script_argv(
    questions: Sequence[Question], nonce: str, seconds: int, *, trusted: bool = True
) -> list[str]:
    """Return the argv of one exec that asks all questions.

    Args:
        questions: in the order to run them.
        nonce: a fresh one of `new_nonce`.
        seconds: time limit of one command, in an image that has timeout(1).
        trusted: the image's `ip`, `cat` and the like are genuine and need no time limit.
    """
    words = ["sh", "-c", SCRIPT, "sh", nonce, str(seconds), "1" if trusted else ""]
    return [*words, *(word for question in questions for word in question_words(question))]


def question_words(question: Question) -> list[str]:
    """Return the words of the script that ask one question."""
    if question.fact is TC_FILTERS:
        return ["@"]
    words = []
    needles = "\n".join(question.needles)
    for number, argv in enumerate(question.fact.forms):
        words += ["o" if number else "n", str(len(argv)), needles, *argv]
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


def _header(line: bytes) -> tuple[int, int, bool, tuple[str, ...]] | None:
    words = line.decode("utf-8", "surrogateescape").split(" ", 4)
    numbers = words[:3]
    if len(words) not in (3, 5) or not all(_NUMBER.fullmatch(word) for word in numbers):
        return None
    return int(words[0]), int(words[1]), words[2] == "1", tuple(words[3:])


def records(
    questions: Sequence[Question],
    stdout: Splitter,
    stderr: Splitter,
    *,
    started: str = "",
    error: str = "",
    denied: str = "",
    seconds: int = 0,
) -> Iterator[Record]:
    """Yield a record for each command that ran.

    Args:
        questions: the ones of `script_argv`.
        stdout, stderr: its streams, cut into sections.
        started: RFC 3339 time.
        error: why the exec ended early, "" when it ran to its end. The record of the command that
            was cut off has this error and the output so far.
        denied: the missing permission.
        seconds: time limit of one command, for the error of a command that exceeded it.
    """
    commands = [(question, argv) for question in questions for argv in question.fact.forms]
    errors = {(s.index, s.device): s for s in stderr.sections}
    rest = stderr.rest().read()  # of the first command whose mark did not come
    for section in stdout.sections:
        if not 1 <= section.index <= len(commands):
            continue
        question, argv = commands[section.index - 1]
        if section.device:
            direction, device = section.device
            argv = (*argv, device, direction)
        if (section.index, section.device) in errors:
            words = errors[section.index, section.device].output.read()
        else:
            words, rest = rest, b""
        late = section.exit_code == TIMED_OUT and seconds > 0
        yield Record(
            0,
            question.place,
            argv,
            None if late else section.exit_code,
            section.output,
            words,
            started,
            f"it did not end within {seconds} s" if late else "",
            line_filter=question.needles if section.filtered else (),
        )
    if error:
        index = _command_cut_off(questions, stdout.sections)
        if index < len(commands):
            question, argv = commands[index]
            yield Record(0, question.place, argv, None, stdout.rest(), rest, started, error, denied)


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


def unavailable_record(place: Place, argv: Sequence[str], error: str, denied: str = "") -> Record:
    """Return the record of a question that could not be asked.

    Args:
        place: where it should have run.
        argv: the question.
        error: the reason.
        denied: the missing permission, "" for none.
    """
    return Record(0, place, tuple(argv), None, InMemory(), b"", "", error, denied)
