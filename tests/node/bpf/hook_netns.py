"""A network namespace to attach programs in, and what the node side says of it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from kubectl_ebpfnet.model.bpf import Attachment
from kubectl_ebpfnet.model.protocol.questions import NodeRequest, PodNamespace, node_argv
from kubectl_ebpfnet.node.bpf import attachments
from kubectl_ebpfnet.node.host import netns
from tests.node.bpf import bpf_programs as made


@dataclass
class Net:
    """A network namespace with the devices a1, b1 and c1."""

    name: str
    stack: ExitStack

    @classmethod
    def new(cls, stack: ExitStack) -> Net:
        """A new one, gone with the stack."""
        one = cls(made.network(stack), stack)
        for device in ("a", "b", "c"):
            one.run(f"ip link add {device}1 type veth peer name {device}2")
        return one

    @property
    def path(self) -> str:
        """For setns(2)."""
        return f"/run/netns/{self.name}"

    def run(self, command: str) -> str:
        """What a command prints in it."""
        return made.inside(self.name, *command.split())

    def index(self, device: str) -> int:
        """A device's ifindex."""
        with netns.inside(self.path):
            return socket.if_nametoindex(device)

    def asked(self, *devices: str, pod: PodNamespace | None = None) -> list[Attachment]:
        """What the node side answers in it."""
        with netns.inside(self.path):
            return list(
                attachments.attachments(NodeRequest(1, node_argv("attachments", *devices), pod))
            )

    def link(
        self, program: int, device: str, attach_type: int, flags: int = 0, near: int = 0
    ) -> int:
        """A link of a program at a device; skips where the kernel has no such link."""
        try:
            with netns.inside(self.path):
                index = socket.if_nametoindex(device)
                return made.link(self.stack, program, index, attach_type, flags, near)
        except OSError as error:
            pytest.skip(f"this kernel has no such link: {error}")


def at(found: list[Attachment], hook: str, device: str = "") -> list[Attachment]:
    """What is at one hook, in its order."""
    return [one for one in found if one.hook == hook and one.device == device]


def ids(found: list[Attachment]) -> list[int | None]:
    """Their program ids."""
    return [one.program_id for one in found]


def tool(*argv: str) -> Any:
    """What a program prints as JSON; skips where it is not installed."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    return json.loads(subprocess.run(argv, capture_output=True, check=True).stdout or b"[]")
