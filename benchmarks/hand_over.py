"""An order handed over to a second database, beside the single transaction, on one server:

    uv run python ../rung/benchmarks/hand_over.py [--rounds 5] [--seconds 4] [--clients 1]

Run it inside a generated repo of stage 4 with module_databases, as it was rendered. Needs wrk. A
copy of the repo gets the patch of the hand-over. Three processes share one Postgres and its
products: the sample as it is, the patched one, and the patched one whose orders have a database of
their own. Cost is latency, so there are few clients.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from comparing import medians
from orders import SCRIPT, product_ids
from serving import Cases, Runs, cookie_of_somebody, fill, interleave_starts, serve_app

sys.path.insert(0, str(Path.cwd()))

from dev import postgres, services

PATCH = "docs/guide/module_databases/orders.patch"
NOT_COPIED = shutil.ignore_patterns(".venv", ".git", ".dev", ".*_cache")
ORDERS = (sys.executable, "-m", "app.infra.module_databases", "orders")
MOST = {"order": 2.5}
SINGLE, ONE, TWO = "single transaction", "handed over, one database", "handed over, two databases"


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--clients", type=int, default=1)
    options = arguments.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        patched = patched_copy(folder)
        url = stack.enter_context(postgres.for_load())
        given = {**os.environ, "DATABASE_URL": url, "FILES_FOLDER": str(folder)}
        common = stack.enter_context(services.environment(given)) | {"LOG_FORMAT": "json"}
        own = common | {"MODULE_ORDERS_DATABASE_URL": f"{url}_orders"}
        migrate(patched, common, own)
        products = ", ".join(f'"{one}"' for one in asyncio.run(product_ids(url)))

        @contextmanager
        def started() -> Iterator[Cases]:
            with (
                serve_app(common) as single,
                serve_app(common, patched) as one,
                serve_app(own, patched) as two,
            ):
                cases: Cases = {}
                for number, (name, server) in enumerate(((SINGLE, single), (ONE, one), (TWO, two))):
                    cookie = cookie_of_somebody(server.url)
                    script = folder / f"way{number}.lua"
                    script.write_text(
                        SCRIPT.format(products=products, name=script.stem, cookie=cookie)
                    )
                    place_one(server.url, cookie, products)
                    clients = [f"-c{options.clients}", "--timeout", "10s"]
                    cases[f"order, {name}"] = [*clients, "-s", str(script), f"{server.url}/orders"]
                    read = [f"{server.url}/orders?limit=1", "-H", f"Cookie: {cookie}"]
                    cases[f"read, {name}"] = [*clients, *read]
                yield cases

        results = interleave_starts(started, options.rounds, options.seconds)
    return 0 if report(results) else 1


def patched_copy(folder: Path) -> Path:
    copy = folder / "patched"
    shutil.copytree(Path.cwd(), copy, ignore=NOT_COPIED)
    subprocess.run(["git", "apply", PATCH], cwd=copy, check=True)
    return copy


def migrate(patched: Path, common: dict[str, str], own: dict[str, str]) -> None:
    """The unpatched code runs on the patched tables."""
    subprocess.run(["alembic", "upgrade", "head"], cwd=patched, env=common, check=True)
    postgres.database_on(postgres.state_folder() / "load", "orders")
    first = ("revision", "--autogenerate", "-m", "the orders")
    for command in (first, ("upgrade", "head")):
        subprocess.run([*ORDERS, *command], cwd=patched, env=own, check=True)
    asyncio.run(fill(common["DATABASE_URL"]))


def place_one(url: str, cookie: str, products: str) -> None:
    wanted = {"items": [{"product_id": products.split('"')[1], "quantity": 1}]}
    headers = {"Cookie": cookie, "Idempotency-Key": "the-first-one"}
    httpx.post(f"{url}/orders", json=wanted, headers=headers).raise_for_status()


def report(results: Runs) -> bool:
    """Ratios are computed round by round."""
    print("\n| what | p50 ms | p99 ms | p50, times the single transaction | at most |")
    print("|---" * 5 + "|")
    met = True
    for name, runs in results.items():
        _, p50, p99 = medians(runs)
        what = name.partition(",")[0]
        of = results[f"{what}, {SINGLE}"]
        times = statistics.median(run[1] / other[1] for run, other in zip(runs, of, strict=True))
        most = MOST.get(what)
        met &= most is None or times <= most
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {times:.2f} | {most or ''} |")
    print("\nThe target is met." if met else "\nThe target is missed.")
    return met


if __name__ == "__main__":
    sys.exit(main())
