# Rung's file: advancing to another stage may change it.
"""`make dev`, once the services run: migrate, seed, and serve with reload."""

import importlib.util
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import uvicorn

from app.infra.http_limits import MOST_MESSAGE_BYTES
from dev import migrate, services, start_page
from dev.programs import run_module

HOST = "127.0.0.1"
BANNER = """
  App       http://{host}:{port}/
  API docs  http://{host}:{port}/docs
  Postgres  {database}
  SQL       make psql
"""


def main() -> None:
    port = os.environ.get("PORT") or "8000"
    refuse_unusable_port(port)
    refuse_wrong_environment()
    migrate_and_seed()
    urls = "\n            ".join(services.databases(os.environ))
    print(BANNER.format(host=HOST, port=port, database=urls), flush=True)
    uvicorn.run(
        "dev.serve:create_app",
        factory=True,
        host=HOST,
        port=int(port),
        http="app.infra.http_limits:LimitedHttp",  # as in production, like the next line
        ws_max_size=MOST_MESSAGE_BYTES,
        access_log=False,
        reload=True,
        reload_dirs=["app"],
    )


def create_app() -> start_page.WithPages:
    end_with_reloader()
    from app import main

    return start_page.WithPages(main.create_app())


def end_with_reloader() -> None:
    """Ends with the reloader, even if the reloader is killed and cannot stop this process."""

    def wait_for_reloader() -> None:
        if reloader := multiprocessing.parent_process():
            reloader.join()
            os._exit(1)

    threading.Thread(target=wait_for_reloader, daemon=True).start()


def refuse_wrong_environment() -> None:
    """Ends at once: the reloader would wait for an edit of app/, which cannot fix this error."""
    # The reloader shows any other error and starts again after an edit.
    with suppress(Exception):
        from app import main

        main.create_app()


def migrate_and_seed() -> None:
    migrate.upgrade(os.environ)
    if importlib.util.find_spec("app.seed"):
        # The last line, because the others are logs.
        if said := run_module("app.seed", stdout=subprocess.PIPE).strip().rpartition("\n")[2]:
            start_page.keep_seeded(os.environ, said)
        print(said or start_page.seeded(os.environ))


def refuse_unusable_port(port: str, target: str = "dev") -> None:
    advice = f"Use another: make {target} PORT=8001"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        sys.exit(f"Port {port} is not a number from 1 to 65535. {advice}")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, int(port)))
        except OSError as error:
            sys.exit(f"Port {port}: {error.strerror}. {advice}")
    # A program may have it on ::1 only, or on macOS on all addresses. localhost leads to that one.
    with suppress(OSError), socket.create_connection(("localhost", int(port)), timeout=1):
        sys.exit(f"Port {port}: another program answers on localhost. {advice}")


if __name__ == "__main__":
    main()
