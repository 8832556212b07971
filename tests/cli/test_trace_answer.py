"""What `trace` prints while it follows."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest

from kubectl_ebpfnet.cli import trace_answer
from kubectl_ebpfnet.cli.terminal import ReaderGone
from kubectl_ebpfnet.render.text.view import View
from kubectl_ebpfnet.render.trace.pcapng import HEADER, Pcapng
from tests.render.trace.test_trace_text import sighting


def test_a_reader_of_pcapng_has_each_packet_when_it_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kubectl_ebpfnet.cli.terminal.discard_stdout", lambda: None)
    read, write = os.pipe()
    os.set_blocking(read, False)
    with suppress(BrokenPipeError), open(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        shown = trace_answer._Shown("pcapng", View(0), 128)
        shown.began(7)
        assert os.read(read, 1000) == HEADER
        seen = sighting(data="45" + "00" * 19)
        expected = Pcapng(128).packet(seen, 7)
        shown.sighting(seen, 1, "SYN")
        assert os.read(read, 1000) == expected
        os.close(read)
        with pytest.raises(ReaderGone):
            shown.sighting(seen, 1, "SYN")
