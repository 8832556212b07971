"""Packets of the private netns: as lines (`-d`) and as a file (`--pcap`).

A packet socket in the private netns sees both directions: packet(7). The peer's stand-in address is
replaced by the peer's own, which changes no checksum (redirect/flow.py). As with tcpdump on the
device, segments are seen before segmentation offload and checksums before they are computed.

The file is pcap with nanoseconds: IETF draft-ietf-opsawg-pcap, magic 0xa1b23c4d, link type 1.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import threading
import time

from kubectl_ebpfnet.errors import KernelError
from kubectl_ebpfnet.node.netkat import packet_dump
from kubectl_ebpfnet.node.netkat.private_netns import DEVICE
from kubectl_ebpfnet.node.netkat.setup import NetkatSetup

_ALL = 0x0003
_OUTGOING = 4
_SO_RCVBUFFORCE = 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_QUEUE_BYTES = 32 << 20
_SNAP = 262_144
_ADDRESSES = {b"\x08\x00": (26, 30, 4), b"\x86\xdd": (22, 38, 16)}


class Capture:
    """A thread that shows and writes packets, from the start to `close`."""

    def __init__(self, setup: NetkatSetup, *, debug: bool, pcap: str) -> None:
        """Begin to capture.

        Args:
            setup: the path.
            debug: print a line for each packet to stderr.
            pcap: path of the file, "" for none.

        Raises:
            KernelError: the file cannot be written.
        """
        self._real_addresses = setup.real_addresses
        self._debug = debug
        self._file = -1
        if pcap:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._file = os.open(pcap, flags, 0o644)
            except OSError as error:
                raise KernelError(f"write {pcap}: {error.strerror}", error.errno or 0) from None
            header = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _SNAP, 1)
            os.write(self._file, header)
        with setup.netns.inside():
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with contextlib.suppress(OSError):
            self._tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        self._tap.bind((DEVICE, _ALL))
        self._tap.setblocking(False)
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Handle the queued packets, and tell how many the queue had no room for."""
        os.close(self._stop)
        self._thread.join()
        # struct tpacket_stats of linux/if_packet.h: tp_packets, tp_drops
        _, lost = struct.unpack("=II", self._tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if lost:
            with contextlib.suppress(OSError):
                print(f"netkat: {lost} packets were not captured", file=sys.stderr, flush=True)
        self._tap.close()
        os.close(self._stopping)
        if self._file >= 0:
            os.close(self._file)

    def _work(self) -> None:
        while True:
            tap = self._tap.fileno()
            ready, _, _ = select.select([tap, self._stopping], [], [])
            if tap in ready:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame, name = self._tap.recvfrom(_SNAP)
                        self._packet(frame, name[2] == _OUTGOING)
            elif ready:
                return

    def _packet(self, frame: bytes, sent: bool) -> None:
        now = time.time_ns()
        if self._real_addresses:
            frame = self._with_real_address(frame)
        if self._debug:
            with contextlib.suppress(OSError):
                print(packet_dump.line(frame, sent), file=sys.stderr, flush=True)
        if self._file >= 0:
            size = len(frame)
            head = struct.pack("=IIII", now // 10**9, now % 10**9, size, size)
            with contextlib.suppress(OSError):
                os.writev(self._file, [head, frame])

    def _with_real_address(self, frame: bytes) -> bytes:
        """Put the peer's own address into the IP header, and into the packet in an ICMP error."""
        source, target, size = _ADDRESSES.get(frame[12:14], (0, 0, 0))
        if not size:
            return frame
        for stand_in, real_address in self._real_addresses.items():
            offsets = {frame[at : at + size]: at for at in (source, target)}
            position = offsets.get(stand_in)
            if position is not None:
                return frame[:position] + real_address + frame[position + size :]
            quoted = frame.find(stand_in, target + size)
            icmp = frame[23] == 1 if size == 4 else frame[20] == 58
            if icmp and quoted > 0:
                return frame[:quoted] + real_address + frame[quoted + size :]
        return frame
