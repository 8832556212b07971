"""What the archive leaves out (release/frozen.py, *EXCLUDES) is never imported by the client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from release import frozen

ROOT = Path(__file__).parents[2]
REFUSE = f"""
import sys
LEFT_OUT = {(*frozen.EXCLUDES, *frozen.UNIX_EXCLUDES, *frozen._classes())!r}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if any(".".join(parts[:end]) in LEFT_OUT for end in range(1, len(parts) + 1)):
            raise ModuleNotFoundError(f"No module named {{name!r}}: it is left out", name=name)

sys.meta_path.insert(0, Refuse())
"""


REFRESH = """
import base64, http.server, json, pathlib, tempfile, threading

class Provider(http.server.BaseHTTPRequestHandler):  # a fake of an OpenID provider
    def do_GET(self):
        self.answer({"token_endpoint": f"http://127.0.0.1:{self.server.server_port}/token"})
    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        assert b"refresh_token=once" in asked, asked
        self.answer({"access_token": "a", "token_type": "Bearer", "id_token": "fresh",
                     "refresh_token": "next"})
    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
part = lambda document: base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
config = {"id-token": f"{part({'alg': 'none'})}.{part({'exp': 1, 'n': 'xx'})}.c2ln",
          "refresh-token": "once", "client-id": "me", "client-secret": "s",
          "idp-issuer-url": f"http://127.0.0.1:{server.server_port}"}
document = {"current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "a", "user": {"auth-provider": {"name": "oidc", "config": config}}}]}
path = pathlib.Path(tempfile.mkdtemp()) / "config"
path.write_text(json.dumps(document))
from kubectl_ebpfnet.cluster.client import credentials
from kubectl_ebpfnet.cluster.client.access import ConnectionOptions
from kubectl_ebpfnet.cluster.client.kubeconfig import load
print(credentials._from_auth_provider(load(ConnectionOptions(kubeconfig=str(path)), {})))
"""


def refusing(script: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OAUTHLIB_INSECURE_TRANSPORT": "1"}  # the fake provider has no TLS
    argv = [sys.executable, "-W", "ignore", "-c", REFUSE + script]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_what_is_left_out_is_refused() -> None:
    assert len(frozen._classes()) > 700
    narrow = "from kubectl_ebpfnet.cluster.client import library; library.narrow_imports()"
    for name in ("pyroute2", "kubernetes.client.models.v1_pod", "rich"):
        assert "it is left out" in refusing(f"{narrow}; import {name}").stderr


def test_every_module_of_the_client_imports_without_it() -> None:
    names = frozen._modules(ROOT / "kubectl_ebpfnet")
    assert "kubectl_ebpfnet.cli.commands.path" in names
    script = f"import importlib\nfor name in {names!r}: importlib.import_module(name)\nprint('all')"
    done = refusing(script)
    assert (done.stdout, done.stderr) == ("all\n", "")


def test_a_token_is_refreshed_without_it() -> None:
    # oidc takes classes of the library that nothing else of the client uses.
    done = refusing(REFRESH)
    assert done.stdout == "Bearer fresh\n", done.stderr
