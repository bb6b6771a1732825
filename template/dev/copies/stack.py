# Rung's file: advancing to another stage may change it.
"""Runs `make stack` once the services are up: a load balancer, copies and a pooler."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from dev import postgres, serve, services, supervisor
from dev.copies import haproxy, stack_status
from dev.copies.stack_copy import Copy
from dev.pooling import pgbouncer
from dev.pooling.capacity import number
from dev.server import ServerError

# Half the server slots of deploy/haproxy.cfg, as in a deploy. Enough for one machine.
MOST_COPIES = 50

FOLDER = postgres.state_folder() / "stack"

BANNER = """
  App       {url}, {copies} behind HAProxy
{links}
  Table     make stack-status
  Load      make load HOST={url}
  Then      kill PID: a copy drains and ends.  kill -9 PID: it dies. Both start again.
  Logs      {folder}/app-1/log and its neighbours
"""


def main() -> None:
    # Any signal to stop ends the processes that this command started, in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    starters = {os.getppid(), int(os.environ.get("STARTED_BY") or os.getppid())}
    port = os.environ.get("PORT") or "8000"
    copies = _number_of_copies(os.environ.get("COPIES") or "3")
    serve.refuse_unusable_port(port, "stack")
    try:
        with _only_one():
            serve.migrate_and_seed()
            with running(os.environ, copies, int(port)) as stack:
                url = f"http://127.0.0.1:{port}"
                many = number(copies, "copy", "copies")
                shown = "\n".join(links(url, os.environ))
                print(BANNER.format(url=url, copies=many, links=shown, folder=FOLDER), flush=True)
                stack_status.main()
                _keep_running(stack, starters)
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(0)


def links(url: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Copies run as in production and have no page at /, so the output shows these."""
    yield f"  API docs  {url}/docs"
    if collector := environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        yield f"  Charts    {collector}/charts"
        yield f"  Traces    {collector}"
    for url in services.databases(environment):
        yield f"  Postgres  {url}"
    yield "  SQL       make psql"


@contextmanager
def running(given: Mapping[str, str], copies: int, port: int) -> Iterator[Sequence[Copy]]:
    """Yields the copies when all are ready."""
    haproxy.program()
    with ExitStack() as stack:
        bouncer = stack.enter_context(pgbouncer.running(given["DATABASE_URL"]))
        environment = {
            **given,
            "DATABASE_POOLED": "true",
            "DATABASE_URL": bouncer.url,
            "DATABASE_READ_URL": bouncer.read_url,
            "DATABASE_DIRECT_URL": given["DATABASE_URL"],
            "FORWARDED_ALLOW_IPS": "127.0.0.1",
        }
        started = [
            stack.enter_context(Copy(FOLDER / f"app-{number}", environment).running())
            for number in range(1, copies + 1)
        ]
        for copy in started:
            copy.wait_until_ready()
        # Started last, so that it stops first: no request reaches a copy that stops with the stack.
        balancer = haproxy.HAProxy(
            FOLDER / "haproxy",
            port,
            [copy.port for copy in started],
            unlimited_clients="127.0.0.1",  # `make load` is one client
        )
        stack.enter_context(balancer.running())
        yield started


def _keep_running(copies: Sequence[Copy], starters: set[int]) -> None:
    """Runs until a signal to stop, or until a parent process is gone, even by kill -9."""
    while all(map(stack_status.is_alive, starters)):
        for copy in copies:
            if copy.has_ended():
                print(f"{copy.name} has ended. Starting it again.", flush=True)
                copy.start()
        time.sleep(0.5)


def _number_of_copies(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= MOST_COPIES:
        sys.exit(f"COPIES is {given!r}, and must be 1 to {MOST_COPIES}: make stack COPIES=3")
    return int(given)


@contextmanager
def _only_one() -> Iterator[None]:
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "running").open("w") as lock:
        if not supervisor.try_lock_alone(lock.fileno()):
            sys.exit("A stack runs here already: make stack-status")
        yield


if __name__ == "__main__":
    main()
