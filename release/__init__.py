"""Makes what users install: `python -m release --help`, by `make dist` and the release workflow.

The archive of a platform is a frozen program (frozen.py), with the licences of all that is inside
(licenses.py), packed so that the same sources give the same bytes (archive.py), beside a list of
its parts (sbom.py) and krew's manifest (manifest.py).
"""
