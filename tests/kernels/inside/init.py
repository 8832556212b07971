"""The first process of a virtual machine: it runs the checks, reports them and powers off."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

CHECK_LIST = "/checks"
"""Names modules, one a line: each has a context manager `setting` and functions `check_…`."""
_REPORT = "/dev/ttyS1"
_MOUNTS = (
    ("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
)  # fmt: skip
_INIT_MODULE = 175  # x86-64
_POWER_OFF = 0x4321FEDC
_libc = ctypes.CDLL(None, use_errno=True)


def run() -> None:
    """Run every check and power off, whatever happens."""
    try:
        for kind, where in _MOUNTS:
            os.makedirs(where, exist_ok=True)
            _libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None)
        os.makedirs("/run/netns", exist_ok=True)
        os.environ["PATH"] = "/bin"
        _load_modules()
        with open(_REPORT, "w", buffering=1) as report:
            for name in _lines(CHECK_LIST):
                for result in _results(importlib.import_module(name)):
                    report.write(json.dumps(result) + "\n")
            report.write(json.dumps({"end": os.uname().release}) + "\n")
    except BaseException:
        traceback.print_exc()
    os.sync()
    _libc.reboot(_POWER_OFF)


def _lines(file: str) -> list[str]:
    with open(file) as listed:
        return listed.read().split()


def _load_modules() -> None:
    for file in _lines("/modules"):
        with open(file, "rb") as module:
            data = module.read()
        if _libc.syscall(_INIT_MODULE, data, ctypes.c_ulong(len(data)), b""):
            print(f"{file}: {os.strerror(ctypes.get_errno())}", flush=True)


def _results(module: Any) -> Iterator[dict[str, Any]]:
    """Yield what each check of a module tells; all are made in its setting, one after another."""
    with module.setting():
        for name, check in list(vars(module).items()):
            if name.startswith("check_"):
                yield _result(name.removeprefix("check_"), check)


def _result(name: str, check: Callable[[], Any]) -> dict[str, Any]:
    begun, told, error = time.monotonic(), None, ""
    try:
        told = check()
    except Exception:
        error = traceback.format_exc()
    print(f"{name}: {error or 'ok'}", flush=True)
    return {"name": name, "error": error, "seconds": time.monotonic() - begun, "told": told}
