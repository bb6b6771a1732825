"""Whether the doctor names the cause that a case was given, on a real app and Postgres.

In a generated repo:

    uv run python ../rung/benchmarks/doctor_cases.py [--only CASE] [--runs N] [--keep FOLDER]

Each case is one route of doctor_app.py under load for about 12 s, with a new Postgres: some 20 s
each on a quiet machine. Cases with a pooler need stage 2 or later. It exits 1 when a verdict is
wrong. `--keep` writes the evidence of each case: the quick tests judge it again.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx

sys.path.insert(0, str(Path.cwd()))

from dev import ports, postgres
from doctor_app import TABLES

WINDOW = 9
HERE = Path(__file__).parent


class Case(NamedTuple):
    route: str
    rule: str
    clients: int = 4
    pause: float = 0.02
    advance_to: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    beside: tuple[str, ...] = ()  # SQL, each on its own connection
    pooler: tuple[tuple[str, int], ...] = ()  # PgBouncer in front, with these settings


CASES = {
    "healthy": Case("/healthy", "stay"),
    "tiny table": Case("/tiny", "stay"),
    "no traffic": Case("/healthy", "too-little-evidence", clients=1, pause=5),
    "missing index": Case("/scan", "index"),
    "missing index behind an order": Case("/ordered", "index"),
    "missing index at full load": Case("/scan", "index", clients=8, pause=0),
    "one statement a row": Case("/rows", "n-plus-1"),
    "hot row": Case("/hot", "hot-row", clients=8, pause=0),
    "call in a transaction": Case("/call", "idle-in-tx"),
    "alter behind a report": Case(
        "/healthy",
        "ddl-lock",
        environment=(("DATABASE_STATEMENT_SECONDS", "30"),),
        beside=(
            "BEGIN; LOCK visits IN ACCESS SHARE MODE; SELECT pg_sleep(60)",
            "ALTER TABLE visits ADD COLUMN note text",
        ),
    ),
    "import": Case("/import", "writes", pause=0),
    "the same reads": Case("/same", "cache", pause=0, advance_to=3),
    "different reads": Case("/different", "replicas", pause=0, advance_to=2),
    "python": Case("/cpu", "app-cpu", pause=0),
    "sleep in the loop": Case("/sleep", "app-blocked", clients=2, pause=0.3),
    "small pool, far away": Case(
        "/far", "pool", clients=8, pause=0, environment=(("DATABASE_READ_POOL", "2"),)
    ),
    "healthy behind a pooler": Case("/healthy", "stay", pooler=(("default_pool_size", 20),)),
    "small pooler": Case(
        "/far",
        "pooler",
        clients=8,
        pause=0,
        pooler=(("default_pool_size", 2), ("reserve_pool_size", 0)),
        environment=(("DATABASE_READ_POOL", "16"),),
    ),
}


async def sql(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        connection.terminate()


@contextmanager
def reached(url: str, case: Case) -> Iterator[dict[str, str]]:
    """The variables that lead the app and the doctor to Postgres."""
    if not case.pooler:
        yield {"DATABASE_URL": url}
        return
    from dev.pooling import pgbouncer  # there is none at stage 1

    with pgbouncer.running(url, **dict(case.pooler)) as bouncer:
        yield {
            "DATABASE_POOLED": "true",
            "DATABASE_URL": bouncer.url,
            "DATABASE_READ_URL": bouncer.read_url,
            "DATABASE_DIRECT_URL": url,
        }


@contextmanager
def served(database: dict[str, str], case: Case, log: Path) -> Iterator[str]:
    port = ports.unused()
    environment = os.environ | {
        **database,
        "SECRET_KEY": "a secret key of the doctor's own cases",
        "FILES_FOLDER": str(log.parent),
        "PORT": str(port),
        "LISTEN_ADDRESS": "127.0.0.1",
        "LOG_FORMAT": "json",
        "LOG_PROCESS_SECONDS": "3",
        "PYTHONPATH": f"{HERE}:{Path.cwd()}",
        **dict(case.environment),
    }
    command = "from app.infra import serve; serve.main('doctor_app:create_app')"
    with log.open("wb") as out:
        app = subprocess.Popen([sys.executable, "-c", command], env=environment, stdout=out)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/live")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            app.terminate()
            app.wait(30)


async def judged(
    case: Case, url: str, database: dict[str, str], base: str, log: Path, kept: Path
) -> tuple[str, int | None]:
    async def visit(client: httpx.AsyncClient) -> None:
        while True:
            await client.get(base + case.route)
            await asyncio.sleep(case.pause)

    async with httpx.AsyncClient(timeout=60) as client:
        beside = []
        for statement in case.beside:
            beside.append(asyncio.create_task(sql(url, statement)))
            await asyncio.sleep(0.5)
        visits = [asyncio.create_task(visit(client)) for _ in range(case.clients)]
        await asyncio.sleep(3)
        doctor = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.infra.doctor", "--seconds", str(WINDOW), "--json"),
            *("--log", str(log), "--database-cpus", "1", "--evidence", str(kept), "--url", base),
            env=os.environ | database,
            stdout=asyncio.subprocess.PIPE,
        )
        shown, _ = await doctor.communicate()
        for task in (*visits, *beside):
            task.cancel()
        await asyncio.gather(*visits, *beside, return_exceptions=True)
    verdict = json.loads(shown)["verdict"]
    return verdict["rule"], verdict["advance_to"]


def tried(name: str, keep: Path | None) -> tuple[str, int | None]:
    """The verdict's rule and the stage that it names."""
    case = CASES[name]
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres.for_load() as url,
        reached(url, case) as database,
    ):
        asyncio.run(sql(url, TABLES))
        log = Path(folder, "app.log")
        kept = Path(keep or folder, f"{name.replace(' ', '-').replace(',', '')}.json")
        with served(database, case, log) as base:
            return asyncio.run(judged(case, url, database, base, log, kept))


def here() -> list[str]:
    has_pooler = Path("app/infra/pooling").is_dir()
    return [name for name, case in CASES.items() if has_pooler or not case.pooler]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES, nargs="+")
    parser.add_argument("--runs", type=int, default=1, help="of each case")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    names = (options.only or here()) * options.runs
    wrong = wrong_advances = 0
    print("| case | wanted | got | ok |\n|---|---|---|---|")
    for name in names:
        case = CASES[name]
        rule, stage = tried(name, options.keep)
        is_right = (rule, stage) == (case.rule, case.advance_to)
        wrong += not is_right
        wrong_advances += stage not in (None, case.advance_to)
        wanted, got = told(case.rule, case.advance_to), told(rule, stage)
        print(f"| {name} | {wanted} | {got} | {'yes' if is_right else 'NO'} |", flush=True)
    print(f"\n{len(names) - wrong} of {len(names)} right, {wrong_advances} wrong advances")
    sys.exit(wrong > 0)


def told(rule: str, stage: int | None) -> str:
    return f"{rule}, stage {stage}" if stage else rule


if __name__ == "__main__":
    main()
