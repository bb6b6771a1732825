# Rung's file: advancing to another stage may change it.
"""python -m app.infra.serve: the app in production, one process on PORT."""

import os
import sys

import uvicorn


def main() -> None:
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host="0.0.0.0",  # noqa: S104  # a container's own network
        port=_port(os.environ.get("PORT") or "8000"),
        access_log=False,
        server_header=False,
        # Longer than the 60 s for which load balancers keep an idle connection: a request sent
        # on one that we have just closed is answered 502.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=15,
    )


def _port(given: str) -> int:
    if not given.isdecimal():
        sys.exit(f"PORT is {given!r}, and must be a number, such as 8000.")
    return int(given)


if __name__ == "__main__":
    main()
