"""Kubeconfig files and flags → what a connection uses, seen by what the fake server receives."""

from __future__ import annotations

import base64
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_ebpfnet.cluster.client import transport
from kubectl_ebpfnet.cluster.client.access import Access, ConnectionOptions, Entry
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.client.credentials import Credentials
from kubectl_ebpfnet.cluster.client.kubeconfig import load
from kubectl_ebpfnet.errors import ApiUnreachable, KubeconfigError, Unauthorized, UsageError
from tests.cluster.fake_api_server import CERTS, FakeApiServer, Opener, Reply, Seen, status_reply

NODES = "/api/v1/nodes"


def write(path: Path, **document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


def simple(
    path: Path,
    *,
    name: str = "lab",
    server: str = "http://127.0.0.1:1",
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    **context: str,
) -> Path:
    """A kubeconfig of one context, cluster and user, all called alike."""
    return write(
        path,
        **{
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
            "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
            "users": [{"name": name, "user": user or {}}],
        },
    )


def asked_with(fake: FakeApiServer, open_session: Opener, **options: object) -> Seen:
    """What the server sees of one request of a session with these options."""
    fake.routes[NODES] = Reply(200, {"kind": "NodeList", "apiVersion": "v1", "items": []})
    Api(open_session(**options)).nodes()
    return fake.seen[-1]


# --- files --------------------------------------------------------------------------------------


def test_context_gives_server_namespace_and_user(tmp_path: Path) -> None:
    path = simple(tmp_path / "config", namespace="shop", user={"token": "abc"})
    access = load(ConnectionOptions(kubeconfig=str(path)), {})
    assert access.context == "lab"
    assert access.namespace == "shop"
    assert access.cluster.text("server") == "http://127.0.0.1:1"
    assert access.user.text("token") == "abc"
    assert load(ConnectionOptions(kubeconfig=str(path), namespace="x"), {}).namespace == "x"


def test_default_file_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    simple(tmp_path / ".kube" / "config", name="home")
    assert load(ConnectionOptions(), {}).context == "home"


def test_first_of_several_files_wins_and_missing_ones_are_skipped(tmp_path: Path) -> None:
    first = simple(tmp_path / "1" / "config", name="one", server="http://one")
    second = write(
        tmp_path / "2" / "config",
        **{
            "current-context": "two",
            "contexts": [{"name": "two", "context": {"cluster": "one", "user": "two"}}],
            "clusters": [{"name": "one", "cluster": {"server": "http://not-this-one"}}],
            "users": [{"name": "two", "user": {"tokenFile": "token"}}],
        },
    )
    (tmp_path / "2" / "token").write_text("from the second folder\n")
    (tmp_path / "empty").write_text("")
    paths = [tmp_path / "empty", tmp_path / "not there", first, second]
    environ = {"KUBECONFIG": ":".join(map(str, paths))}
    assert load(ConnectionOptions(), environ).context == "one"
    access = load(ConnectionOptions(context="two"), environ)
    assert access.cluster.text("server") == "http://one"
    # A relative path belongs to the file that it stands in.
    assert Credentials(access).headers() == [("Authorization", "Bearer from the second folder")]
    assert access.files == (str(tmp_path / "empty"), str(first), str(second))


def test_missing_context_lists_those_that_are_there(tmp_path: Path) -> None:
    path = simple(tmp_path / "config", name="prod")
    with pytest.raises(KubeconfigError, match="context 'dev' does not exist") as caught:
        load(ConnectionOptions(kubeconfig=str(path), context="dev"), {})
    assert caught.value.hint == "choose one with --context: prod"
    assert caught.value.exit_code == 1


def test_no_current_context(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config",
        contexts=[{"name": n, "context": {"cluster": n}} for n in ("b", "a")],
        clusters=[{"name": n, "cluster": {"server": "http://x"}} for n in ("b", "a")],
    )
    with pytest.raises(KubeconfigError, match="no current context") as caught:
        load(ConnectionOptions(kubeconfig=str(path)), {})
    assert caught.value.hint == "choose one with --context: a, b"


@pytest.mark.parametrize("field", ["cluster", "user"])
def test_missing_cluster_or_user(tmp_path: Path, field: str) -> None:
    path = simple(tmp_path / "config")
    with pytest.raises(KubeconfigError, match=f"{field} 'ghost' does not exist"):
        load(ConnectionOptions(kubeconfig=str(path), **{field: "ghost"}), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("\x00", "is not YAML"),
        ("just words", "is not a kubeconfig: not a mapping"),
        ("contexts: 5", "contexts is not a list"),
        ("contexts: [5]", "entry of contexts has no name"),
        ("clusters: [{name: x, cluster: 5}]", "cluster 'x' is not a mapping"),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError, match=said) as caught:
        load(ConnectionOptions(kubeconfig=str(path)), {})
    assert str(path) in caught.value.message


def test_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="No such file"):
        load(ConnectionOptions(kubeconfig=str(tmp_path / "none")), {})


def test_no_kubeconfig_at_all(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="no kubeconfig") as caught:
        load(ConnectionOptions(), {"KUBECONFIG": str(tmp_path / "none")}, tmp_path)
    assert "--kubeconfig" in caught.value.hint


def test_inside_a_pod(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("service account token\n")
    (tmp_path / "namespace").write_text("tools")
    (tmp_path / "ca.crt").write_bytes((CERTS / "ca.pem").read_bytes())
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = load(ConnectionOptions(), environ, tmp_path)
    assert (access.namespace, access.context) == ("tools", "")
    assert access.cluster.text("server") == "https://[fd00::1]:443"
    assert access.cluster.material("certificate-authority") == (CERTS / "ca.pem").read_bytes()
    assert Credentials(access).headers() == [("Authorization", "Bearer service account token")]
    # A kubeconfig, once there is one, comes first.
    path = simple(tmp_path / "config")
    assert load(ConnectionOptions(kubeconfig=str(path)), environ, tmp_path).context == "lab"


# --- flags win ----------------------------------------------------------------------------------


def test_server_cluster_user_and_token_flags(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    path = write(
        tmp_path / "config",
        **{
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "dead", "user": "u1"}}],
            "clusters": [
                {"name": "dead", "cluster": {"server": "http://127.0.0.1:1"}},
                {"name": "fake", "cluster": {"server": f"{fake.url}/"}},
            ],
            "users": [
                {"name": "u1", "user": {"token": "one"}},
                {"name": "u2", "user": {"username": "ann", "password": "pässword"}},
            ],
        },
    )
    config = {"kubeconfig": str(path)}
    seen = asked_with(fake, open_session, **config, cluster="fake")
    assert seen.values("Authorization") == ["Bearer one"]
    seen = asked_with(fake, open_session, **config, server=fake.url, token="flag")
    assert seen.values("Authorization") == ["Bearer flag"]
    seen = asked_with(fake, open_session, **config, cluster="fake", user="u2")
    [basic] = seen.values("Authorization")
    assert base64.b64decode(basic.removeprefix("Basic ")).decode() == "ann:pässword"


def test_server_flag_alone_needs_no_kubeconfig(fake: FakeApiServer, open_session: Opener) -> None:
    session = open_session(server=fake.url)
    assert (session.server, session.context, session.namespace) == (fake.url, "", "default")


@pytest.mark.parametrize(
    "server", ["ftp://x", "https://", "https://x:port", "http://a b", "https://x:99999"]
)
def test_server_that_is_no_url(open_session: Opener, server: str) -> None:
    with pytest.raises(KubeconfigError, match="is not the URL of a server"):
        open_session(server=server)


def test_server_without_a_scheme(open_session: Opener) -> None:
    assert open_session(server="127.0.0.1:1").server == "http://127.0.0.1:1"
    insecure = open_session(server="127.0.0.1:1", insecure_skip_tls_verify=True)
    assert insecure.server == "https://127.0.0.1:1"


# --- impersonation ------------------------------------------------------------------------------


def test_impersonation_of_the_kubeconfig(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    user = {
        "token": "t",
        "as": "jane",
        "as-uid": "7",
        "as-groups": ["dev", "ops"],
        "as-user-extra": {"acme.com/team": ["blue", "green"], "100%": ["x"]},
    }
    config = {"kubeconfig": str(simple(tmp_path / "config", server=fake.url, user=user))}
    seen = asked_with(fake, open_session, **config)
    assert seen.values("Impersonate-User") == ["jane"]
    assert seen.values("Impersonate-Uid") == ["7"]
    assert seen.values("Impersonate-Group") == ["dev", "ops"]
    assert seen.values("Impersonate-Extra-acme.com%2Fteam") == ["blue", "green"]
    assert seen.values("Impersonate-Extra-100%25") == ["x"]
    # Flags replace what the file says, each for itself.
    seen = asked_with(fake, open_session, **config, as_user="joe", as_groups=("qa",))
    assert seen.values("Impersonate-User") == ["joe"]
    assert seen.values("Impersonate-Group") == ["qa"]
    assert seen.values("Impersonate-Uid") == ["7"]


def test_non_latin_names_go_as_utf8(fake: FakeApiServer, open_session: Opener) -> None:
    seen = asked_with(fake, open_session, server=fake.url, as_user="żaneta", as_groups=("日本",))
    assert seen.values("Impersonate-User")[0].encode("latin-1").decode() == "żaneta"
    assert seen.values("Impersonate-Group")[0].encode("latin-1").decode() == "日本"


def test_groups_without_a_user(open_session: Opener) -> None:
    with pytest.raises(KubeconfigError, match="needs a user") as caught:
        open_session(server="http://x", as_groups=("dev",))
    assert "--as USER" in caught.value.hint


def test_headers_cannot_be_smuggled_in(open_session: Opener) -> None:
    with pytest.raises(KubeconfigError, match="line break"):
        open_session(server="http://x", as_user="jane\r\nImpersonate-Group: system:masters")
    with pytest.raises(KubeconfigError, match="line break"):
        open_session(server="http://x", token="a\nb")


def test_extra_flag_needs_a_key_and_a_value(open_session: Opener) -> None:
    with pytest.raises(UsageError, match="not KEY=VALUE"):
        open_session(server="http://x", as_user="jane", as_user_extra=("novalue",))


# --- tokens and plugins -------------------------------------------------------------------------


def test_token_file_wins_over_token_and_is_read_again_after_a_401(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    (tmp_path / "token").write_text("first\n")
    user = {"token": "inline", "tokenFile": "token"}
    path = simple(tmp_path / "config", server=fake.url, user=user)

    def nodes(seen: Seen) -> Reply:
        if seen.values("Authorization") == ["Bearer second"]:
            return Reply(200, {"kind": "NodeList", "items": []})
        (tmp_path / "token").write_text("second\n")
        return status_reply(401, "Unauthorized", "Unauthorized")

    fake.routes[NODES] = nodes
    assert Api(open_session(kubeconfig=str(path))).nodes() == []
    sent = [seen.values("Authorization") for seen in fake.seen]
    assert sent == [["Bearer first"], ["Bearer second"]]


def test_401_that_nothing_helps_against(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    fake.routes[NODES] = status_reply(401, "Unauthorized", "Unauthorized")
    with pytest.raises(Unauthorized, match="does not accept these credentials"):
        Api(open_session(server=fake.url, token="wrong")).nodes()
    assert len(fake.seen) == 1


def test_token_file_that_is_missing(tmp_path: Path, open_session: Opener) -> None:
    path = simple(tmp_path / "config", user={"tokenFile": "none"})
    with pytest.raises(KubeconfigError, match=r"cannot read tokenFile of 'lab'.*No such file"):
        open_session(kubeconfig=str(path))


def plugin(folder: Path, body: str) -> Path:
    """An exec credential plugin in Python."""
    path = folder / "plugin"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


GIVE = """
def give(**status):
    print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1",
                      "kind": "ExecCredential", "status": status}))
"""


def exec_user(command: str, **more: Any) -> dict[str, Any]:
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": command,
            "interactiveMode": "Never",
            **more,
        }
    }


def test_plugin_gets_its_arguments_and_gives_a_token(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    plugin(
        tmp_path,
        GIVE
        + """
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
give(token="|".join([sys.argv[1], os.environ["REGION"], info["spec"]["cluster"]["server"],
                     str("certificate-authority" in info["spec"]["cluster"])]))
""",
    )
    user = exec_user(
        "./plugin",  # relative to the kubeconfig
        args=["get-token"],
        env=[{"name": "REGION", "value": "eu"}],
        provideClusterInfo=True,
    )
    path = simple(tmp_path / "config", server=fake.url, user=user)
    seen = asked_with(fake, open_session, kubeconfig=str(path))
    assert seen.values("Authorization") == [f"Bearer get-token|eu|{fake.url}|False"]


def test_plugin_runs_again_when_its_token_expires_or_is_refused(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    plugin(
        tmp_path,
        GIVE
        + f"""
count = {str(tmp_path / "count")!r}
runs = len(open(count).read()) if os.path.exists(count) else 0
open(count, "a").write(".")
give(token=f"token{{runs}}", expirationTimestamp="2020-01-01T00:00:00Z" if runs == 0 else None)
""",
    )
    path = simple(tmp_path / "config", server=fake.url, user=exec_user("./plugin"))

    def nodes(seen: Seen) -> Reply:
        if seen.values("Authorization") == ["Bearer token2"]:
            return Reply(200, {"kind": "NodeList", "items": []})
        return status_reply(401, "Unauthorized", "Unauthorized")

    fake.routes[NODES] = nodes
    api = Api(open_session(kubeconfig=str(path)))
    assert api.nodes() == []
    assert api.nodes() == []
    sent = [seen.values("Authorization")[0] for seen in fake.seen]
    assert sent == ["Bearer token1", "Bearer token2", "Bearer token2"]


def test_plugin_that_gives_a_certificate(tmp_path: Path, open_session: Opener) -> None:
    fake = FakeApiServer(tls=True, client_certificate=True)
    try:
        body = f"""
give(clientCertificateData=open({str(CERTS / "client.pem")!r}).read(),
     clientKeyData=open({str(CERTS / "client.key")!r}).read())
"""
        plugin(tmp_path, GIVE + body)
        cluster = {
            "certificate-authority-data": base64.b64encode(
                (CERTS / "ca.pem").read_bytes()
            ).decode(),
            "tls-server-name": "api.fake.test",
        }
        path = simple(
            tmp_path / "config", server=fake.url, user=exec_user("./plugin"), cluster=cluster
        )
        asked_with(fake, open_session, kubeconfig=str(path))
        assert fake.peer_names == ["alice"]
    finally:
        fake.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.stderr.write('login expired'); sys.exit(3)", "returned 3. login expired"),
        ("print('no JSON')", "failed to decode"),
        ("print('{}')", "missing key"),
        (GIVE + "give()", "gave no token"),
        (GIVE + "give(clientCertificateData='x')", "gave no token and no certificate"),
        (
            'print(json.dumps({"apiVersion": "v0", "kind": "ExecCredential", "status": {}}))',
            "does not match",
        ),
    ],
)
def test_plugin_that_fails(tmp_path: Path, open_session: Opener, body: str, said: str) -> None:
    plugin(tmp_path, body)
    path = simple(tmp_path / "config", user=exec_user("./plugin"))
    with pytest.raises(KubeconfigError, match=said):
        open_session(kubeconfig=str(path))


def test_plugin_that_is_not_installed(tmp_path: Path, open_session: Opener) -> None:
    user = exec_user("no-such-plugin-here", installHint="brew install it")
    path = simple(tmp_path / "config", user=user)
    with pytest.raises(KubeconfigError, match="'no-such-plugin-here' is not installed") as caught:
        open_session(kubeconfig=str(path))
    assert caught.value.hint == "brew install it"


def test_oidc_token_that_is_still_good(
    tmp_path: Path, fake: FakeApiServer, open_session: Opener
) -> None:
    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    jwt = f"{part({'alg': 'none'})}.{part({'exp': 4102444800, 'n': 'xx'})}.c2ln"
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": jwt}}}
    path = simple(tmp_path / "config", server=fake.url, user=user)
    seen = asked_with(fake, open_session, kubeconfig=str(path))
    assert seen.values("Authorization") == [f"Bearer {jwt}"]


def test_auth_provider_that_nobody_knows(tmp_path: Path, open_session: Opener) -> None:
    path = simple(tmp_path / "config", user={"auth-provider": {"name": "azure", "config": {}}})
    with pytest.raises(KubeconfigError, match="'azure' gave no token") as caught:
        open_session(kubeconfig=str(path))
    assert "exec" in caught.value.hint


# --- TLS ------------------------------------------------------------------------------------------


def test_the_system_s_certificates_where_openssl_looks_elsewhere(
    tmp_path: Path, open_session: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = str(tmp_path / "where-it-was-built")
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(variable, elsewhere)
    known = (str(tmp_path / "nothing.crt"), str(CERTS / "ca.pem"))
    monkeypatch.setattr(transport, "SYSTEM_CERTIFICATES", known)
    fake = FakeApiServer(tls=True)
    try:
        cluster = {"tls-server-name": "api.fake.test"}
        path = simple(tmp_path / "config", server=fake.url, cluster=cluster)
        asked_with(fake, open_session, kubeconfig=str(path))
        monkeypatch.setattr(transport, "SYSTEM_CERTIFICATES", known[:1])
        with pytest.raises(ApiUnreachable, match="certificate is not trusted"):
            asked_with(fake, open_session, kubeconfig=str(path))
    finally:
        fake.close()


def test_client_certificate_of_files_and_of_data(tmp_path: Path, open_session: Opener) -> None:
    fake = FakeApiServer(tls=True, client_certificate=True)
    try:
        for name in ("ca.pem", "client.pem", "client.key"):
            (tmp_path / name).write_bytes((CERTS / name).read_bytes())

        def data(name: str) -> str:
            return base64.b64encode((CERTS / name).read_bytes()).decode()

        cluster = {"certificate-authority": "ca.pem", "tls-server-name": "api.fake.test"}
        files = {"client-certificate": "client.pem", "client-key": "client.key"}
        texts = {
            "client-certificate-data": data("client.pem"),
            "client-key-data": data("client.key"),
        }
        for user in (files, texts):
            path = simple(tmp_path / "config", server=fake.url, user=user, cluster=cluster)
            asked_with(fake, open_session, kubeconfig=str(path))
        assert fake.peer_names == ["alice", "alice"]
    finally:
        fake.close()


def test_insecure_asks_no_questions(open_session: Opener) -> None:
    fake = FakeApiServer(tls=True)
    try:
        asked_with(fake, open_session, server=fake.url, insecure_skip_tls_verify=True)
    finally:
        fake.close()


@pytest.mark.parametrize(
    ("user", "cluster", "said"),
    [
        ({}, {"certificate-authority-data": "AAA"}, "not base64"),
        ({}, {"certificate-authority-data": "bm8gUEVN"}, "not a PEM certificate"),
        ({}, {"certificate-authority": "none.pem"}, "cannot read certificate-authority"),
        ({"client-certificate-data": "bm8gUEVN"}, {}, "only one of client certificate and key"),
        (
            {"client-certificate-data": "bm8gUEVN", "client-key-data": "bm8gUEVN"},
            {},
            "cannot be used",
        ),
        (
            {
                "client-certificate": str(CERTS / "client.pem"),
                "client-key": str(CERTS / "client-encrypted.key"),
            },
            {},
            "the client key is encrypted",
        ),
    ],
)
def test_certificates_that_cannot_be_used(
    tmp_path: Path,
    open_session: Opener,
    user: dict[str, Any],
    cluster: dict[str, Any],
    said: str,
) -> None:
    path = simple(tmp_path / "config", server="https://127.0.0.1:1", user=user, cluster=cluster)
    with pytest.raises(KubeconfigError, match=said):
        open_session(kubeconfig=str(path))


def test_entry_without_a_name_reads_like_any_other() -> None:
    access = Access("", "default", Entry(body={"server": "http://x"}), Entry(body={"token": 5}))
    assert Credentials(access).headers() == [("Authorization", "Bearer 5")]
