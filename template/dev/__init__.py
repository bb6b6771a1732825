# Rung's file: advancing to another stage may change it.
"""Commands on a developer's machine. No proxy leads to the servers that run there."""

import os

import app.infra  # noqa: F401  # `python -m dev.…` ends without a traceback too

_direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
if _direct != "*" and "127.0.0.1" not in _direct.split(","):
    _direct = f"{_direct},127.0.0.1,localhost".lstrip(",")
    os.environ |= {"no_proxy": _direct, "NO_PROXY": _direct}

# httpx makes no client where a variable names a SOCKS proxy, not even for the app in this process.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    if os.environ[_name].lower().startswith("socks"):
        del os.environ[_name]
