# Rung's file: advancing to another stage may change it.
"""python -m app.infra.serve: the app in production, one process on PORT."""

import os
import signal
import sys

if __name__ == "__main__" and os.getpid() == 1:
    # Linux drops a signal that the first process of a container does not handle. The imports below
    # take a second, and only then uvicorn handles SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())

import gc
import resource
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_network
from socket import getaddrinfo

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Route
from uvicorn import Config, Server
from uvicorn.importer import import_from_string

from app.infra.http_limits import (
    MOST_MESSAGE_BYTES,
    KnownAddress,
    LateRefusals,
    LimitedHttp,
    TrustLastAddress,
)

# Each connection takes an open file, and 24 to 86 KiB: a slow body of 60 KB waits in memory. Linux
# allows 1,024 files to a program that does not ask for more, and 1,500 slow bodies left none for
# anybody else. 10,000 such bodies would fill the memory of a copy (1 GiB on AWS).
MOST_FILES = 4_096

EVERY_ADDRESS = ""  # of IPv4 and of IPv6: a pod may have only one of them


def main(create_app: str = "app.main:create_app") -> None:
    # A wrong setting stops the process here, before it listens.
    config = configured()
    _allow_open_files()
    app: FastAPI = import_from_string(create_app)()
    load(config, app)
    # Freeze objects created at startup: each full GC would otherwise pause requests for 70 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    # While another thread runs Python, each step of the event loop waits that long for the GIL. The
    # default is 5 ms, and a request takes several steps.
    sys.setswitchinterval(0.0002)
    server_class: type[Server] = getattr(app.state, "server_class", Server)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed
        server_class(config).run()


def configured() -> Config:
    """uvicorn's settings, without the app."""
    proxies = _trusted_proxies(os.environ.get("FORWARDED_ALLOW_IPS") or "")
    return Config(
        app="",
        host=_listen_address(os.environ.get("LISTEN_ADDRESS") or EVERY_ADDRESS),
        port=_number("PORT", default="8000", most=65_535),
        http=LimitedHttp,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        log_config=None,  # app.infra.logs has configured uvicorn's loggers
        access_log=False,
        server_header=False,
        workers=1,  # otherwise uvicorn reads WEB_CONCURRENCY, and an empty one ends in a traceback
        # Longer than proxies keep an idle connection (load balancers 60 s, Heroku's router 90 s):
        # a request on a connection that was just closed is answered 502.
        timeout_keep_alive=_number("KEEP_ALIVE_SECONDS", default="95", most=86_400),
        ws_max_size=MOST_MESSAGE_BYTES,
        timeout_graceful_shutdown=15,
    )


def load(config: Config, app: FastAPI) -> None:
    routes = (context.original_route for context in iter_route_contexts(app.router.routes))
    if all(isinstance(route, Route) for route in routes):  # so none is a WebSocket
        config.ws = "none"  # an offer of one is ignored, so that every limit remains
    elif find_spec("websockets"):  # the team's to add
        config.ws = "app.infra.websocket_limits:LimitedWebSocket"
    late = LateRefusals(app)
    config.app = KnownAddress(late) if config.proxy_headers else late
    config.load()
    if config.forwarded_allow_ips == ["*"]:
        config.loaded_app.trusted_hosts = TrustLastAddress("*")


def _allow_open_files() -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, min(most, MOST_FILES)), most))


def _number(name: str, *, default: str, most: int) -> int:
    given = os.environ.get(name) or default
    if not given.isdecimal() or not 0 < int(given) <= most:
        sys.exit(f"{name} is {given!r}, and must be a number from 1 to {most}, such as {default}.")
    return int(given)


def _listen_address(given: str) -> str:
    try:
        getaddrinfo(given or None, 0)
    except (OSError, UnicodeError):
        sys.exit(f"LISTEN_ADDRESS is {given!r}, and must be an address such as 127.0.0.1.")
    return given


def _trusted_proxies(given: str) -> list[str]:
    """Without FORWARDED_ALLOW_IPS nobody; uvicorn's default would trust this machine."""
    proxies = [proxy.strip() for proxy in given.split(",") if proxy.strip()]
    for proxy in proxies if proxies != ["*"] else ():
        try:
            ip_network(proxy)
        except ValueError as error:
            sys.exit(
                f"FORWARDED_ALLOW_IPS has a wrong item: {error}. Give addresses and networks,"
                " separated by commas, such as 10.0.0.0/8, or * alone to trust every address."
            )
    return proxies


if __name__ == "__main__":
    main()
