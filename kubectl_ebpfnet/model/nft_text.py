"""JSON of nftables in nft's own words, for people: `ip saddr @bad drop`.

Sources: libnftables-json(5), nft(8).
"""

from __future__ import annotations

import json
from typing import Any

_LONGEST = 120
_BARE = frozenset({"accept", "drop", "return", "continue", "notrack", "masquerade", "reject"})


def statement_text(statement: Any) -> str:
    """Return a statement in nft's words; "" for a counter. What is not known is JSON."""
    text = _statement(statement)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _statement(statement: Any) -> str:
    name, body = next(iter(statement.items()))
    if name == "counter":
        return ""
    if name in _BARE:
        return str(name)
    try:
        if name == "match":
            operator = "" if body["op"] in ("==", "in") else f"{body['op']} "
            return f"{_words(body['left'])} {operator}{_words(body['right'])}"
        if name in ("jump", "goto"):
            return f"{name} {body['target']}"
        if name == "vmap":
            return f"{_words(body['key'])} vmap {_words(body['data'])}"
        if name == "mangle":
            return f"{_words(body['key'])} set {_words(body['value'])}"
        if name in ("snat", "dnat", "redirect"):
            port = f":{_words(body['port'])}" if "port" in body else ""
            return f"{name} to {_words(body['addr']) if 'addr' in body else ''}{port}"
        if name == "xt":
            return f"xt {body['type']} {body['name']}"
        if name == "limit":
            over = "over " if body.get("inv") else ""
            return f"limit rate {over}{body['rate']}/{body['per']}"
        if name == "log":
            return "log"
    except (KeyError, TypeError, AttributeError):
        pass
    return _json(statement)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "exists" if value else "missing"
    if isinstance(value, list):
        return ",".join(map(_words, value))
    if not isinstance(value, dict):
        return str(value)
    body: Any
    name, body = next(iter(value.items()), ("", None))
    if name == "prefix":
        return f"{_words(body['addr'])}/{body['len']}"
    if name == "range":
        return "-".join(map(_words, body))
    if name == "set":
        pairs = (" : ".join(map(_words, e)) if isinstance(e, list) else _words(e) for e in body)
        return f"{{ {', '.join(pairs)} }}"
    if name == "concat":
        return " . ".join(map(_words, body))
    if name == "elem":
        return _words(body["val"])
    if name in ("&", "|", "^", "<<", ">>"):
        return f" {name} ".join(map(_words, body))
    if name == "payload" and "field" in body:
        return f"{body['protocol']} {body['field']}"
    if name == "fib":
        return f"fib {' . '.join(body['flags'])} {body['result']}"
    if name == "ct":
        return " ".join(filter(None, ("ct", body.get("dir", ""), body["key"])))
    if name in ("meta", "socket", "rt"):
        return f"{name} {body['key']}" if body["key"] not in _SHORT else str(body["key"])
    if name == "numgen":
        return f"numgen {body['mode']} mod {body['mod']}"
    if name == "map":
        return f"{_words(body['key'])} map {_words(body['data'])}"
    if name in ("jump", "goto", *_BARE):
        return _statement(value)
    return _json(value)


_SHORT = frozenset({"iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup"})


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
