"""The parts of a session: TLS, the REST pool and the proxy in front of them.

TLS follows client-go's transport (k8s.io/client-go/transport/tls_config); the proxy's rules are
Go's http.ProxyFromEnvironment, which kubectl uses, with proxy-url of the kubeconfig before it.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kubectl_ebpfnet.cluster.client.access import Entry
from kubectl_ebpfnet.cluster.client.library import narrow_imports
from kubectl_ebpfnet.errors import KubeconfigError
from kubectl_ebpfnet.model.dataclass import dataclass

if TYPE_CHECKING:
    from kubernetes.client.rest import RESTClientObject

_POOL_SIZE = 32  # idle connections kept; more are opened when more threads ask


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        url: `http://HOST:PORT`.
        headers: headers that authenticate to it.
    """

    url: str
    headers: Mapping[str, str]


SYSTEM_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)
"""Where systems keep the certificates that they trust (Go: crypto/x509, root_linux.go)."""


def server_url(cluster: Entry, has_certificate: bool) -> str:
    """Return the URL of a cluster's server, with a scheme and no trailing slash.

    Raises:
        KubeconfigError: the server is not a URL.
    """
    server = cluster.text("server")
    if "://" not in server:
        # client-go (rest/url_utils.go): https when anything of TLS is configured.
        keys = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify")
        secure = has_certificate or any(cluster.body.get(key) for key in keys)
        server = f"{'https' if secure else 'http'}://{server}"
    try:
        url = urlsplit(server)
        good = url.scheme in ("http", "https") and url.hostname and (url.port or True)
    except ValueError:
        good = False
    if not good or any(char.isspace() for char in server):
        raise KubeconfigError(
            f"{server!r} is not the URL of a server", hint="e.g. https://10.0.0.1:6443"
        )
    return server.rstrip("/")


def tls_context(cluster: Entry, certificate: tuple[bytes, bytes] | None) -> ssl.SSLContext:
    """Return the TLS context that verifies the server and presents a client certificate.

    Raises:
        KubeconfigError: a certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if cluster.body.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        authority = cluster.material("certificate-authority")
        try:
            if authority is None:
                _load_system_certificates(context)
            else:
                context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as e:
            raise KubeconfigError(
                f"certificate-authority of cluster {cluster.name!r} is not a PEM certificate: {e}"
            ) from e
    if certificate is not None:
        _load_client_certificate(context, *certificate)
    return context


def _load_system_certificates(context: ssl.SSLContext) -> None:
    context.load_default_certs()
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath or sys.platform == "win32":
        return
    # A frozen program's OpenSSL looks where that of the machine was on which it was made.
    for file in filter(os.path.isfile, SYSTEM_CERTIFICATES):
        context.load_verify_locations(file)
        return


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL through Python reads chains from files only; 0600, and gone before we return.
    def no_passphrase() -> bytes:
        raise ValueError("the client key is encrypted")

    descriptor, path = tempfile.mkstemp(prefix="ebpfnet-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.rstrip() + b"\n" + key.rstrip() + b"\n")
        context.load_cert_chain(path, password=no_passphrase)
    except (ssl.SSLError, ValueError) as e:
        raise KubeconfigError(f"the client certificate and key cannot be used: {e}") from e
    finally:
        os.unlink(path)


# --- the pool, and the proxy before it ------------------------------------------------------------


def rest_client(
    server: str, cluster: Entry, tls: ssl.SSLContext | None
) -> tuple[RESTClientObject, Proxy | None]:
    """Return the library's REST pool for a server, and its proxy or None.

    Args:
        server: URL of the API server.
        cluster: kubeconfig entry of the cluster.
        tls: TLS context, None for plain HTTP.

    Raises:
        KubeconfigError: the proxy cannot be used.
    """
    narrow_imports()
    import urllib3
    from kubernetes.client.configuration import Configuration
    from kubernetes.client.rest import RESTClientObject, should_bypass_proxies

    configuration = Configuration(host=server, retries=False, connection_pool_maxsize=_POOL_SIZE)
    configuration.verify_ssl = tls is None or tls.verify_mode is not ssl.CERT_NONE
    configuration.assert_hostname = None if configuration.verify_ssl else False
    configuration.tls_server_name = cluster.text("tls-server-name") or None
    if cluster.text("proxy-url"):
        configuration.proxy = cluster.text("proxy-url")
        configuration.no_proxy = ""  # NO_PROXY is about the environment's proxy, as in kubectl
    elif _is_loopback(urlsplit(server).hostname or ""):
        configuration.proxy = None  # Go's ProxyFromEnvironment never proxies loopback
    proxy = None
    if configuration.proxy and not should_bypass_proxies(server, configuration.no_proxy or ""):
        proxy = _proxy(configuration.proxy)
        configuration.proxy = proxy.url
        configuration.proxy_headers = dict(proxy.headers)
    rest = RESTClientObject(configuration)
    if tls is not None:
        # One context for all connections: the CA is parsed once, and no key lies in a file.
        rest.pool_manager.connection_pool_kw["ssl_context"] = tls
        if not configuration.verify_ssl:
            # --insecure-skip-tls-verify is the user's decision: do not warn at every request.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return rest, proxy


def _proxy(url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as e:
        raise KubeconfigError(f"proxy {url!r} is not a URL: {e}") from e
    if parts.scheme != "http" or not parts.hostname:
        raise KubeconfigError(
            f"proxy {url!r}: only http:// proxies are supported",
            hint="use an http:// proxy, or unset proxy-url and HTTPS_PROXY",
        )
    headers = {}
    if parts.username is not None:
        from urllib3.util import make_headers

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = dict(make_headers(proxy_basic_auth=pair))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Proxy(f"http://{host}:{port}", headers)


def proxy_tunnel(proxy: Proxy, host: str, port: int, seconds: float) -> socket.socket:
    """Return a socket that an HTTP proxy connected to a server (RFC 9110, CONNECT).

    Args:
        proxy: the proxy.
        host: host name or address of the server.
        port: TCP port of the server.
        seconds: time-out of the socket.

    Raises:
        OSError: the proxy cannot be reached, or refused.
    """
    from http.client import HTTPConnection

    url = urlsplit(proxy.url)
    connection = HTTPConnection(url.hostname or "", url.port, timeout=seconds)
    connection.set_tunnel(host, port, headers=dict(proxy.headers))
    connection.connect()
    raw = connection.sock
    assert isinstance(raw, socket.socket)
    return raw


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
