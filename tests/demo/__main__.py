"""Makes the demos that ship with the program of what a real cluster printed (recorded/README.md).

    python -m tests.demo

A demo holds a capture as it was recorded, and what the same places printed beside it to commands
that `path` asks, or reads, word by word. Two of these are filters, and the demo has what they print
of the recorded output, as its note says. Whatever else was recorded there answers no question of
ours in its words, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from kubectl_ebpfnet.capture.demo import DEMOS, FOLDER
from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.model import catalogue as q
from kubectl_ebpfnet.model.evidence import (
    Bundle,
    InMemory,
    Place,
    PlaceKind,
    Record,
    agent_place,
)

RECORDED = Path(__file__).parent / "recorded"
CLUSTER = "Cilium 1.18-dev, VXLAN"
FILTERED = "; hubble's log and sockets as `path` filters them"
DROP, TRACE, VERDICT = 1, 4, 5
"""Types of events that the question asks hubble for (Cilium's pkg/monitor/api/types.go)."""
FIVE_MINUTES = timedelta(minutes=5)
LISTEN = "0A"


def made(name: str) -> tuple[list[Record], str]:
    """Return the records of a demo and its note.

    Args:
        name: of a folder in recorded/.
    """
    folder = RECORDED / name
    bundle = open_bundle(folder / "capture.zip")
    beside = list(_beside(folder, bundle))
    return [*bundle.records, *beside], CLUSTER + (FILTERED if beside else "")


def _beside(folder: Path, bundle: Bundle) -> Iterator[Record]:
    logs = {file.name.removesuffix("-hubble.jsonl"): file for file in folder.glob("*-hubble.jsonl")}
    if not logs:
        return
    # When these commands ran was not written down: it was not before hubble's newest event.
    ran = max(_times(file)[-1] for file in logs.values()).strftime("%Y-%m-%dT%H:%M:%SZ")
    for node, log in sorted(logs.items()):
        yield _record(agent_place(node), q.HUBBLE.forms[0], _hubble(log), ran)
    for place in bundle.places(PlaceKind.POD):
        tcp, tcp6, others = _of_pod(folder / f"pod-{place.pod}.txt")
        listeners = _awk("/proc/net/tcp", tcp) + _awk("/proc/net/tcp6", tcp6)
        yield _record(place, q.TCP_LISTENERS.forms[0], "".join(listeners).encode(), ran)
        rules = next(line for line in others if line.startswith("[{")).encode()
        yield _record(place, ("ip", "-j", "rule"), rules, ran)


def _record(place: Place, argv: tuple[str, ...], output: bytes, started: str) -> Record:
    return Record(0, place, argv, 0, InMemory(output), started=started)


def _hubble(log: Path) -> bytes:
    """Return what the question prints of a log that was printed whole: all of it.

    Raises:
        ValueError: the log holds other types of events, more of them or older ones than the
            question asks for.
    """
    times, text = _times(log), log.read_bytes()
    types = {json.loads(line)["flow"]["event_type"]["type"] for line in text.splitlines()}
    if types - {DROP, TRACE, VERDICT} or len(times) > 1000 or times[-1] - times[0] > FIVE_MINUTES:
        raise ValueError(f"{log.name}: the question would have printed a part of it")
    return text


def _times(log: Path) -> list[datetime]:
    """Return the times of the events in a log, in their order."""
    with log.open(encoding="utf-8") as lines:
        return sorted(datetime.fromisoformat(json.loads(line)["time"]) for line in lines)


def _of_pod(file: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the lines of /proc/net/tcp, of /proc/net/tcp6, and what was printed behind them."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    heads = [number for number, line in enumerate(lines) if line.split()[:1] == ["sl"]]
    tcp, tcp6, udp = heads
    return lines[tcp:tcp6], lines[tcp6:udp], lines[udp:]


def _awk(path: str, lines: list[str]) -> list[str]:
    """Return what the awk of the question prints of a file: its heading, and the listeners, which
    stand first."""
    printed = [f"{path}:{lines[0]}"]
    for line in lines[1 : q.MOST_SOCKETS + 1]:
        if line.split()[3] != LISTEN:
            break
        printed.append(f"{path}:{line}")
    return printed


def main() -> None:
    """Write the demos."""
    FOLDER.mkdir(exist_ok=True)
    for name in DEMOS.values():
        records, note = made(name)
        created = min(record.started for record in records if record.started)
        file = FOLDER / f"{name}.zip"
        write_bundle(file, records, note, overwrite=True, created=created)
        file.chmod(0o644)  # unlike a capture of one's own, these are public


if __name__ == "__main__":
    main()
