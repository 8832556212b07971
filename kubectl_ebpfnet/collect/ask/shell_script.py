"""Many commands in one exec: a constant shell script runs them in turn and marks where each ends.

An exec costs some 80 ms whatever it runs, so a place is asked everything at once. The script is
the same on every run; the commands are its positional parameters, so no word of them is ever read
by the shell as shell (POSIX.1-2017, Shell Command Language 2.5.1). It runs under dash, BusyBox,
bash and mksh. Per command it is given:

    n|o COUNT FILTER WORD…   n begins a question, o is its next form, run if the last one failed;
                             FILTER is "" or strings to keep lines with, one a line (grep -F)
    @                        tc's filters of every device, in both directions

Where the image has timeout(1), no command takes longer than it is allowed to. Those that read what
the kernel holds, BPF maps included, ask nobody who could be stuck: they are spared that second
process, which would double their time, and a long table is not cut. The run's deadline holds for
them all the same. That is so in an agent's image alone: what a pod's image calls `ip` is anybody's
program, and must not stay behind when the client is gone.

After each command it writes, to stdout and to stderr, a line that only this run can write, for it
holds a nonce: NONCE INDEX EXIT-CODE FILTERED [DIRECTION DEVICE].
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kubectl_ebpfnet.capture.spool import Spool
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
"""Bytes of a mark after its nonce; a device's name has 15 at most."""
_MOST_SECTIONS = 5000
TIMED_OUT = 124
"""What timeout(1) exits with when it ended the command."""


@dataclass(frozen=True, slots=True)
class ShellQuestion:
    """A question as it is put to a place.

    Attributes:
        forms: argv alternatives, best first; () for tc's filters of every device.
        kept: when not (), only lines with one of these strings are brought. None may be empty or
            hold a newline.
    """

    forms: tuple[tuple[str, ...], ...]
    kept: tuple[str, ...] = ()


DEVICE_FILTERS = ShellQuestion(())


@dataclass(frozen=True, slots=True)
class Section:
    """What one command wrote to one of its streams, and how it ended.

    Attributes:
        index: 1-based, of the command among all forms of all questions.
        exit_code: of the command.
        filtered: only the lines that were to be kept are here.
        device: (direction, device) of tc's filters, else ().
        output: to the byte.
    """

    index: int
    exit_code: int
    filtered: bool
    device: tuple[str, ...]
    output: Output


def new_nonce() -> str:
    """A word that no output can foresee."""
    return secrets.token_hex(16)


def script_argv(
    asked: Sequence[ShellQuestion], nonce: str, seconds: int, *, trusted: bool = True
) -> list[str]:
    """The argv of one exec that asks all of it.

    Args:
        asked: in the order in which they are to be run.
        nonce: of `new_nonce`, another one each time.
        seconds: what one command may take, where the image has timeout(1).
        trusted: `ip`, `cat` and their like are what their names say: they need no time limit.
    """
    words = ["sh", "-c", SCRIPT, "sh", nonce, str(seconds), "1" if trusted else ""]
    for question in asked:
        if not question.forms:
            words.append("@")
        for number, form in enumerate(question.forms):
            words += ["o" if number else "n", str(len(form)), "\n".join(question.kept), *form]
    return words


class Splitter:
    """Cuts a stream of the script at its marks, as the pieces come."""

    def __init__(self, nonce: str, spool: Callable[[], Spool] = Spool) -> None:
        """`spool` makes the place where one command's output is gathered."""
        self._mark = b"\n" + nonce.encode() + b" "
        self._new = spool
        self._spool = spool()
        self._tail = b""
        self.sections: list[Section] = []

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises OSError when there is no room for it."""
        data = self._tail + data
        at = data.find(self._mark)
        start = 0
        while at >= 0:
            begin = at + len(self._mark)
            end = data.find(b"\n", begin, begin + _LONGEST_HEADER)
            if end < 0 and len(data) < begin + _LONGEST_HEADER:
                break
            header = _header(data[begin:end]) if end >= 0 else None
            if header is None or len(self.sections) >= _MOST_SECTIONS:  # no mark of ours after all
                end = max(end, at + 1)
                self._spool.write(data[start:end])
                start = end
            else:
                self._spool.write(data[start:at])
                self.sections.append(Section(*header, self._spool.output()))
                self._spool = self._new()
                start = end + 1
            at = data.find(self._mark, start)
        # What may be the beginning of a mark waits for the next piece.
        keep = at if at >= 0 else max(start, len(data) - len(self._mark) + 1)
        self._spool.write(data[start:keep])
        self._tail = data[keep:]

    def rest(self) -> Output:
        """What came after the last mark; nothing may be fed afterwards."""
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
    asked: Sequence[ShellQuestion],
    out: Splitter,
    err: Splitter,
    place: Place,
    *,
    started: str = "",
    error: str = "",
    denied: str = "",
    seconds: int = 0,
) -> Iterator[Record]:
    """What a place said, a record for each command that ran.

    Args:
        asked: what `script_argv` was given.
        out, err: its streams, cut.
        place: where it ran.
        started: RFC 3339 time.
        error: why the exec ended early, "" when it did not; the command that was cut off then
            is a record with this error and what it had written so far.
        denied: the permission that was missing.
        seconds: what a command was given, for the words about one that took longer.
    """
    forms = [
        (question, form) for question in asked for form in (question.forms or (("tc", "filter"),))
    ]
    said = {(s.index, s.device): s for s in err.sections}
    for section in out.sections:
        if not 1 <= section.index <= len(forms):
            continue
        question, form = forms[section.index - 1]
        if section.device:
            direction, device = section.device
            form = ("tc", "filter", "show", "dev", device, direction)
        other = said.get((section.index, section.device))
        late = section.exit_code == TIMED_OUT and seconds > 0
        yield Record(
            0,
            place,
            form,
            None if late else section.exit_code,
            section.output,
            (other.output if other else err.rest()).read(),
            started,
            f"it did not end within {seconds} s" if late else "",
            kept=question.kept if section.filtered else (),
        )
    if error:
        index = _after(asked, out.sections)
        if index < len(forms):
            _, form = forms[index]
            rest, words = out.rest(), err.rest().read()
            yield Record(0, place, form, None, rest, words, started, error, denied)


def _after(asked: Sequence[ShellQuestion], sections: Sequence[Section]) -> int:
    """0-based index of the command that ran when the stream was cut."""
    if not sections:
        return 0
    last = sections[-1]
    end = 0
    for question in asked:
        begin, end = end, end + max(1, len(question.forms))
        if begin < last.index <= end:
            if not question.forms:
                return last.index - 1  # in the midst of the devices, for all we know
            return end if last.exit_code == 0 else last.index
    return end


def unavailable_record(place: Place, argv: Sequence[str], error: str, denied: str = "") -> Record:
    """A record of something that could not be asked."""
    return Record(0, place, tuple(argv), None, InMemory(), b"", "", error, denied)
