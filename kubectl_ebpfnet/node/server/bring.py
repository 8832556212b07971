"""The program of an exec that brings a node side to a node pod (python3 -I -S -c TEXT DIGEST SIZE):
unpacks the zip of SIZE bytes on stdin into the pod's volume. connect.py then has it started.

Node sides of other versions that nobody uses make room. What was begun by a client that is gone
is removed by the next one.
"""

import io
import os
import shutil
import signal
import sys
import time
import zipfile

FOLDER = os.environ.get("EBPFNET_NODE_FOLDER", "/run/ebpfnet")
SECONDS = 120
NETKAT = """#!{python}
import os
import sys
sys.path.insert(0, "{side}")
os.environ["PYTHONPATH"] = "{side}"
from kubectl_ebpfnet.node.netkat.__main__ import start
start()
"""


def main(digest: str, size: int) -> int:
    """Unpack what comes on stdin. Returns the exit code."""
    signal.alarm(SECONDS)
    side = f"{FOLDER}/{digest}"
    if os.path.exists(side):
        return 0
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        sys.exit(f"only {len(data)} of {size} bytes came")
    make_room(digest)
    new = f"{FOLDER}/new.{os.getpid()}"
    try:
        zipfile.ZipFile(io.BytesIO(data)).extractall(new)
        os.makedirs(f"{FOLDER}/bin", exist_ok=True)
        with open(f"{new}/netkat", "w") as file:
            file.write(NETKAT.format(python=sys.executable, side=side))
        os.chmod(f"{new}/netkat", 0o755)  # noqa: S103  a command of this volume
        os.rename(new, side)
        link = f"{FOLDER}/bin/netkat"
        os.symlink(f"{side}/netkat", f"{link}.{os.getpid()}")
        os.rename(f"{link}.{os.getpid()}", link)
    except OSError as error:
        if not os.path.exists(f"{side}/netkat"):  # another client was quicker
            sys.exit(f"it cannot be unpacked into {FOLDER}: {error.strerror}")
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return 0


def make_room(digest: str) -> None:
    """Remove node sides that no process serves."""
    for name in os.listdir(FOLDER):
        path = f"{FOLDER}/{name}"
        used = name in ("bin", "image", digest) or os.path.exists(f"{path}/node.sock")
        if used or not os.path.isdir(path):
            continue
        try:
            age = time.time() - os.stat(path).st_mtime
        except FileNotFoundError:  # another client renamed or removed it
            continue
        if age > SECONDS:
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
