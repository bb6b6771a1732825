# Rung's file: advancing to another stage may change it.
"""What `make dev` runs once the services are there."""

import importlib.util
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

from fastapi import FastAPI

HOST = "127.0.0.1"
BANNER = """
  App       http://{host}:{port}/docs
  Postgres  {database}   (make psql)
"""


def main() -> None:
    port = os.environ.get("PORT") or "8000"
    refuse_unusable_port(port)
    refuse_wrong_environment()
    migrate_and_seed()
    print(BANNER.format(host=HOST, port=port, database=os.environ["DATABASE_URL"]), flush=True)
    os.execvp(  # noqa: S606
        "uvicorn",
        [
            *("uvicorn", "dev.serve:create_app", "--factory", "--host", HOST, "--port", port),
            *("--reload", "--reload-dir", "app", "--no-access-log"),
        ],
    )


def create_app() -> FastAPI:
    end_with_reloader()
    from app import main

    return main.create_app()


def end_with_reloader() -> None:
    """However it ends: one that was killed could not tell the process that serves."""

    def wait_for_it() -> None:
        if reloader := multiprocessing.parent_process():
            reloader.join()
            os._exit(1)

    threading.Thread(target=wait_for_it, daemon=True).start()


def refuse_wrong_environment() -> None:
    """The reloader would wait for another edit of app/, and none can mend it."""
    # Anything else that is wrong it shows, and starts again when it is mended.
    with suppress(Exception):
        from app import main

        main.create_app()


def migrate_and_seed() -> None:
    steps = [["alembic", "upgrade", "head"]]
    if importlib.util.find_spec("app.seed"):
        steps.append([sys.executable, "-m", "app.seed"])
    for step in steps:
        status = subprocess.run(step).returncode
        if status != 0:
            sys.exit(status)


def refuse_unusable_port(port: str, target: str = "dev") -> None:
    way_out = f"Take another: make {target} PORT=8001"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        sys.exit(f"Port {port} is not a number from 1 to 65535. {way_out}")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, int(port)))
        except OSError as error:
            sys.exit(f"Port {port}: {error.strerror}. {way_out}")


if __name__ == "__main__":
    main()
