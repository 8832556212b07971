"""etcd, the API server, the controllers and the scheduler, in the machine's own namespace."""

from __future__ import annotations

import secrets
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tests.lab.cluster.config import (
    ADMIN_CONFIG,
    API_SERVER,
    BINARIES,
    BRIDGE_ADDRESS,
    NOBODY_CONFIG,
    POD_CIDR,
    SERVICE_CIDR,
    SRE_CONFIG,
    STATE,
)
from tests.lab.cluster.processes import run, start, wait_for

PKI = STATE / "pki"
USERS = {"admin": "system:masters", "sre": "", "nobody": ""}
"""User → group; `sre` has tier `agents` (manifests.py), `nobody` may do nothing."""
GATES = "--feature-gates=EndpointSliceTerminatingCondition=true"
"""As clusters since 1.22: an endpoint says whether it is terminating, and still serving."""


def up() -> None:
    """Start everything and wait until the API server is ready."""
    _certificates()
    _tokens()
    start(
        "etcd",
        [
            "etcd", "--unsafe-no-fsync", f"--data-dir={STATE}/etcd",
            "--listen-client-urls=http://127.0.0.1:23795",
            "--advertise-client-urls=http://127.0.0.1:23795",
            "--listen-peer-urls=http://127.0.0.1:23805",
            "--initial-advertise-peer-urls=http://127.0.0.1:23805",
            "--initial-cluster=default=http://127.0.0.1:23805",
        ],
    )  # fmt: skip
    start(
        "kube-apiserver",
        [
            str(BINARIES / "kube-apiserver"), "--etcd-servers=http://127.0.0.1:23795",
            f"--bind-address={BRIDGE_ADDRESS}", "--secure-port=6443",
            f"--advertise-address={BRIDGE_ADDRESS}", f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--authorization-mode=RBAC", "--allow-privileged=true",
            f"--token-auth-file={STATE}/tokens.csv",
            f"--tls-cert-file={PKI}/server.crt", f"--tls-private-key-file={PKI}/server.key",
            f"--client-ca-file={PKI}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={PKI}/sa.pub",
            f"--service-account-signing-key-file={PKI}/sa.key",
            "--disable-admission-plugins=ServiceAccount", GATES,
            f"--cert-dir={STATE}/apiserver",
        ],
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
    wait_for(lambda: _ready(context), "the API server", 60)
    common = ["--kubeconfig", str(ADMIN_CONFIG), "--leader-elect=false"]
    start(
        "kube-controller-manager",
        [
            str(BINARIES / "kube-controller-manager"), *common, "--port=0",
            "--secure-port=0", f"--cluster-cidr={POD_CIDR}",
            f"--service-account-private-key-file={PKI}/sa.key", f"--root-ca-file={PKI}/ca.crt",
            "--controllers=*,-nodeipam,-route", GATES,
        ],
    )  # fmt: skip
    start(
        "kube-scheduler",
        [str(BINARIES / "kube-scheduler"), *common, "--port=0", "--secure-port=0"],
    )


def _ready(context: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(f"{API_SERVER}/readyz", context=context, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _certificates() -> None:
    # With all that RFC 5280 wants: Python verifies strictly since 3.13 (VERIFY_X509_STRICT).
    PKI.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        run(["openssl", *words], cwd=PKI)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=ebl-ca",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kube-apiserver",
            "-keyout", "server.key", "-out", "server.csr")  # fmt: skip
    (PKI / "san").write_text(
        f"subjectAltName=IP:{BRIDGE_ADDRESS},IP:10.96.0.1,DNS:kubernetes.default.svc\n"
        "authorityKeyIdentifier=keyid\n"
    )
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "30", "-extfile", "san", "-out", "server.crt")  # fmt: skip
    openssl("genrsa", "-out", "sa.key", "2048")
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def _tokens() -> None:
    rows = []
    for user, group in USERS.items():
        token = secrets.token_hex(16)
        rows.append(f'{token},{user},{user},"{group}"')
        path = {"admin": ADMIN_CONFIG, "sre": SRE_CONFIG, "nobody": NOBODY_CONFIG}[user]
        _kubeconfig(path, user, token)
    tokens = STATE / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text("\n".join(rows) + "\n")


def _kubeconfig(path: Path, user: str, token: str) -> None:
    path.touch(mode=0o600)
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {{server: "{API_SERVER}", certificate-authority: {PKI}/ca.crt}}
users:
- name: {user}
  user: {{token: {token}}}
contexts:
- name: lab
  context: {{cluster: lab, user: {user}}}
current-context: lab
"""
    )
