"""What is executed in node pods, and which node side answers there.

The first process of a node pod is first.py of the node side, an exec runs connect.py: their texts
go with the manifest and with the exec, so the image needs nothing but Python. The node side that
answers says which one it is, by its digest (model/protocol/node_side.py); where it is another one,
or there is none, `bring` (bring.py) sends this program's own, and the same exec then finds that.
"""

from __future__ import annotations

import functools

from kubectl_ebpfnet.errors import ClusterError
from kubectl_ebpfnet.model.node_pods import EXAMPLE_IMAGE, OLDEST_PYTHON
from kubectl_ebpfnet.model.protocol import node_side

_PYTHON = ("python3", "-I", "-S", "-c")
_SERVER = "kubectl_ebpfnet/node/server"


def first_process(idle: int) -> tuple[str, ...]:
    """Return the command of a node pod.

    Args:
        idle: seconds without a session after which it ends; 0 for a pod that stays.
    """
    return ("python3", "-I", "-c", _program("first"), str(idle))


def session_argv(*words: str) -> tuple[str, ...]:
    """Return the argv of an exec that speaks to the node side.

    Args:
        words: `netkat`, OPTION and netkat's words, or none for questions.
    """
    return (*_PYTHON, _program("connect"), node_side.own_digest(), *words)


def bring_argv(size: int) -> tuple[str, ...]:
    """Return the argv of an exec that takes `packed()`, of `size` bytes, on stdin."""
    return (*_PYTHON, _program("bring"), node_side.own_digest(), str(size))


@functools.cache
def packed() -> bytes:
    """Return this program's node side as it is sent: a zip."""
    return node_side.packed(node_side.files())


@functools.cache
def _program(name: str) -> str:
    """Return the text of a program of node/server that is sent to a node, without its docstring."""
    text = node_side.files()[f"{_SERVER}/{name}.py"].decode()
    return text.split('"""', 2)[2].lstrip()


def no_python(where: object) -> ClusterError:
    """Return the error for an image without Python.

    `where` is the container, or its image in words.
    """
    return ClusterError(
        f"{where} has no python3; the node side needs {OLDEST_PYTHON} or later",
        hint=f"--image {EXAMPLE_IMAGE} is one that has it",
    )
