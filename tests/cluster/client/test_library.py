"""The import budget: what a session makes Python import, and that nobody else loses by it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "pydantic",
    "oauthlib",
    "requests",
    "requests_oauthlib",
    "dateutil",
    "kubernetes.client.api_client",
    "kubernetes.dynamic",
    "kubernetes.config.kube_config",
    "kubernetes.stream",
    "aiohttp",
)


def run(code: str) -> str:
    """Python in a process of its own, with nothing imported yet."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_session_imports_the_narrow_way() -> None:
    code = f"""
import sys
from kubectl_ebpfnet.cluster.client.api import Api
from kubectl_ebpfnet.cluster.exec.run import exec_stream
from kubectl_ebpfnet.cluster.resolve import find_pod
from kubectl_ebpfnet.cluster.agents import find_agents
from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
print([name for name in ("kubernetes", "urllib3", "yaml", "websocket") if name in sys.modules])
Session.open(ConnectionOptions(server="https://127.0.0.1:1")).close()
print([name for name in {HEAVY!r} if name in sys.modules])
print("kubernetes.client.rest" in sys.modules)
"""
    before, heavy, rest = run(code).splitlines()
    assert before == "[]"  # the modules themselves cost next to nothing
    assert heavy == "[]"
    assert rest == "True"


def test_the_rest_of_the_library_is_still_there() -> None:
    code = """
from kubectl_ebpfnet.cluster.client.library import narrow_imports
narrow_imports()
narrow_imports()
import kubernetes.client.rest
from kubernetes.config import load_kube_config
from kubernetes.utils import parse_quantity
import kubernetes
print(parse_quantity("1Ki"), load_kube_config.__name__, kubernetes.client.V1Pod.__name__)
print(kubernetes.dynamic.__name__, hasattr(kubernetes, "no_such_thing"))
"""
    assert run(code).splitlines() == ["1024 load_kube_config V1Pod", "kubernetes.dynamic False"]


def test_a_library_that_was_imported_before_is_left_alone() -> None:
    code = """
import kubernetes
before = kubernetes.config
from kubectl_ebpfnet.cluster.client.session import ConnectionOptions, Session
Session.open(ConnectionOptions(server="http://127.0.0.1:1")).close()
print(kubernetes.config is before, kubernetes.__version__.partition(".")[0])
"""
    assert run(code) == "True 37\n"
