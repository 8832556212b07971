"""The lab's certificates pass a strict verification, which is Python's default since 3.13."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lab.cluster.control import control_plane
from tests.lab.cluster.processes import run


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_certificates_pass_a_strict_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "PKI", tmp_path)
    control_plane._certificates()
    run(["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "server.crt"], cwd=tmp_path)
