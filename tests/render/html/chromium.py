"""A real Chromium without a screen, driven over a pipe by its DevTools protocol.

`--remote-debugging-pipe`: it reads JSON messages from fd 3 and writes them to fd 4, each ended by a
zero byte (chromium, content/browser/devtools/devtools_pipe_handler.cc). So neither a driver nor a
websocket is needed. The protocol: chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
MISSING = shutil.which(PROGRAM) is None
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip
_TO_3_AND_4 = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_PATIENCE = 30.0
"""Seconds for one answer; a busy machine starts it in 5."""


class Chromium:
    """A browser with one tab. `seen` holds what it told of the page since it was opened."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ebpfnet-chromium-")
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        start = [sys.executable, "-c", _TO_3_AND_4, str(theirs_in), str(theirs_out)]
        self._process = subprocess.Popen(
            [*start, PROGRAM, *_FLAGS, f"--user-data-dir={self._folder.name}/user"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._number = 0
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def show(self, width: int = 1000, dark: bool = False, media: str = "") -> None:
        """Choose how pages are shown.

        Args:
            width: of the window, CSS pixels.
            dark: the user prefers dark.
            media: `print`, or "" for the screen.
        """
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def open(self, page: str) -> str:
        """Load a whole document from a file and return its address."""
        file = Path(self._folder.name) / f"{self._number}.html"
        file.write_text(page, encoding="utf-8")
        self.seen.clear()
        self.call("Page.navigate", url=file.as_uri())
        while "Page.loadEventFired" not in (name for name, _ in self.seen):
            self._next()
        self.evaluate("0")  # what it tells of the page stands before this answer
        return file.as_uri()

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key: Tab or Enter."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}[key]
        known = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        pressed = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **pressed, **known)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def click(self, x: float, y: float) -> None:
        """Click into the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def pdf(self) -> bytes:
        """Print the page."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def picture(self, height: float) -> bytes:
        """Return the top of the page as PNG, `height` pixels of it."""
        width = self.evaluate("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, itself included."""
        return [e["request"]["url"] for n, e in self.seen if n == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what stands in the console: errors, violations of the policy, anything else."""
        said = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event) for name, event in self.seen if name in said]

    def close(self) -> None:
        """End the browser and remove its folder."""
        os.close(self._to)  # it ends when nobody speaks to it
        self._process.wait(_PATIENCE)
        os.close(self._from)
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError):  # its helpers end after it, and write until then
                self._folder.cleanup()
                return
            assert time.monotonic() < deadline, f"{self._folder.name} is still written to"
            time.sleep(0.05)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], deadline - time.monotonic())
            piece = os.read(self._from, 1 << 20) if ready else b""
            assert piece, f"{PROGRAM} said nothing for {_PATIENCE:.0f} s, or ended"
            self._rest += piece
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        if "method" in message:
            self.seen.append((message["method"], message["params"]))
        return message
