"""Packs tests/scenarios/vxlan-kpr into the capture that ships for `make demo`.

    python tests/scenarios/pack.py

Run it after the scenario changed; tests/capture/test_open.py says when that is.
"""

from pathlib import Path

from kubectl_ebpfnet.capture.open import open_bundle, write_bundle

HERE = Path(__file__).parent
DEMO = HERE.parent.parent / "kubectl_ebpfnet" / "demo"
CREATED = "2026-11-21T05:20:00Z"  # when the cluster was captured

if __name__ == "__main__":
    scenario = open_bundle(HERE / "vxlan-kpr")
    DEMO.mkdir(exist_ok=True)
    write_bundle(
        DEMO / "vxlan-kpr.zip",
        scenario.records,
        scenario.note,
        overwrite=True,
        created=CREATED,
    )
    (DEMO / "vxlan-kpr.zip").chmod(0o644)  # unlike a capture of one's own, this one is public
