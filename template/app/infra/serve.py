# Rung's file: advancing to another stage may change it.
"""python -m app.infra.serve: the app in production, one process on PORT."""

import gc
import os
import sys

import uvicorn


def main() -> None:
    port = _port(os.environ.get("PORT") or "8000")
    run(host="0.0.0.0", port=port)  # noqa: S104  # a container's own network


def run(host: str, port: int) -> None:
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        host=host,
        port=port,
        access_log=False,
        server_header=False,
        # Longer than the 60 s for which load balancers keep an idle connection: a request sent
        # on one that we have just closed is answered 502.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=15,
    )
    config.load()
    # What is there by now stays: looked through for garbage every second under load, all of it
    # would stop every request for 70 ms each time. What requests leave is looked through seldom.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    uvicorn.Server(config).run()


def _port(given: str) -> int:
    if not given.isdecimal():
        sys.exit(f"PORT is {given!r}, and must be a number, such as 8000.")
    return int(given)


if __name__ == "__main__":
    main()
