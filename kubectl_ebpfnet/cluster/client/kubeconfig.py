"""Merge kubeconfig files and kubectl's connection flags into an `Access`, without network.

The rules are kubectl's (k8s.io/client-go/tools/clientcmd: loader.go, client_config.go and
overrides.go): files of KUBECONFIG are merged and the first value wins; missing files are skipped
unless named by --kubeconfig; paths are relative to the file that holds them; flags win over files;
without a kubeconfig, inside a pod, the service account is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from kubectl_ebpfnet.cluster.client.access import Access, ConnectionOptions, Entry, read_file
from kubectl_ebpfnet.errors import KubeconfigError, UsageError
from kubectl_ebpfnet.model.dataclass import dataclass

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's token, CA and namespace."""

_KINDS = ("contexts", "clusters", "users")


@dataclass(slots=True)
class _Merged:
    current: str = ""
    files: list[str] = field(default_factory=list)
    contexts: dict[str, Entry] = field(default_factory=dict)
    clusters: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)


def load(
    options: ConnectionOptions,
    environ: Mapping[str, str] | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """Return the access to the cluster that files, flags and environment name.

    Args:
        options: kubectl's connection flags.
        environ: environment variables, None for those of this process.
        service_account: folder of the service account inside a pod.

    Raises:
        KubeconfigError: no such context, cluster or user, or an unreadable file; the hint lists
            the contexts.
        UsageError: --as-user-extra is not KEY=VALUE.
    """
    environ = os.environ if environ is None else environ
    merged = _read(options, environ)
    if not (merged.contexts or merged.clusters or options.server):
        pod = _inside_a_pod(environ, service_account)
        if pod is None:
            raise KubeconfigError(
                f"no kubeconfig: no usable entry in {', '.join(_paths(options, environ))}",
                hint="set --kubeconfig or KUBECONFIG, or a server with --server; to try it without "
                "a cluster: --from demo",
            )
        return _with_flags(pod, options)
    name = options.context or merged.current
    context = _context(merged, name, options)
    cluster_name = options.cluster or context.text("cluster")
    user_name = options.user or context.text("user")
    access = Access(
        context=name,
        namespace=context.text("namespace") or "default",
        cluster=_named(merged.clusters, cluster_name, "cluster", merged) or Entry(),
        user=_named(merged.users, user_name, "user", merged) or Entry(),
        files=tuple(merged.files),
    )
    access = _with_flags(access, options)
    if not access.cluster.text("server"):
        raise KubeconfigError(
            f"cluster {cluster_name!r} has no server" if cluster_name else "no server is named",
            hint=_contexts_hint(merged),
        )
    return access


def names(options: ConnectionOptions, kind: str) -> list[str]:
    """Return the names of the kubeconfig's `contexts`, `clusters` or `users`, in their order.

    Raises:
        KubeconfigError: an unreadable file.
    """
    found: dict[str, Entry] = getattr(_read(options, os.environ), kind)
    return list(found)


# --- files ------------------------------------------------------------------------------------


def _paths(options: ConnectionOptions, environ: Mapping[str, str]) -> list[str]:
    if options.kubeconfig:
        return [os.path.expanduser(options.kubeconfig)]
    named = [os.path.expanduser(p) for p in environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return named or [os.path.expanduser("~/.kube/config")]


def _read(options: ConnectionOptions, environ: Mapping[str, str]) -> _Merged:
    merged = _Merged()
    for path in _paths(options, environ):
        if not options.kubeconfig and not os.path.exists(path):
            continue
        document = _document(path)
        merged.files.append(path)
        merged.current = merged.current or str(document.get("current-context") or "")
        folder = os.path.dirname(os.path.abspath(path))
        for kind in _KINDS:
            into: dict[str, Entry] = getattr(merged, kind)
            for entry in _entries(document, kind, folder, path):
                into.setdefault(entry.name, entry)
    return merged


def _document(path: str) -> Mapping[str, Any]:
    import yaml  # 10 ms; needed only for a live cluster

    data = read_file(path, "the kubeconfig")
    # libyaml reads a file of a hundred contexts ten times faster than the Python loader.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(data, Loader=loader)  # noqa: S506 - both loaders are safe ones
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as e:
        raise KubeconfigError(f"{path} is not YAML: {_words(e)}") from e
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path} is not a kubeconfig: not a mapping")
    return document


def _words(error: Exception) -> str:
    """Return what a parser says, in a line; it calls every file a byte string."""
    return " ".join(str(error).split()).replace('in "<byte string>", line', "at line")


def _entries(document: Mapping[str, Any], kind: str, folder: str, path: str) -> list[Entry]:
    found, inner = [], kind.removesuffix("s")
    items = document.get(kind) or []
    if not isinstance(items, list):
        raise KubeconfigError(f"{path}: {kind} is not a list")
    for item in items:
        if not isinstance(item, dict) or not item.get("name"):
            raise KubeconfigError(f"{path}: an entry of {kind} has no name")
        body = item.get(inner) or {}
        if not isinstance(body, dict):
            raise KubeconfigError(f"{path}: {inner} {item['name']!r} is not a mapping")
        found.append(Entry(str(item["name"]), body, folder))
    return found


def _context(merged: _Merged, name: str, options: ConnectionOptions) -> Entry:
    if not name:
        if options.server or options.cluster:
            return Entry()
        raise KubeconfigError("the kubeconfig has no current context", hint=_contexts_hint(merged))
    context = merged.contexts.get(name)
    if context is None:
        raise KubeconfigError(f"context {name!r} does not exist", hint=_contexts_hint(merged))
    return context


def _named(entries: Mapping[str, Entry], name: str, kind: str, merged: _Merged) -> Entry | None:
    if not name:
        return None
    if name not in entries:
        there = ", ".join(sorted(entries)) or "none"
        raise KubeconfigError(
            f"{kind} {name!r} does not exist", hint=f"{kind}s: {there}; {_contexts_hint(merged)}"
        )
    return entries[name]


def _contexts_hint(merged: _Merged) -> str:
    names = sorted(merged.contexts)
    if not names:
        return f"there are no contexts in {', '.join(merged.files) or 'any kubeconfig'}"
    return f"choose one with --context: {', '.join(names)}"


# --- inside a pod, and flags ------------------------------------------------------------------


def _inside_a_pod(environ: Mapping[str, str], folder: Path) -> Access | None:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not (host and port and (folder / "token").exists()):
        return None
    try:
        namespace = (folder / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    address = f"[{host}]" if ":" in host else host
    cluster: dict[str, Any] = {"server": f"https://{address}:{port}"}
    if (folder / "ca.crt").exists():
        cluster["certificate-authority"] = str(folder / "ca.crt")
    return Access(
        context="",
        namespace=namespace or "default",
        cluster=Entry("in-cluster", cluster),
        user=Entry("in-cluster", {"tokenFile": str(folder / "token")}),
    )


def _with_flags(access: Access, options: ConnectionOptions) -> Access:
    return replace(
        access,
        namespace=options.namespace or access.namespace,
        cluster=_cluster_with_flags(access.cluster, options),
        user=_user_with_flags(access.user, options),
    )


def _cluster_with_flags(entry: Entry, options: ConnectionOptions) -> Entry:
    body = dict(entry.body)
    if options.server:
        body["server"] = options.server
    if options.tls_server_name:
        body["tls-server-name"] = options.tls_server_name
    if options.proxy_url:
        body["proxy-url"] = options.proxy_url
    if options.certificate_authority:
        # Flags: relative to the working directory, and they replace the entry's data.
        body["certificate-authority"] = os.path.abspath(options.certificate_authority)
        body.pop("certificate-authority-data", None)
        body.pop("insecure-skip-tls-verify", None)
    if options.insecure_skip_tls_verify:
        body["insecure-skip-tls-verify"] = True
        body.pop("certificate-authority", None)
        body.pop("certificate-authority-data", None)
    return Entry(entry.name, body, entry.folder)


def _user_with_flags(entry: Entry, options: ConnectionOptions) -> Entry:
    body = dict(entry.body)
    if options.token:
        for other in ("tokenFile", "exec", "auth-provider", "username", "password"):
            body.pop(other, None)
        body["token"] = options.token
    if options.username or options.password:
        if body.get("token"):  # clientcmd/validation.go
            raise KubeconfigError(
                "more than one authentication method: a token, and --username or --password",
                hint="leave one of them out",
            )
        for other in ("tokenFile", "exec", "auth-provider"):
            body.pop(other, None)
        body["username"] = options.username or body.get("username", "")
        body["password"] = options.password or body.get("password", "")
    for key, value in (
        ("client-certificate", options.client_certificate),
        ("client-key", options.client_key),
    ):
        if value:
            body[key] = os.path.abspath(value)
            body.pop(f"{key}-data", None)
    if options.as_user:
        body["as"] = options.as_user
    if options.as_uid:
        body["as-uid"] = options.as_uid
    if options.as_groups:
        body["as-groups"] = list(options.as_groups)
    if options.as_user_extra:
        body["as-user-extra"] = _extra(options.as_user_extra)
    return Entry(entry.name, body, entry.folder)


def _extra(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    extra: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--as-user-extra {pair!r} is not KEY=VALUE", hint="e.g. --as-user-extra scopes=dev"
            )
        extra.setdefault(key, []).append(value)
    return extra
