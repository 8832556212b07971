"""What is frozen: kubectl-ebpfnet, and by its other name what answers kubectl's completion."""

from __future__ import annotations

import os
import sys

# PyInstaller's bootloader has the program find its libraries by a variable, which a credential
# plugin would inherit: it must not load our libssl. The loader read it before Python began.
for _name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
    if f"{_name}_ORIG" in os.environ:
        os.environ[_name] = os.environ.pop(f"{_name}_ORIG")
    else:
        os.environ.pop(_name, None)
for _name in ("_PYI_ARCHIVE_FILE", "_PYI_PARENT_PROCESS_LEVEL", "_PYI_LINUX_PROCESS_NAME"):
    os.environ.pop(_name, None)

from kubectl_ebpfnet.cli.app import complete, start  # noqa: E402

if os.path.basename(sys.argv[0]).startswith("kubectl_complete-"):
    complete()
start()
