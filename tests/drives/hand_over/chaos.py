"""The market for minutes, with two copies of the app, and two servers that are killed.

    python -m hand_over.chaos --minutes 10

Run it in a patched repo that holds this folder and a history of orders. Exits 1 on a violation.
"""

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, redirect_stdout
from itertools import count, takewhile
from typing import Any

import pytest
from app.main import create_app
from dev import postgres
from dev.module_databases import own
from dev.pytest_plugin import migrate
from sqlalchemy import text

from hand_over.market import LEDGER, Market, refusals_forgotten
from hand_over.ways import be_patient, crash_at_crossings, crashes
from tests.conftest import PASSWORD, browser

COPIES = 2
BUYERS = 8
CRASHES = 0.06
PRODUCTS = """
    INSERT INTO products (name, description, price_cents, stock)
    SELECT 'Product ' || n, '', 100 * n, 2 FROM generate_series(1, 3) AS n
    RETURNING id::text, stock
"""
SHOWN = 10  # of the violations

# An acknowledged order must survive a kill. Nothing here has to survive a loss of power.
SETTINGS = postgres.TEMPORARY_SETTINGS | {"synchronous_commit": "on"}


class Server:
    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = postgres.temporary_folder() / f"rung-chaos-{secrets.token_hex(4)}-{name}"
        self._running = ExitStack()

    def start(self) -> str:
        # SIGQUIT is an immediate shutdown: no transaction ends, and nothing is written.
        server = postgres.Postgres(self._folder, SETTINGS).running()
        return f"{self._running.enter_context(server).url}/postgres"

    def kill(self) -> None:
        self._running.close()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--kills", type=int, help="of a server; two a minute if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--forget-refusals", action="store_true", help="a wrong catalog, which must be found out"
    )
    options = parser.parse_args()
    if options.kills is None:
        options.kills = round(2 * options.minutes)
    with ExitStack() as stack:
        if options.forget_refusals:
            stack.enter_context(refusals_forgotten())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        servers = [Server("catalog"), Server("orders")]
        urls = []
        for server in servers:
            stack.callback(server.remove)
            urls.append(server.start())
        prepare(patch, *urls, stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context(tempfile.TemporaryFile("w", encoding="utf-8"))
        with redirect_stdout(log):  # hundreds of crashes with their tracebacks
            market, kills, violations = asyncio.run(chaos(options, servers))
        return report(market, kills, violations)


def prepare(patch: pytest.MonkeyPatch, common: str, orders: str, files: str) -> None:
    migrate(common)
    migrate(orders, version_locations=str(own.MIGRATIONS / "orders"))
    given = {"DATABASE_URL": common, own.variable("orders"): orders, "FILES_FOLDER": files}
    for name, value in {**given, "SECRET_KEY": secrets.token_hex(16)}.items():
        patch.setenv(name, value)
    be_patient("DATABASE", patch)
    be_patient("MODULE_ORDERS_DATABASE", patch)
    crash_at_crossings(patch)


async def chaos(
    options: argparse.Namespace, servers: list[Server]
) -> tuple[Market, Counter[str], list[str]]:
    rng = random.Random(options.seed)  # noqa: S311
    until = time.monotonic() + 60 * options.minutes
    async with AsyncExitStack() as stack:
        apps = [create_app() for _ in range(COPIES)]
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
        async with apps[0].state.database.transaction() as write:
            await write.execute(text(LEDGER))
            products = (await write.execute(text(PRODUCTS))).mappings().all()
        buyers = []
        for number in range(BUYERS):
            buyer = await stack.enter_async_context(browser(apps[number % COPIES]))
            person = {"email": f"buyer{number}@example.com", "password": PASSWORD}
            (await buyer.post("/accounts", json=person)).raise_for_status()
            buyers.append(buyer)
        market = Market(apps, products, crashes=CRASHES, sweeps_within_seconds=2, seed=options.seed)
        market.servers_die = True
        killer = asyncio.create_task(killed(servers, options.kills, until, rng))
        await market.trade(
            buyers, lambda: takewhile(lambda _: time.monotonic() < until, count()), killer
        )
        return market, await killer, await market.violations()


async def killed(
    servers: list[Server], kills: int, until: float, rng: random.Random
) -> Counter[str]:
    """Each comes back at once: it takes Postgres a second or more."""
    done: Counter[str] = Counter()
    pause = (until - time.monotonic()) / (kills + 1)
    for _ in range(kills):
        await asyncio.sleep(pause * (0.5 + rng.random()))
        server = rng.choice(servers)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        done[server.name] += 1
    return done


def report(market: Market, kills: Counter[str], violations: list[str]) -> int:
    numbers: dict[str, Any] = {
        **market.counts,
        "orders acknowledged": market.acknowledged,
        "cancelled": market.cancelled,
        "crashes, those of sweepers too": ", ".join(f"{n} {point}" for point, n in crashes.items()),
        "kills": ", ".join(f"{n} {name}" for name, n in kills.items()),
        "violations": len(violations),
    }
    print("| | |\n|---|---|")
    for what, number in numbers.items():
        print(f"| {what} | {number} |")
    for violation in violations[:SHOWN]:
        print(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
