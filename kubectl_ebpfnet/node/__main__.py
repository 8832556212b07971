"""`python -m kubectl_ebpfnet.node`: answers requests from stdin on stdout.

python -m kubectl_ebpfnet.node                 requests on stdin, answers on stdout
python -m kubectl_ebpfnet.node ask links       one question by hand, facts on stdout
python -m kubectl_ebpfnet.node netkat WORDS    netkat; with --stdin-frames first, for a client
python -m kubectl_ebpfnet.node trace REQUEST   trace (model/protocol/tracing.py), until stdin ends
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

from kubectl_ebpfnet.errors import EbpfnetError
from kubectl_ebpfnet.model.protocol.frames import OPTION
from kubectl_ebpfnet.model.protocol.questions import PROGRAM, NodeRequest
from kubectl_ebpfnet.node.server.answer import answer, serve


def main(words: list[str]) -> int:
    """Run the node side. Returns the exit code."""
    if not words:
        return serve(sys.stdin.buffer, sys.stdout.buffer)
    if words[0] == "ask" and len(words) > 1:
        return _by_hand(tuple(words[1:]), sys.stdout.buffer)
    if words[0] == "hold" and words[1::2] == ["--idle", "--socket"] and len(words) == 5:
        from kubectl_ebpfnet.node.server.zygote import serve_sessions

        return serve_sessions(float(words[2]), Path(words[4]))
    if words[0] == "netkat":
        return _netkat(words[1:])
    if words[0] == "trace":
        from kubectl_ebpfnet.node.trace import session

        return session.main(words[1:])
    print(__doc__, file=sys.stderr)
    return 2


def _netkat(words: list[str]) -> int:
    """Run netkat; with OPTION first, stdin and stderr are framed (model/protocol/frames.py)."""
    from kubectl_ebpfnet.node.netkat import __main__ as netkat
    from kubectl_ebpfnet.node.server import framed_session

    if words[:1] == [OPTION]:
        return framed_session.run(words[1:], netkat.main)
    code = netkat.main(words)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)  # threads may still wait for stdin or the peer


def _by_hand(words: tuple[str, ...], out: BinaryIO) -> int:
    outcome = answer(NodeRequest(1, (PROGRAM, *words)), out.write)
    out.flush()
    if outcome.error:
        print(json.dumps(outcome.error)[1:-1], file=sys.stderr)
    return outcome.exit_code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EbpfnetError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(141)
