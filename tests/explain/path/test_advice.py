"""What an answer advises can be done as it stands: every command that it gives, of many answers.

Commands of ours are read by our own command line, those of kubectl by kubectl, both without a
cluster: what comes as far as the cluster has words, flags and arguments that can be run.
"""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.cli import arguments
from kubectl_ebpfnet.errors import EbpfnetError
from kubectl_ebpfnet.explain.path.walk import explain
from kubectl_ebpfnet.model.protocol import codec
from tests.cli.console import KUBECTL, run, run_process
from tests.explain.path.changed import opened
from tests.same.clusters import Cluster, _name, read
from tests.same.questions import _destinations

ROOT = Path(__file__).parents[3]
CAPTURES = sorted(
    [
        *ROOT.glob("kubectl_ebpfnet/demo/*.zip"),
        *ROOT.glob("tests/explain/path/captures/*.zip"),
        *ROOT.glob("tests/f*/*/agent.zip"),
        *(index.parent for index in ROOT.glob("tests/scenarios/*/bundle.json")),
    ]
)
ON_NODES = ("bpftool", "cilium", "cilium-dbg", "hubble", "ip", "iptables", "iptables-save", "nft",
            "sysctl", "tc")  # fmt: skip
"""Programs that a command may be of, beside kubectl: whoever runs them is on the node."""
EACH = 2
"""Questions from each source of a capture."""
_UNREACHABLE = ("--server=https://127.0.0.1:1", "--token=none")


def questions(cluster: Cluster) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (namespace, source, destination with its flags), the same ones in each run."""
    sources = [(namespace, f"pod/{name}") for namespace, name in cluster.seen[:1]]
    sources += [("", f"node/{node['metadata']['name']}") for node in cluster.nodes[:1]]
    sources += [("", "203.0.113.9"), ("", "2001:db8::5")]
    for namespace, source in sources:
        to = _destinations(cluster)
        to.sort(key=lambda words: zlib.crc32(" ".join([cluster.name, source, *words]).encode()))
        yield from ((namespace, source, words) for words in to[:EACH])


def commands(value: Any) -> Iterator[str]:
    """Yield the commands of a Fix, and what stands between backticks in a sentence."""
    if isinstance(value, str):
        yield from re.findall(r"`(kubectl [^`]+)`", value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "command" and inner:
                yield inner
            elif key not in ("argv", "evidence"):
                yield from commands(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from commands(inner)


@cache
def advised() -> dict[str, str]:
    """Return command → the question whose answer gives it; one for each shape."""
    found: dict[str, tuple[str, str]] = {}
    for place in CAPTURES:
        cluster = read(place, _name(place, [ROOT]), [])
        for namespace, source, (to, *flags) in questions(cluster):
            given = dict(zip(flags[::2], flags[1::2], strict=True))
            try:
                _, request_of = arguments.question(
                    source, to, given.get("--protocol", ""), given.get("--to-namespace", ""),
                    ipv4=False, ipv6=False,
                )  # fmt: skip
                path = explain(request_of(namespace or "default"), opened(place))
            except EbpfnetError:
                continue  # a name from a node, TCP to a Service that has none
            for command in commands(codec.plain(path)):
                shape = re.sub(r"[0-9a-f]*\d[0-9a-f.:]*", "N", command)
                found.setdefault(shape, (command, f"{cluster.name}: {source} {to}"))
    return dict(found.values())


def of(*begin: str) -> list[str]:
    return [command for command in advised() if tuple(shlex.split(command)[: len(begin)]) == begin]


def test_our_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = of("kubectl", "ebpfnet")
    assert {shlex.split(command)[2] for command in ours} >= {"capture", "probe-lb"}
    for command in ours:
        done = run(*shlex.split(command)[2:])
        said = (command, advised()[command], done.stderr)
        assert done.returncode == 1, said
        assert "no kubeconfig" in done.stderr, said
    for command in of("kubectl", "ebpfnet", "capture"):  # of a place that the capture can name
        assert "--to address/" not in command, advised()[command]


def test_kubectls_commands() -> None:
    theirs = [command for command in of("kubectl") if command not in of("kubectl", "ebpfnet")]
    verbs = {shlex.split(command)[1] for command in theirs}
    assert verbs >= {"edit", "exec"}
    for command in theirs:
        _, verb, *words = shlex.split(command)
        done = run_process(verb, *_UNREACHABLE, *words, program=(KUBECTL,))
        assert "127.0.0.1:1 was refused" in done.stderr, (command, advised()[command], done.stderr)


def test_commands_for_a_node() -> None:
    for command in advised():
        assert shlex.split(command)[0] in ("kubectl", *ON_NODES), (command, advised()[command])


def test_a_client_of_the_other_ip_version_is_told_which_one_to_give() -> None:
    _, request_of = arguments.question("2001:db8::5", "svc/web-np", "", "", ipv4=False, ipv6=False)
    fix = explain(request_of("default"), opened(CAPTURES[0])).fix
    assert fix is not None
    assert (fix.text, fix.command) == ("Give an IPv4 address of the client's.", "")
