"""Real kernels in virtual machines: for what this machine's kernel lacks, and limits of its own.

`debian.py` gets them, `initramfs.py` packs what runs in them, `machine.py` boots one. `inside/`
runs there: it makes two nodes, breaks them, and tells what traffic does and what the node side
reads. `expected.py` says what `path` has to make of that; `cluster.py` makes up what no kernel
tells.
"""
