"""A run with node pods that waits to be ended; tests/lab/test_node_pod_lives.py kills it.

    python -m tests.lab.cluster.tools.node_pod_run '{"nodes": ["node1"], "idle": 60, …}'

Prints `namespace NAME`, then `runs NODE POD` for each, or `fails NODE WORDS`, and `ready`. It ends
at the end of its stdin. SIGTERM becomes an exception, as in kubectl_ebpfnet/cli/app.py.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import Any

from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
from kubectl_ebpfnet.cluster.exec.pump import Limits
from kubectl_ebpfnet.cluster.exec.run import exec_stream
from kubectl_ebpfnet.cluster.nodepods import manifest
from kubectl_ebpfnet.cluster.nodepods.deployment import Deployment, NodePodOptions
from kubectl_ebpfnet.cluster.nodepods.kept import NodePod
from kubectl_ebpfnet.cluster.nodepods.sides import session_argv
from kubectl_ebpfnet.errors import ClusterError


def main(wanted: dict[str, Any]) -> None:
    """Deploy what is wanted, and wait."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    manifest.IDLE_SECONDS = wanted.get("idle", 60)
    options = NodePodOptions(**wanted.get("options", {}))
    connection = ConnectionOptions(as_user=wanted.get("as_user", ""))

    def complain(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with (
        Session.open(connection) as session,
        Deployment(session, options, complain) as deployment,
    ):
        deployment.start(wanted["nodes"])
        tell(f"namespace {deployment.run.namespace}")
        for node in wanted["nodes"]:
            try:
                pod = deployment.wait(node, 60)
            except ClusterError as error:
                tell(f"fails {node} {error}")
                continue
            tell(f"runs {node} {pod.container.pod}")
            if wanted.get("speaks"):
                threading.Thread(target=speak, args=(session, pod), daemon=True).start()
        tell("ready")
        sys.stdin.read()


def speak(session: Session, pod: NodePod) -> None:
    """Hold a session open: the node side is never told that there is nothing more to come."""
    exec_stream(
        session,
        pod.container,
        session_argv(),
        on_stdout=lambda piece: tell("answer"),
        on_stderr=lambda piece: None,
        stdin=b'{"protocol": 1, "id": 1, "argv": ["ebpfnet-node", "links"]}\n',
        reads_to_end=False,
        limits=Limits(idle=None),
    )


def tell(line: str) -> None:
    """One line for the test."""
    print(line, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
