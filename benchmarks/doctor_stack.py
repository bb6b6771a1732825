"""The servers, the load and the doctor of one case of doctor_cases.py."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
from dev import ports, postgres
from doctor_app import TABLES

WINDOW = 9
HERE = Path(__file__).parent

# As on a separate machine: beside a busy neighbour the verdict is `starved`, rightly.
FIRST = ("nice", "-n", "-15")

type Settings = tuple[tuple[str, str | int], ...]


class Case(NamedTuple):
    """`prepare` is SQL before the app starts, `beside` runs under load, on separate connections.

    `leave`: this many connections stay free, all others are taken. `before` stands before the
    app's command.
    """

    route: str
    rule: str
    clients: int = 4
    pause: float = 0.02
    advance_to: int | None = None
    advance_from: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    prepare: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    leave: int | None = None
    before: tuple[str, ...] = FIRST
    neighbour: bool = False
    log: bool = True
    copies: int = 1
    pooler: Settings | None = None
    replica: bool = False
    on_replica: tuple[str, ...] = ()
    cache: Settings | None = None
    in_cache: str = ""
    sessions: Settings | None = None
    fill_sessions: bool = False
    end_sessions: bool = False


class Stack(NamedTuple):
    url: str  # of Postgres
    environment: dict[str, str]
    replica: str | None
    cache: Any
    sessions: Any


def stage() -> int:
    arrived = {"copies": 4, "cache": 3, "slow_queries": 2}
    infra = Path("app/infra")
    return next((number for name, number in arrived.items() if (infra / name).is_dir()), 1)


def tried(name: str, case: Case, keep: Path | None) -> tuple[str, int | None]:
    """The verdict's rule and the stage that it names."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        stack = _started(case, opened)
        log = folder / "app.log"
        bases = [opened.enter_context(_served(stack, case, log)) for _ in range(case.copies)]
        if case.neighbour:
            opened.enter_context(_neighbour())
        kept = Path(keep or folder, f"{name.replace(' ', '-').replace(',', '')}.json")
        kept.parent.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_judged(case, stack, bases, log, kept))


def _started(case: Case, opened: ExitStack) -> Stack:
    url = opened.enter_context(postgres.for_load())
    for statement in (TABLES, *case.prepare):
        asyncio.run(_run(url, statement))
    environment = {**dict(case.environment), "DATABASE_URL": url}
    replica = cache = sessions = None
    if case.replica:
        from dev.replicas import replica as replicas

        folder = postgres.state_folder() / "load-replica"
        replica = opened.enter_context(replicas.of(url, folder, postgres.SETTINGS))
        environment["DATABASE_REPLICA_URLS"] = replica
        for statement in case.on_replica:
            asyncio.run(_run(replica, statement))
    if case.pooler is not None:
        from dev.pooling import pgbouncer

        bouncer = opened.enter_context(pgbouncer.running(url, **dict(case.pooler)))
        environment |= {
            "DATABASE_POOLED": "true",
            "DATABASE_URL": bouncer.url,
            "DATABASE_READ_URL": bouncer.read_url,
            "DATABASE_DIRECT_URL": url,
        }
        if replica:
            environment["DATABASE_REPLICA_DIRECT_URLS"] = replica
    if case.cache is not None:
        from dev.cache import valkey

        cache = opened.enter_context(valkey.running("cache", **dict(case.cache)))
        environment["CACHE_URL"] = cache.url
    if case.sessions is not None:
        from dev.cache import valkey

        sessions = opened.enter_context(valkey.running("sessions", **dict(case.sessions)))
        environment |= {"SESSION_STORE": "redis", "SESSION_REDIS_URL": sessions.url}
    return Stack(url, environment, replica, cache, sessions)


@contextmanager
def _served(stack: Stack, case: Case, log: Path) -> Iterator[str]:
    port = ports.unused()
    environment = os.environ | {
        "SECRET_KEY": "a secret key of the doctor's own cases",
        "FILES_FOLDER": str(log.parent),
        "PORT": str(port),
        "LISTEN_ADDRESS": "127.0.0.1",
        "LOG_FORMAT": "json",
        "LOG_PROCESS_SECONDS": "3",
        "PYTHONPATH": f"{HERE}:{Path.cwd()}",
        **stack.environment,
    }
    code = "from app.infra import serve; serve.main('doctor_app:create_app')"
    before = () if case.before == FIRST and os.geteuid() != 0 else case.before
    with log.open("ab") as out:
        command = [*before, sys.executable, "-c", code]
        app = subprocess.Popen(command, env=environment, stdout=out)
        try:
            _wait_until_it_serves(app, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            app.terminate()
            app.wait(30)


def _wait_until_it_serves(app: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and app.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/live")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    sys.exit("The app did not start.")


@contextmanager
def _neighbour() -> Iterator[None]:
    hog = subprocess.Popen(["taskset", "-c", "0", sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()


async def _judged(
    case: Case, stack: Stack, bases: list[str], log: Path, kept: Path
) -> tuple[str, int | None]:
    async def visit(client: httpx.AsyncClient, base: str) -> None:
        while True:
            await client.get(base + case.route)
            await asyncio.sleep(case.pause)

    async with httpx.AsyncClient(timeout=60) as client:
        beside = []
        for statement in case.beside:
            beside.append(asyncio.create_task(_run(stack.url, statement)))
            await asyncio.sleep(0.5)
        if case.in_cache:
            beside.append(asyncio.create_task(_busy(stack.cache.url, case.in_cache)))
        visits = [
            asyncio.create_task(visit(client, bases[number % len(bases)]))
            for number in range(case.clients)
        ]
        await asyncio.sleep(3)
        taken = await _taken(stack.environment["DATABASE_URL"], case.leave)
        if case.fill_sessions:
            await _filled(stack.sessions.url)
        if case.end_sessions:
            stack.sessions.die()
        doctor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.infra.doctor", "--seconds", str(WINDOW), "--json"),
            *(("--log", str(log)) if case.log else ()),
            *("--database-cpus", "1", "--evidence", str(kept), "--url", bases[0]),
            env=os.environ | stack.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await doctor.communicate()
        for task in (*visits, *beside):
            task.cancel()
        await asyncio.gather(*visits, *beside, return_exceptions=True)
        for connection in taken:
            connection.terminate()
    verdict = json.loads(shown)["verdict"]
    return verdict["rule"], verdict["advance_to"]


async def _run(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        connection.terminate()


async def _taken(url: str, leave: int | None) -> list[asyncpg.Connection]:
    """Takes all connections of the server except `leave`."""
    taken: list[asyncpg.Connection] = []
    if leave is None:
        return taken
    try:
        while True:
            taken.append(await asyncpg.connect(url, timeout=10))
    except (asyncpg.PostgresError, OSError):
        pass
    for _ in range(leave):
        await taken.pop().close()
    return taken


async def _busy(url: str, script: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(url) as client:
        while True:
            await client.eval(script, 0)


async def _filled(url: str) -> None:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    async with Redis.from_url(url) as client:
        try:
            for number in range(100_000):
                await client.set(f"filling {number}", "x" * 10_000)
        except RedisError:
            return
