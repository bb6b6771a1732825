"""The orders move to their own Postgres and back while people order, with a ledger of their writes:

    uv run python ../rung/benchmarks/move_a_module.py [--rows 5000000] [--cuts 2] [--kill]

Run it inside a generated repo of stage 4 with module_databases, as it was rendered. A copy of the
repo gets the patch of the hand-over. Two processes of it serve browsers and clients with a token.
Prints a row for each step. Exits 1 if a write was lost, an own write was not seen, a session ended,
a request failed, or the two databases differ.
"""

import argparse
import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import count, cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
from hand_over import ORDERS, patched_copy
from serving import FILL, serve_app

sys.path.insert(0, str(Path(__file__).parent / "live_climb"))

from dev import postgres, services
from ledger import Counts, Ledger
from visitors import Load, Visitor

MIGRATION = ("dev", sys.executable, "-m", "dev.module_databases.migration", "orders", "the orders")
MOVE = "app.infra.module_databases.move"
PREFIX = "MODULE_ORDERS_DATABASE_"

# As durable as a server is: fsync is on.
SETTINGS = postgres.SETTINGS | {
    "wal_level": "logical",
    "max_slot_wal_keep_size": "20GB",
    "max_wal_size": "4GB",
    "max_connections": "100",
}
ROLE = "shop"
ROWS = """
    WITH new AS (
        INSERT INTO orders (account_id, idempotency_key, placed_at)
        SELECT uuidv7(), 'before-' || n, now() - n * interval '1 second'
        FROM generate_series($1::int, $2::int) AS n RETURNING id
    )
    INSERT INTO order_items (order_id, product_id, quantity, unit_price_cents)
    SELECT new.id, product.id, 1, 100 FROM new, (
        SELECT id FROM products ORDER BY id LIMIT 2
    ) AS product
"""
AT_ONCE = 250_000
OWED = "SELECT count(*) FROM orders WHERE owed IS NOT NULL"
SECONDS_BETWEEN = 10
SETTLED_SECONDS = 120

MOVERS_READY = 3

# In production, a copy and a command start on another machine than those that serve the buyers,
# and so does the server that serves nobody at the moment. Here all share the same processors, so
# these get what the others leave. Only root may undo that.
LOWEST = 19 if os.geteuid() == 0 else 0
GENTLY = ("nice", "-n", str(LOWEST))

# The command, killed before one of its statements. It begins when it is told to: starting Python
# again would take longer than the copies wait between the two commits of a cut.
MOVER = f"""
import asyncpg, itertools, os, signal
from {MOVE}.__main__ import main
import app.main
numbers = itertools.count(1)
def killed(act):
    async def acts(*arguments, **options):
        if next(numbers) == {{kill_at}}:
            os.kill(os.getpid(), signal.SIGKILL)
        return await act(*arguments, **options)
    return acts
for name in ("execute", "fetch", "fetchval"):
    setattr(asyncpg.Connection, name, killed(getattr(asyncpg.Connection, name)))
print("ready", flush=True)
input()
main()
"""


class MoveError(Exception):
    """A command of the move failed, or a copy of the app did not start."""


class Buyer(Visitor):
    """Orders, and reads some of the orders back."""

    reads_back = 0.25  # so that most of the two processors' time is for orders

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(load, number)
        self._doings = [
            (100, self._order),
            (6, self._look_around),
            (6, self._who_am_i),
            (1, self._log_in_again),
            (2, self._try_an_ended_session),
        ]


class Buyers(Load):
    """Each request goes to the next copy of the app."""

    def __init__(self, urls: list[str], ledger: Ledger, buyers: int, rate: float) -> None:
        self.turn_to(urls)
        super().__init__(urls[0], ledger, 0, rate)
        self.interval = buyers / rate
        self._visitors = [Buyer(self, number) for number in range(buyers)]

    def turn_to(self, urls: list[str]) -> None:
        self._urls = cycle(urls)

    @property
    def url(self) -> str:
        return next(self._urls)

    @url.setter
    def url(self, url: str) -> None:
        pass


class Shop:
    """Two servers, and copies of the app with the settings of a step."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.repo = patched_copy(folder)
        self.old, self.new = (start_server(folder / name, stack) for name in ("old", "new"))
        self.environment = {
            **os.environ,
            "DATABASE_URL": as_the_app(self.old),
            "FILES_FOLDER": str(folder),
            "MOVE_FROM_URL": self.old,
            "MOVE_TO_URL": self.new,
        }
        self.environment = stack.enter_context(services.environment(self.environment))
        self.environment |= {"LOG_FORMAT": "json", "LOG_LEVEL": "WARNING"}
        self.log = folder / "copies.log"
        self.own = {f"{PREFIX}URL": as_the_app(self.new)}
        self._folders = {self.old: folder / "old", self.new: folder / "new"}
        self._copies = ExitStack()
        stack.callback(lambda: self._copies.close())

    def migrate(self) -> None:
        self._run(*MIGRATION, environment=dict(os.environ))
        self._run("alembic", "upgrade", "head")
        self._run(*ORDERS[2:], "upgrade", "head", environment=self.environment | self.own)

    def deploy(self, settings: dict[str, str], load: Buyers | None = None) -> list[str]:
        """New copies first. Then the old ones end what they have begun."""
        before, self._copies = self._copies, ExitStack()
        environment = self.environment | settings
        copies = [
            self._copies.enter_context(serve_app(environment, self.repo, self.log, GENTLY))
            for _ in range(2)
        ]
        urls = [copy.url for copy in copies]
        for copy in copies:
            until_ready(copy.url)
            at_full_speed(copy.process)
        if load:
            load.turn_to(urls)
            time.sleep(1)  # requests to the old copies end
        before.close()
        return urls

    def serve_from(self, *homes: str) -> None:
        """The other server gives way."""
        for url, folder in self._folders.items():
            niceness = 0 if url in homes else LOWEST
            postmaster = (folder / "data" / "postmaster.pid").read_text().split()[0]
            children = subprocess.check_output(["pgrep", "-P", postmaster], text=True).split()
            for process in (postmaster, *children):
                with suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(process), niceness)

    def said_of(self, fault: str) -> list[str]:
        """The lines that the copies have logged for its requests."""
        requests = re.findall("[0-9a-f]{32}", fault)
        lines = self.log.read_text().splitlines()
        return [line for line in lines if any(request in line for request in requests)]

    def mover(self, step: str, kill_at: int) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*GENTLY, sys.executable, "-c", MOVER.format(kill_at=kill_at), "orders", step],
            cwd=self.repo,
            env=self.environment | self.own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        at_full_speed(process)
        return process

    def _run(self, module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", module, *arguments]
        subprocess.run(command, cwd=self.repo, env=environment or self.environment, check=True)


def at_full_speed(process: "subprocess.Popen[Any]") -> None:
    if LOWEST:
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)


def ended(step: str, mover: "subprocess.Popen[str]") -> str:
    """Its last line, or "" if it was killed. Raises MoveError."""
    said, errors = mover.communicate("\n")
    if mover.returncode == -signal.SIGKILL:
        return ""
    if mover.returncode != 0:
        raise MoveError(f"{step}: {said[-2000:]}{errors[-2000:]}")
    return said.strip().splitlines()[-1]


def start_server(folder: Path, stack: ExitStack) -> str:
    """Its URL for an administrator."""
    url = stack.enter_context(postgres.Postgres(folder, SETTINGS).running()).url
    role = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{ROLE}'"
    asyncio.run(run(f"{url}/postgres", role, f"CREATE DATABASE shop OWNER {ROLE}"))
    return f"{url}/shop"


def as_the_app(url: str) -> str:
    """A superuser's writes could pass a fence."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{ROLE}:{ROLE}@{parts.hostname}:{parts.port}").geturl()


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def fill(url: str, orders: int) -> None:
    await run(url, FILL)
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")  # looks up no foreign key
    for first in range(1, orders + 1, AT_ONCE):
        await connection.execute(ROWS, first, min(first + AT_ONCE - 1, orders))
    await connection.close()
    await run(url, "VACUUM ANALYZE", "CHECKPOINT")


def until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/ready", timeout=30).status_code != 200:
        if time.monotonic() > deadline:
            raise MoveError(f"{url} did not become ready")
        time.sleep(0.1)


class Run:
    """The steps, each a row, while buyers use the shop."""

    def __init__(self, shop: Shop, load: Buyers, kill_every: int) -> None:
        self._shop = shop
        self._load = load
        self._kill_every = kill_every
        self.done: list[Counts] = []
        self.fences: list[int] = []
        self.kills = 0

    @asynccontextmanager
    async def row(self, name: str) -> AsyncGenerator[None]:
        self._load.counts = counts = Counts(name)
        orders, begun = len(self._load.ledger.rows["orders"]), time.monotonic()
        seen = len(self._load.ledger.seen)
        yield
        counts.seconds = time.monotonic() - begun
        self.done.append(counts)
        placed = len(self._load.ledger.rows["orders"]) - orders
        print(
            f"| {name} | {counts.seconds:.1f} | {len(counts.milliseconds):,}"
            f" | {placed / counts.seconds:.0f} | {counts.p50:.0f} | {counts.p99:.0f}"
            f" | {counts.milliseconds.at(100):.0f}"
            f" | {counts.failed} | {counts.stale} | {counts.logged_out + counts.revived} |",
            flush=True,
        )
        for fault in self._load.ledger.seen[seen:]:
            print("\n    ".join((f"    {fault}", *self._shop.said_of(fault))), file=sys.stderr)

    async def quiet(self, name: str) -> None:
        async with self.row(name):
            await asyncio.sleep(SECONDS_BETWEEN)

    async def deploy(self, name: str, settings: dict[str, str]) -> None:
        async with self.row(f"deploy {name}"):
            await asyncio.to_thread(self._shop.deploy, settings, self._load)

    async def step(self, step: str, *, killed: bool = False) -> None:
        async with self.row(step):
            take = self._killed_until_done if killed and self._kill_every else self._once
            said = await take(step)
        if step in {"cut", "back"} and (held := re.findall(r"(\d+) ms", said)):
            self.fences.append(sum(map(int, held)))
        print(f"    {said}", file=sys.stderr)

    async def _once(self, step: str) -> str:
        mover = await asyncio.to_thread(self._shop.mover, step, 0)
        return await asyncio.to_thread(ended, step, mover)

    async def _killed_until_done(self, step: str) -> str:
        """Writers wait while a cut is killed half-way, so the next movers have started before."""
        kill_at = count(1, self._kill_every)

        def start() -> "asyncio.Task[subprocess.Popen[str]]":
            return asyncio.create_task(asyncio.to_thread(self._shop.mover, step, next(kill_at)))

        movers = deque(start() for _ in range(MOVERS_READY))
        await asyncio.gather(*movers)
        said = ""
        while not said:
            movers.append(start())
            said = await asyncio.to_thread(ended, step, await movers.popleft())
            self.kills += not said
        for mover in await asyncio.gather(*movers):
            mover.kill()
            mover.communicate()
        return said

    async def lost(self, url: str) -> int:
        connection = await asyncpg.connect(url)
        acknowledged = list(self._load.ledger.rows["orders"])
        found = "SELECT count(*) FROM orders WHERE id = ANY($1::text[]::uuid[])"
        there: int = await connection.fetchval(found, acknowledged)
        await connection.close()
        return len(acknowledged) - there

    async def move(self, cuts: int) -> None:
        """There and back, and there to stay."""
        shop = self._shop
        shop.serve_from(shop.old)
        await self.quiet("before")
        await self.step("preflight")
        await self.step("copy", killed=True)
        await self.step("compare")
        await self.deploy("that follows", shop.own | {f"{PREFIX}FOLLOW": "true"})
        for number in range(cuts):
            await self._turn("cut", shop.new)
            if number < cuts - 1:
                await self._turn("back", shop.old)
        await self.step("compare")
        await self.deploy("of its own", shop.own)

    async def _turn(self, step: str, home: str) -> None:
        self._shop.serve_from(self._shop.old, self._shop.new)
        await self.step(step, killed=True)
        self._shop.serve_from(home)
        await self.quiet(f"after the {step}")
        self._load.counts.lost += await self.lost(home)


async def moved(shop: Shop, options: argparse.Namespace, folder: Path) -> bool:
    ledger = Ledger(folder / "ledger.jsonl")
    urls = await asyncio.to_thread(shop.deploy, {})
    load = Buyers(urls, ledger, options.buyers, options.rate)
    run = Run(shop, load, options.kill)
    load.start()
    try:
        async with asyncio.timeout(300):
            await load.keep_sessions()
        print(HEAD, flush=True)
        await run.move(options.cuts)
    finally:
        await load.stop()
    load.counts.logged_out += await load.sessions_that_are_lost()
    connection = await asyncpg.connect(shop.new)
    async with asyncio.timeout(SETTLED_SECONDS):
        while await connection.fetchval(OWED):  # the copies' own tasks resume
            await asyncio.sleep(1)
    await connection.close()
    await run.step("compare")
    lost = await run.lost(shop.new)
    await run.step("own")
    return report(run, load, lost, options)


COLUMNS = "step seconds requests orders/s p50_ms p99_ms longest failed stale logged_out"
HEAD = f"\n| {COLUMNS.replace(' ', ' | ').replace('_', ' ')} |\n{'|---' * 10}|"


def report(run: Run, load: Buyers, lost: int, options: argparse.Namespace) -> bool:
    fences = sorted(run.fences)
    p99 = statistics.quantiles(fences, n=100, method="inclusive")[98] if len(fences) > 1 else 0
    lost += sum(one.lost for one in run.done)
    print(
        f"\n{options.rows:,} orders before, {len(load.ledger.rows['orders']):,} acknowledged"
        f" meanwhile, {lost} lost. The mover was killed {run.kills} times."
        f"\nFences, ms: {fences}, median {statistics.median(fences):.0f}, p99 {p99:.0f}"
    )
    return not lost and all(one.is_clean for one in run.done)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help="orders before the move")
    parser.add_argument("--cuts", type=int, default=2, help="all but the last are taken back")
    parser.add_argument("--rate", type=float, default=800, help="requests a second, at most")
    parser.add_argument("--buyers", type=int, default=32)
    parser.add_argument(
        "--kill",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="kill copy, cut and back before each statement, or each Nth, and run them again",
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)  # Postgres' own user must be able to enter it
        shop = Shop(folder, stack)
        shop.migrate()
        begun = time.monotonic()
        asyncio.run(fill(shop.old, options.rows))
        print(f"{options.rows:,} orders in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        try:
            is_clean = asyncio.run(moved(shop, options, folder))
        except MoveError as error:
            print(error, file=sys.stderr)
            return 1
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
