"""The program of an exec that brings a node side to a node pod (python3 -I -S -c TEXT DIGEST SIZE):
unpacks the zip of SIZE bytes on stdin into the pod's volume. connect.py then has it started.

What has its name of DIGEST is whole and complete, wherever this is killed: it gets that last. What
was begun by a client that is gone is removed by the next one, and so are node sides of other
versions that nobody uses (room.py).
"""

import collections.abc
import io
import os
import shutil
import signal
import sys
import zipfile
import zlib

FOLDER = os.environ.get("EBPFNET_NODE_FOLDER", "/run/ebpfnet")
SECONDS = 120
NETKAT = """#!{python}
import glob
import os
import sys
for side in sorted(glob.glob("{folder}/[0-9a-f]*/kubectl_ebpfnet/.."), key=os.path.getmtime)[-1:]:
    sys.path.insert(0, side)
    os.environ["PYTHONPATH"] = side
try:
    from kubectl_ebpfnet.node.netkat.__main__ import start
except ModuleNotFoundError:
    sys.exit("the node side was removed; the next run that uses this pod brings one")
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
    new = f"{FOLDER}/new.{os.getpid()}"
    try:
        came = zipfile.ZipFile(io.BytesIO(data))
        room: dict[str, collections.abc.Callable[[str, str], None]] = {}
        exec(came.read("kubectl_ebpfnet/node/server/room.py"), room)  # noqa: S102  this program's
        room["make_room"](FOLDER, digest)
        came.extractall(new)
        os.makedirs(f"{FOLDER}/bin", exist_ok=True)
        with open(f"{new}/netkat", "w") as file:
            file.write(NETKAT.format(python=sys.executable, folder=FOLDER))
        os.chmod(f"{new}/netkat", 0o755)  # noqa: S103  a command of this volume
        os.rename(f"{new}/netkat", f"{FOLDER}/bin/netkat")
        os.rename(new, side)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if not os.path.exists(side):  # another client was quicker
            sys.exit(f"it cannot be unpacked into {FOLDER}: {getattr(error, 'strerror', error)}")
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
