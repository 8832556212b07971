"""The access to a cluster: kubectl's connection flags, and kubeconfig entries after merging.

Fields: kubernetes/client-go (tools/clientcmd/api/v1/types.go).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.errors import KubeconfigError
from kubectl_ebpfnet.model.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """kubectl's connection flags (`kubectl options`) as given; "" or () for the others.

    Attributes:
        request_timeout: seconds for a whole request, None without the flag.
        as_user_extra: each `KEY=VALUE`, as the flag takes it.
        log_level: of -v; from 6 on requests are logged (request_log.py).
        log: takes lines of the log.
        warn: takes each warning of the API server, without --warnings-as-errors None.
    """

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    user: str = ""
    server: str = ""
    token: str = ""
    namespace: str = ""
    as_user: str = ""
    as_groups: tuple[str, ...] = ()
    as_uid: str = ""
    as_user_extra: tuple[str, ...] = ()
    certificate_authority: str = ""
    client_certificate: str = ""
    client_key: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    username: str = ""
    password: str = ""
    request_timeout: float | None = None
    disable_compression: bool = False
    log_level: int = 0
    log: Callable[[str], object] = str
    warn: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A named entry of a kubeconfig.

    Attributes:
        name: name of the entry, "" for an entry made of flags.
        body: fields of the entry, as in the file, with flags applied.
        folder: folder that relative paths start from.
    """

    name: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""

    def text(self, key: str) -> str:
        """Return a field as text, "" when missing."""
        value = self.body.get(key)
        return "" if value is None else str(value)

    def path(self, key: str) -> str:
        """Return a field as a path, "" when missing."""
        value = os.path.expanduser(self.text(key))
        return os.path.join(self.folder, value) if value else ""

    def material(self, key: str) -> bytes | None:
        """Return PEM bytes of `<key>-data` (base64, preferred) or of the file `<key>`, else None.

        Raises:
            KubeconfigError: the data is not base64, or the file cannot be read.
        """
        data = self.text(f"{key}-data")
        if data:
            try:
                return base64.b64decode(data, validate=False)
            except (binascii.Error, ValueError) as e:
                raise KubeconfigError(f"{key}-data of {self.name!r} is not base64: {e}") from e
        path = self.path(key)
        return read_file(path, f"{key} of {self.name!r}") if path else None


@dataclass(frozen=True, slots=True)
class Access:
    """A cluster, a user and a namespace to connect with.

    Attributes:
        context: name of the context, "" without one (flags only, or inside a pod).
        namespace: default namespace.
        cluster: entry of the cluster, with flags applied.
        user: entry of the user, with flags applied.
        files: kubeconfig files that were read.
    """

    context: str
    namespace: str
    cluster: Entry
    user: Entry
    files: tuple[str, ...] = ()


def read_file(path: str, what: str) -> bytes:
    """Return the bytes of a file that a kubeconfig names.

    Raises:
        KubeconfigError: the file cannot be read; `what` describes it in the message.
    """
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise KubeconfigError(f"cannot read {what}: {path}: {e.strerror}") from e
