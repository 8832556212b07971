"""How long it takes to find one flow in a capture whose conntrack list has 250,000 lines.

    python bench/bundle_scan.py [LINES]

Makes its own capture of lines in the shape that `cilium-dbg bpf ct list global -d` prints, in a
temporary folder, and compares (best of 5, each in a process of its own):

    loop        for line in file: if needle in line   over the same lines in a plain file (bytes)
    loop-text   the same, over decoded lines
    loop-zip    the same, over the zip's members with zipfile
    zip         open_bundle and matching_lines

The last lines are ratios to `loop`, and how much memory each took over an empty capture.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from kubectl_ebpfnet.capture.open import open_bundle
from kubectl_ebpfnet.capture.write import write_bundle
from kubectl_ebpfnet.model.evidence import InMemory, Record, agent_place
from kubectl_ebpfnet.model.matching import matching_lines

PLACE = agent_place("node1")
ARGV = ("cilium-dbg", "bpf", "ct", "list", "global", "-d")
NEEDLE = b"10.244.1.160"
RUNS = 5


def ct_list(lines: int) -> bytes:
    """Lines of the recorded shape; ten of them hold the needle."""
    rng = random.Random(1)
    ours = set(rng.sample(range(lines), min(10, lines)))
    rows = []
    for number in range(lines):
        source = f"10.{rng.randrange(256)}.{rng.randrange(240)}.{rng.randrange(256)}"
        source = NEEDLE.decode() if number in ours else source
        rows.append(
            f"TCP OUT {source}:{rng.randrange(65536)} -> "
            f"{rng.randrange(1, 240)}.{rng.randrange(256)}.{rng.randrange(256)}.1:443 "
            f"expires={rng.randrange(10**6)} (remaining: {rng.randrange(21600)} sec(s)) "
            f"Packets={rng.randrange(10**4)} Bytes={rng.randrange(10**7)} RxFlagsSeen=0x1b "
            f"LastRxReport={rng.randrange(10**6)} TxFlagsSeen=0x1b "
            f"LastTxReport={rng.randrange(10**6)} Flags=0x0013 "
            "[ RxClosing TxClosing SeenNonSyn ] RevNAT=0 "
            f"SourceSecurityID={rng.randrange(65536)} BackendID=0 NatPort=0 \n"
        )
    return "".join(rows).encode()


def prepare(folder: Path, lines: int) -> None:
    """Write the same list as a plain file and as a zip."""
    data = ct_list(lines)
    (folder / "plain").write_bytes(data)
    write_bundle(folder / "zip", [Record(1, PLACE, ARGV, 0, InMemory(data))])


def loop(folder: Path) -> int:
    """The yardstick."""
    with (folder / "plain").open("rb") as file:
        return sum(1 for line in file if NEEDLE in line)


def loop_text(folder: Path) -> int:
    """The yardstick over text."""
    needle = NEEDLE.decode()
    with (folder / "plain").open(encoding="utf-8") as file:
        return sum(1 for line in file if needle in line)


def loop_zip(folder: Path) -> int:
    """The yardstick over packed lines (a line that runs over two members counts twice)."""
    found = 0
    with zipfile.ZipFile(folder / "zip") as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                found += sum(1 for line in file if NEEDLE in line)
    return found


def scan(folder: Path) -> int:
    """What the tool does."""
    record = open_bundle(folder / "zip").record(PLACE, ARGV)
    assert record is not None
    return sum(1 for _ in matching_lines(record.stdout, [NEEDLE]))


WAYS: dict[str, Callable[[Path], int]] = {
    "loop": loop,
    "loop-text": loop_text,
    "loop-zip": loop_zip,
    "zip": scan,
}


def measure(way: str, folder: Path) -> None:
    """In a process of its own: print seconds, lines found and the growth of memory in KiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best, found = float("inf"), 0
    for _ in range(RUNS):
        start = time.perf_counter()
        found = WAYS[way](folder)
        best = min(best, time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(best, found, grown)


def main() -> None:
    """Measure every way and print the ratios."""
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]), int(sys.argv[3]))
        return
    if len(sys.argv) > 2:
        measure(sys.argv[1], Path(sys.argv[2]))
        return
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else 250_000
    with tempfile.TemporaryDirectory(prefix="ebpfnet-bench-") as name:
        folder = Path(name)
        # Linux hands a process's peak down to what it starts, so this one must stay small.
        subprocess.check_call([sys.executable, __file__, "prepare", name, str(lines)])
        results = {}
        for way in WAYS:
            words = [sys.executable, __file__, way, name]
            seconds, found, grown = subprocess.check_output(words, text=True).split()
            results[way] = float(seconds), int(found), int(grown)
        size = (folder / "plain").stat().st_size
        print(
            f"{lines} lines, {size >> 20} MiB, packed {(folder / 'zip').stat().st_size >> 20} MiB"
        )
    for way, (seconds, found, grown) in results.items():
        ratio = seconds / results["loop"][0]
        print(
            f"{way:10} {seconds * 1000:7.1f} ms  {ratio:5.2f} x loop  {found:3} lines"
            f"  +{grown / 1024:.1f} MiB"
        )


if __name__ == "__main__":
    main()
