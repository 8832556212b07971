"""The exec protocol without a socket: read and write the frames of a v4 or v5 exec.

Facts: k8s.io/apimachinery/pkg/util/remotecommand (channel numbers, v4 status, v5 close) and
k8s.io/client-go/tools/remotecommand/websocket.go, v4.go, v5.go.

Every websocket message is one channel byte and its bytes: 0 stdin, 1 stdout, 2 stderr, 3 the
status (a metav1.Status as JSON, once, at the end), 4 resize. v5 adds 255: "the channel named by
the next byte is closed", hence half-close of stdin. Servers before 1.29 speak only v4, which
cannot signal the end of stdin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import field

from kubectl_ebpfnet.errors import ExecError, ParseError
from kubectl_ebpfnet.model.dataclass import dataclass
from kubectl_ebpfnet.model.untrusted import integer, json_value

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255

Sink = Callable[[bytes], object]

_STDIN_PIECE = 1 << 15
_STATUS_MAX = 1 << 20


@dataclass(slots=True)
class Channels:
    """The channels of an exec: `add_frame` takes frames, the sinks take the output.

    Attributes:
        on_stdout: takes pieces of stdout.
        on_stderr: takes pieces of stderr.
        max_bytes: limit of stdout and stderr together, None for no limit.
        stdout_bytes: bytes of stdout so far.
        stderr_bytes: bytes of stderr so far.
        status: the metav1.Status so far, as JSON.
        ended: whether the status is complete.
    """

    on_stdout: Sink
    on_stderr: Sink
    max_bytes: int | None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    status: bytearray = field(default_factory=bytearray)
    ended: bool = False
    _channel: int | None = None  # of a message that is incomplete

    def add_frame(self, data: bytes, starts: bool, final: bool) -> bool:
        """Take a data frame. A message may be fragmented; its first byte is the channel.

        Args:
            data: payload of the frame.
            starts: the frame starts a message.
            final: the frame ends a message.

        Returns:
            Whether the frame carried data of a channel.

        Raises:
            ExecError: the output or the status is too long.
        """
        if starts:
            self._channel = None
        if self._channel is None and data:
            self._channel, data = data[0], data[1:]
        if data:
            self._add_payload(data)
        if final:
            if self._channel == STATUS and self.status:
                self.ended = True
            self._channel = None
        return bool(data)

    def _add_payload(self, data: bytes) -> None:
        if self._channel == STDOUT:
            self.stdout_bytes += len(data)
            self._check_size()
            self.on_stdout(data)
        elif self._channel == STDERR:
            self.stderr_bytes += len(data)
            self._check_size()
            self.on_stderr(data)
        elif self._channel == STATUS:
            self.status += data
            if len(self.status) > _STATUS_MAX:
                raise ExecError("the exec's status is longer than 1 MiB")
        # Other channels (a v5 server closes a channel) carry no data.

    def _check_size(self) -> None:
        if self.max_bytes is not None and self.stdout_bytes + self.stderr_bytes > self.max_bytes:
            raise ExecError(f"the program wrote more than {self.max_bytes} bytes")

    @property
    def so_far(self) -> str:
        """The bytes received so far, for error messages."""
        return f"{self.stdout_bytes} bytes of stdout and {self.stderr_bytes} of stderr received"

    def exit_code(self) -> int:
        """Return the exit code in the status. Raises ExecError without a status or an exit code."""
        if not self.ended:
            raise ExecError(
                f"the connection ended before the exit code came; {self.so_far}",
                hint="check whether the pod was deleted, or its node or the connection lost",
            )
        return exit_code_of(bytes(self.status))


def exit_code_of(status: bytes) -> int:
    """Return the exit code in a metav1.Status.

    `Success` is 0; `NonZeroExitCode` has the code in details.causes (ExitCode).

    Raises:
        ExecError: the program did not run; the message is the server's.
    """
    try:
        document = json_value(status, "the exec's status")
    except ParseError:
        document = None
    if not isinstance(document, dict):
        raise ExecError(f"the exec's status is not JSON: {status[:200]!r}")
    if document.get("status") == "Success":
        return 0
    if document.get("reason") == "NonZeroExitCode":
        details = document.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        for cause in causes if isinstance(causes, list) else []:
            if isinstance(cause, dict) and cause.get("reason") == "ExitCode":
                with contextlib.suppress(ParseError):
                    return integer(cause.get("message"), "the exec's status", least=None)
    message = document.get("message") or document.get("reason") or "no reason was given"
    raise ExecError(f"the program did not run: {' '.join(str(message).split())}")


def stdin_messages(stdin: bytes, protocol: str | None, reads_to_end: bool) -> list[bytes]:
    """Return the messages that carry stdin to the program, with its end on v5.

    Args:
        stdin: all bytes of stdin.
        protocol: V4, V5, or None when the server chose none.
        reads_to_end: the program needs the end of stdin.

    Raises:
        ExecError: the program needs the end of stdin, and the protocol cannot signal it.
    """
    if protocol != V5 and reads_to_end:
        raise ExecError(
            f"this API server speaks only {V4}, which cannot signal the end of stdin",
            hint="use a program that stops reading by itself",
        )
    pieces = range(0, len(stdin), _STDIN_PIECE)
    messages = [bytes((STDIN,)) + stdin[at : at + _STDIN_PIECE] for at in pieces]
    return [*messages, bytes((CLOSE, STDIN))] if protocol == V5 else messages
