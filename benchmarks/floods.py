"""Delays of other people's requests while one address floods the service, for each kind of flood.
Run it inside a generated repo of any stage; from stage 4 on HAProxy is in front:

    uv run python path/to/rung/benchmarks/floods.py

Quiet and flooded windows alternate, and each flooded one is compared with the quiet one before it.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

sys.path.insert(0, str(Path.cwd()))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "drives"))

from floods import drive
from floods.flooder import Flooder
from leaks.drive import FOLDER, Shop

TIMES = 2
ADA = {"email": "ada@example.com", "password": "the secret of Ada"}


def main() -> int:
    kinds = [name for name in vars(Flooder) if not name.startswith("_")]
    arguments = argparse.ArgumentParser()
    arguments.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kinds))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=6)
    options = arguments.parse_args()
    if unknown := set(options.kinds) - set(kinds):
        sys.exit(f"There is no flood {', '.join(unknown)}. There are: {', '.join(kinds)}")
    drive.SECONDS = options.seconds
    os.environ["PYTHONPATH"] = sys.path[0]  # of the flooder
    with ExitStack() as stack:
        FOLDER.mkdir()  # of the logs
        stack.callback(shutil.rmtree, FOLDER)
        shop = Shop(stack, (sys.executable, "-m", "app.infra.serve"))
        met = asyncio.run(compare(shop, options.kinds or kinds, options.rounds))
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


async def compare(shop: Shop, kinds: list[str], rounds: int) -> bool:
    met = True
    print(f"{drive.REQUESTS_A_SECOND} requests a second of others")
    print("| flood | requests | failed | quiet p99 ms | flooded p99 ms | times | at most |")
    print("|---|---|---|---|---|---|---|")
    async with httpx.AsyncClient(base_url=shop.url, timeout=30) as client:
        registered = await client.post("/accounts", json=ADA)
        client.cookies.clear()
        client.headers["Cookie"] = registered.headers["set-cookie"].partition(";")[0]
        await drive.among_others(client)  # everything is loaded
        for kind in kinds:
            pairs = []
            for _ in range(rounds):
                shop.sql("DELETE FROM login_attempts")  # each round has a first hundred
                pairs.append(
                    (await drive.among_others(client), await drive.among_others(client, kind))
                )
            failed = sum(flooded.failed.total() for _, flooded in pairs)
            times = statistics.median(flooded.p99 / quiet.p99 for quiet, flooded in pairs)
            quiet_ms = statistics.median(quiet.p99 for quiet, _ in pairs) * 1000
            flooded_ms = statistics.median(flooded.p99 for _, flooded in pairs) * 1000
            requests = sum(len(flooded.seconds) for _, flooded in pairs)
            print(
                f"| {kind} | {requests:,} | {failed} | {quiet_ms:.1f} | {flooded_ms:.1f}"
                f" | {times:.2f} | {TIMES} |",
                flush=True,
            )
            met &= failed == 0 and times <= TIMES
    return met


if __name__ == "__main__":
    sys.exit(main())
