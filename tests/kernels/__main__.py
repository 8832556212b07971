"""What virtual machines need, and what one told once.

python -m tests.kernels                   install what is missing on this machine (root, Debian)
python -m tests.kernels record SERIES     boot a kernel and keep what it tells in recorded/
"""

from __future__ import annotations

import sys

from tests.kernels import machine, recorded
from tests.lab.cluster import build

if sys.argv[1:2] == ["record"]:
    recorded.keep(machine.boot(sys.argv[2]))
else:
    build.packages()
