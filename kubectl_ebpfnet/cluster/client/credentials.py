"""Credentials for the API server: bearer tokens, certificates, plugins, impersonation.

Order of precedence as in client-go (tools/clientcmd/client_config.go, transport/round_trippers.go,
plugin/pkg/client/auth/exec): a token (file before text), then an exec plugin, then an
auth-provider, then name and password; client certificates go along with any of them.
Impersonation: Kubernetes docs, "User impersonation"; header keys are escaped as
transport/round_trippers.go (headerKeyEscape) does.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from kubectl_ebpfnet.cluster.client.access import Access, Entry, read_file
from kubectl_ebpfnet.cluster.client.library import narrow_imports
from kubectl_ebpfnet.errors import KubeconfigError, ParseError
from kubectl_ebpfnet.model.untrusted import moment

_TOKEN_FILE_SECONDS = 60.0  # client-go reads a token file anew every minute
_EXPIRY_MARGIN_SECONDS = 10.0
# RFC 9110 token characters without "%", which must itself be escaped.
_LEGAL_IN_HEADER_KEY = frozenset(
    b"!#$&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

Header = tuple[str, str]


class Credentials:
    """The credentials of every request, renewed when they expire. Threads may share it.

    Attributes:
        certificate: PEM bytes of the client certificate and its key, or None.
    """

    def __init__(self, access: Access) -> None:
        """Load the credentials; a plugin may run and prompt the user. Raises KubeconfigError."""
        self._access = access
        self._user = access.user
        self._lock = threading.Lock()
        self._authorization = ""
        self._expires: float | None = None  # time.time() of the end of validity, None for never
        self._impersonation = impersonation_headers(access.user)
        self.certificate = _certificate(access.user)
        self._load()

    def headers(self) -> list[Header]:
        """Return the Authorization and Impersonate-* headers; a name may be repeated."""
        with self._lock:
            if self._expires is not None and time.time() >= self._expires:
                self._load()
            authorization = self._authorization
        first = [("Authorization", authorization)] if authorization else []
        return first + self._impersonation

    def renew(self) -> bool:
        """Load the credentials again, after a 401.

        Returns:
            Whether the Authorization header changed.
        """
        with self._lock:
            before = self._authorization
            if any(key in self._user.body for key in ("tokenFile", "exec", "auth-provider")):
                self._load()
            return self._authorization != before

    def _load(self) -> None:
        user = self._user
        self._expires = None
        if user.text("tokenFile"):
            path = user.path("tokenFile")
            token = read_file(path, f"tokenFile of {user.name!r}").decode("utf-8", "replace")
            self._authorization = _header_value(f"Bearer {token.strip()}", "the token")
            self._expires = time.time() + _TOKEN_FILE_SECONDS
        elif user.text("token"):
            self._authorization = _header_value(f"Bearer {user.text('token')}", "the token")
        elif user.body.get("exec"):
            self._run_plugin()
        elif user.body.get("auth-provider"):
            self._authorization = _from_auth_provider(self._access)
        elif user.text("username") or user.text("password"):
            pair = f"{user.text('username')}:{user.text('password')}"
            self._authorization = "Basic " + base64.b64encode(pair.encode()).decode()

    def _run_plugin(self) -> None:
        status = run_plugin(self._access)
        token = status.get("token")
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        if not token and not (certificate and key):
            raise KubeconfigError(
                f"the credential plugin of user {self._user.name!r} gave no token and no"
                " certificate with its key"
            )
        if token:
            self._authorization = _header_value(f"Bearer {token}", "the plugin's token")
        if certificate and key:
            self.certificate = (str(certificate).encode(), str(key).encode())
        expires = _timestamp(status.get("expirationTimestamp"))
        self._expires = None if expires is None else expires - _EXPIRY_MARGIN_SECONDS


def impersonation_headers(user: Entry) -> list[Header]:
    """Return the Impersonate-* headers of a user entry, [] without impersonation.

    Raises:
        KubeconfigError: groups, uid or extras without a user, or what no header can carry.
    """
    name = user.text("as")
    groups = user.body.get("as-groups") or []
    extra = user.body.get("as-user-extra") or {}
    uid = user.text("as-uid")
    if not name:
        if groups or extra or uid:
            raise KubeconfigError(
                "impersonation of groups, uid or extra fields needs a user",
                hint="add --as USER (or `as:` in the kubeconfig's user entry)",
            )
        return []
    if not isinstance(groups, list) or not isinstance(extra, dict):
        raise KubeconfigError("as-groups is not a list, or as-user-extra is not a mapping")
    headers = [("Impersonate-User", name)]
    if uid:
        headers.append(("Impersonate-Uid", uid))
    headers += [("Impersonate-Group", str(group)) for group in groups]
    for key, values in extra.items():
        header = f"Impersonate-Extra-{_escape_key(str(key))}"
        listed = values if isinstance(values, list) else [values]
        headers += [(header, str(value)) for value in listed]
    return [(key, _header_value(value, key)) for key, value in headers]


def run_plugin(access: Access) -> Mapping[str, Any]:
    """Run the user's exec credential plugin; return the `status` of its ExecCredential.

    Raises:
        KubeconfigError: the plugin is not installed, failed, or printed no ExecCredential.
    """
    narrow_imports()
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.exec_provider import ExecProvider

    config = _PluginConfig(access.user.body["exec"])
    command = str(config.get("command", ""))
    cluster = _ClusterInfo(access.cluster) if config.get("provideClusterInfo") else None
    try:
        # A command with a slash (Windows: a backslash) is relative to the kubeconfig, a bare one
        # is found on PATH. The plugin runs in the working directory, as with kubectl.
        if os.sep in command:
            config["command"] = os.path.join(access.user.folder, os.path.expanduser(command))
        provider = ExecProvider(config, None, cluster)  # type: ignore[no-untyped-call]
        status = provider.run()  # type: ignore[no-untyped-call]
    except FileNotFoundError as e:
        hint = " ".join(str(config.get("installHint") or "").split())
        raise KubeconfigError(f"credential plugin {command!r} is not installed", hint=hint) from e
    except ConfigException as e:
        raise KubeconfigError(f"credential plugin {command!r}: {e}") from e
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as e:
        # The library strips a stderr that it did not capture when stdout is a terminal; the user
        # saw the plugin's message there.
        raise KubeconfigError(f"credential plugin {command!r} failed") from e
    if not isinstance(status, dict):
        raise KubeconfigError(f"credential plugin {command!r} printed no ExecCredential status")
    return status


class _PluginConfig(dict[str, Any]):
    """An exec entry in the form of kubernetes.config.exec_provider: a dict with `safe_get`."""

    def safe_get(self, key: str) -> Any:
        return self.get(key)


class _ClusterInfo:
    """ExecCredential's spec.cluster (client.authentication.k8s.io/v1): files become data."""

    def __init__(self, cluster: Entry) -> None:
        keys = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
        self.value = {key: cluster.body[key] for key in keys if key in cluster.body}
        authority = cluster.material("certificate-authority")
        if authority:
            self.value["certificate-authority-data"] = base64.b64encode(authority).decode()
        if cluster.body.get("extensions"):
            self.value["extensions"] = cluster.body["extensions"]


def _from_auth_provider(access: Access) -> str:
    # gcp and oidc, of which kubectl keeps oidc alone, take 110 ms of imports: only they use the
    # library's own loader. It writes a refreshed token back to the file.
    narrow_imports()
    from kubernetes.client.configuration import Configuration
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    provider = access.user.body["auth-provider"]
    name = provider.get("name", "") if isinstance(provider, dict) else ""
    ours = "ebpfnet"
    try:
        paths = os.pathsep.join(access.files)
        merger = KubeConfigMerger(paths)  # type: ignore[no-untyped-call]
        document = merger.config
        cluster = {"name": ours, "cluster": {"server": access.cluster.text("server")}}
        context = {"name": ours, "context": {"cluster": ours, "user": access.user.name}}
        document.value["clusters"] = [cluster]
        document.value["contexts"] = [context]
        configuration = Configuration()
        loader = KubeConfigLoader(  # type: ignore[no-untyped-call]
            document, active_context=ours, config_base_path="", config_persister=merger.save_changes
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        token = str(configuration.api_key.get("BearerToken", ""))
    except ConfigException as e:
        raise KubeconfigError(f"auth-provider {name!r}: {e}") from e
    except Exception as e:  # urllib3, requests and oauthlib each have their own exceptions
        raise KubeconfigError(f"auth-provider {name!r} gave no token: {e}") from e
    if not token:
        raise KubeconfigError(
            f"auth-provider {name!r} gave no token",
            hint="only oidc and gcp are supported; use a credential plugin (`exec:`)",
        )
    return _header_value(token, "the token")


def _certificate(user: Entry) -> tuple[bytes, bytes] | None:
    certificate = user.material("client-certificate")
    key = user.material("client-key")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise KubeconfigError(f"user {user.name!r} has only one of client certificate and key")
    return certificate, key


def _escape_key(key: str) -> str:
    return "".join(
        chr(byte) if byte in _LEGAL_IN_HEADER_KEY else f"%{byte:02X}" for byte in key.encode()
    )


def _header_value(value: str, what: str) -> str:
    if any(char in value for char in "\r\n\0"):
        raise KubeconfigError(f"{what} holds a line break or a NUL: no header can carry it")
    return value


def _timestamp(text: Any) -> float | None:
    try:
        return moment(str(text), "expirationTimestamp").timestamp()
    except ParseError:
        return None
