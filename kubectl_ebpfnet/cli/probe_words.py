"""The words of `probe-lb` → a frozen request, and a run of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_ebpfnet.cli import words
from kubectl_ebpfnet.cli.options import Given
from kubectl_ebpfnet.cli.terminal import Talk
from kubectl_ebpfnet.errors import UsageError
from kubectl_ebpfnet.model.net import TCP, UDP
from kubectl_ebpfnet.model.probe import Judgement, ProbeRequest

if TYPE_CHECKING:
    from kubectl_ebpfnet.model.evidence import Bundle
    from kubectl_ebpfnet.model.probe import ProbeReport

EXIT_CODES = {Judgement.AS_ASKED: 0, Judgement.CONTRADICTED: 3, Judgement.UNKNOWN: 4}
_PROTOCOLS = {"": None, "tcp": TCP, "udp": UDP}
_MOST_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Words:
    """The command line of `probe-lb`."""

    service: str
    port: str = ""
    nodes: str = ""
    sender: str = ""
    protocol: str = ""
    wait: str = "5s"
    http_path: str = ""
    attempts: int = 1
    node_ports: bool = False

    def request(self, namespace: str) -> ProbeRequest:
        """What is asked. Raises UsageError."""
        if self.protocol.lower() not in _PROTOCOLS:
            raise UsageError(
                f"--protocol {self.protocol!r}: it cannot be probed", hint="it is tcp or udp"
            )
        if not 1 <= self.attempts <= _MOST_ATTEMPTS:
            raise UsageError(f"--attempts {self.attempts}: 1 to {_MOST_ATTEMPTS}")
        if self.http_path and not self.http_path.startswith("/"):
            raise UsageError(
                f"--http-path {self.http_path!r} does not begin with /", hint="e.g. /clientip"
            )
        seconds = words.duration(self.wait, "--wait")
        if seconds is None or not 0.1 <= seconds <= 60:
            raise UsageError(f"--wait {self.wait}: from 100ms to 60s")
        return ProbeRequest(
            namespace=namespace,
            service=_service(self.service),
            port=self.port,
            protocol=_PROTOCOLS[self.protocol.lower()],
            nodes=self.nodes,
            from_node=_node(self.sender),
            node_ports=self.node_ports,
            wait=seconds,
            http_path=self.http_path,
            attempts=self.attempts,
        )


def _service(word: str) -> str:
    """The name of `svc/x`, or of a bare name. Raises UsageError."""
    if "/" not in word:
        word = f"svc/{word}"
    found = words.destination(word)
    if found.kind != "service" or found.port is not None or found.port_name:
        raise UsageError(f"{word!r} is no Service", hint="e.g. svc/web-lb; --port names its port")
    return found.name


def _node(word: str) -> str:
    if not word:
        return ""
    found = words.place(word if "/" in word else f"node/{word}")
    if found.kind != "node":
        raise UsageError(f"--from {word!r}: probes are sent from a node", hint="--from node/NAME")
    return found.name


@contextlib.contextmanager
def prober(
    asked: Words, given: Given, dry_run: bool, talk: Talk
) -> Iterator[Callable[[], tuple[ProbeReport, Bundle]]]:
    """Gives a function that probes once. Raises EbpfnetError, as the function does."""
    asked.request("default")  # wrong words are told before anything is asked
    connection, access = given.connection(), given.nodes.access()
    from kubectl_ebpfnet.cluster.session import Session
    from kubectl_ebpfnet.probe.lb import Probe

    talk.progress("connecting")
    with Session.open(connection) as session:
        request = asked.request(session.namespace)

        def once() -> tuple[ProbeReport, Bundle]:
            probe = Probe(session, request, access, talk.say, talk.progress)
            return probe.plan() if dry_run else probe.run()

        yield once
