"""Import single modules of the `kubernetes` library without its whole package.

Any `import kubernetes.x` runs kubernetes/__init__.py first, which imports everything: pydantic,
requests, oauthlib, dateutil and the dynamic client. Of all that, a session needs the REST pool,
the configuration and the exec plugin. So the three packages with the costly `__init__` are
entered into sys.modules unexecuted; their submodules import as usual. The first access to a name
that such a package lacks runs its `__init__`, so other importers in this process lose nothing.

Measured 2026-11-21 (kubernetes 37.0.2, CPython 3.11, 2 cores, warm cache, median of 14 runs of
`python -c CODE` from a parent that took time.perf_counter around each; the bare interpreter with
this venv's site is 17 ms of every line):

    kubernetes.client.rest + .configuration, yaml, websocket; library as it is      195 ms
    the same with narrow_imports()                                                   92 ms
    of which `import urllib3` alone                                                  64 ms
    and kubernetes.config.kube_config (needed for auth-provider users only)         190 ms
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

_PACKAGES = ("kubernetes", "kubernetes.utils", "kubernetes.config")


def narrow_imports() -> None:
    """Make later `from kubernetes.a.b import c` import only what `kubernetes/a/b.py` needs.

    Packages that are already imported stay as they are. Safe to call more than once.
    """
    for name in _PACKAGES:
        if name in sys.modules:
            continue
        module = _unexecuted(name)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def _unexecuted(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def run_init_then_get(attribute: str) -> object:
        # PEP 562. inspect, warnings and copy read dunders in passing.
        if not (attribute.startswith("__") and attribute.endswith("__")):
            module.__dict__.pop("__getattr__", None)
            loader.exec_module(module)
            if attribute in module.__dict__:
                return module.__dict__[attribute]
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    module.__dict__["__getattr__"] = run_init_then_get
    return module
