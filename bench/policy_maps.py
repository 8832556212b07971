"""Policy maps by agent: those of the packet's endpoint, against those of all that a node has.

    .venv/bin/python bench/policy_maps.py

The script of a live run (collect/ask/script.py) reads what an agent prints of 110 endpoints with
300 entries each, from a file, under dash. Measured in seconds of processor: the script with what it
starts, and what the client does until it has every entry. Exits 1 when those of one endpoint take
more than AT_MOST times those of all.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from kubectl_ebpfnet.collect.ask import script
from kubectl_ebpfnet.collect.ask.question import Question
from kubectl_ebpfnet.collect.ask.shell_script import Splitter, new_nonce, records, script_argv
from kubectl_ebpfnet.model.evidence import PlaceKind, pod_place
from kubectl_ebpfnet.model.fact import Fact, Form
from kubectl_ebpfnet.model.net import Address
from kubectl_ebpfnet.parse.cilium import policy

ENDPOINTS, ENTRIES, RUNS, AT_MOST = 110, 300, 3, 0.5


def write(folder: Path) -> Path:
    """Write what an agent keeps of its endpoints, and what it prints; return the latter."""
    blocks = []
    for number in range(ENDPOINTS):
        state = folder / str(number)
        state.mkdir()
        head = f"/*\n * IPv4 address: 10.0.1.{number}\n * Identity: 2550\n */\n"
        (state / "ep_config.h").write_text(head + "#define ENABLE_X 1\n" * 100)
        keys = [
            {"Prefixlen": 64, "Identity": 10_000 + n, "TrafficDirection": 1, "Nexthdr": 6,
             "DestPortNetwork": 20480}
            for n in range(ENTRIES)
        ]  # fmt: skip
        content = [
            {"ProxyPortNetwork": 0, "Flags": 0, "AuthType": 0, "Pad1": 0, "Pad2": 0,
             "Packets": 10, "Bytes": 1029, "Key": key}
            for key in keys
        ]  # fmt: skip
        path = f"/sys/fs/bpf/tc/globals/cilium_policy_{number:05d}"
        blocks.append({"EndpointID": str(number), "Path": path, "Content": content})
    printed = folder / "printed"
    printed.write_text(json.dumps(blocks, indent=2) + "\n")
    return printed


def cost(printed: Path, rows: tuple[Address, ...]) -> tuple[float, float, int, int]:
    """Return seconds of the script and of the client, bytes that come, and entries."""
    asked = Form("", ("cat", str(printed)))
    fact = Fact("policy", str, (PlaceKind.POD,), asked=(asked,), by_endpoint=True)
    question, nonce = Question(fact, pod_place("default", "x"), rows=rows), new_nonce()
    text = script.SCRIPT.replace(b"/var/run/cilium/state", str(printed.parent).encode())
    argv = ["dash", *script_argv([question], nonce, 20, trusted=True)[1:]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(argv, input=text, capture_output=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.process_time()
    stdout = Splitter(nonce)
    stdout.feed(said)
    (record,) = records([question], stdout, Splitter(nonce))
    entries = policy.entries(record.stdout.read())
    client = time.process_time() - begun
    node = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return node, client, len(said), len(entries)


def main() -> int:
    """Measure and print; 1 when the endpoint's own take too long."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        printed = write(Path(folder))
        for name, rows in (("all endpoints", ()), ("the packet's", (ip_address("10.0.1.9"),))):
            node, client, size, entries = min(cost(printed, rows) for _ in range(RUNS))
            print(f"{name:14} {entries:6,} entries {size / 1e6:6.1f} MB   "
                  f"at the node {node:5.2f} s   in the client {client:5.2f} s")  # fmt: skip
            found.append(node + client)
    ratio = found[1] / found[0]
    print(f"the packet's endpoint takes {ratio:.2f} times all of them (at most {AT_MOST})")
    return 0 if ratio <= AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
