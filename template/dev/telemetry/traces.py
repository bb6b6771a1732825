# Rung's file: advancing to another stage may change it.
"""make traces: shows the last requests of `make dev` as a waterfall in the browser."""

import os
import sys
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from dev import postgres
from dev.server import Server

PROGRAM = Path(__file__).with_name("traces_server.py")


class Traces(Server):
    name = "The server for traces"

    def command(self) -> list[str | Path]:
        return [sys.executable, PROGRAM, str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(postgres.REPOSITORY)}

    def serves(self) -> bool:
        with suppress(OSError, HTTPException), urlopen(self.url, timeout=1) as answer:  # noqa: S310
            # Another program may have taken the port since last time.
            return bool(answer.headers["Traces-Of"] == PROGRAM.as_uri())
        return False


def main() -> None:
    traces = Traces(_folder())
    if not traces.is_running():
        sys.exit(
            "No server for traces is running. Start `make dev`, send a request, and try again."
        )
    print(f"\n  Traces  {traces.url}\n")
    webbrowser.open(traces.url)


@contextmanager
def for_development() -> Iterator[str]:
    """URL of a server that keeps the last traces. Commands that run at once share it."""
    with Traces(_folder()).running() as traces:
        yield traces.url


def _folder() -> Path:
    return postgres.state_folder() / "traces"


if __name__ == "__main__":
    main()
