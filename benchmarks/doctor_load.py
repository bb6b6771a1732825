"""What `make doctor` costs the service that it looks at: p95 beside it, and its connections' time.

In a generated repo:

    uv run python ../rung/benchmarks/doctor_load.py [--rounds N]

Alternates windows of steady load without the doctor and with it, on a Postgres that it starts.
Exits 1 when the doctor is more than 1% of p95, or more than 5% of one connection.
"""

import argparse
import asyncio
import statistics
import sys
from pathlib import Path

import asyncpg
import steady_load
from serving import migrated_and_filled, serve_app

MOST_P95, MOST_CONNECTION = 1.01, 0.05
WINDOW = 20  # seconds of the doctor's two snapshots
EACH = WINDOW + 4  # seconds of load: the doctor begins and ends within them
WORKING = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rung doctor' AND state = 'active'
"""


def p95(answered: steady_load.Answered) -> float:
    if answered.failed:
        sys.exit(f"{answered.failed} requests failed.")
    return statistics.quantiles(answered.milliseconds, n=20)[18]


async def looked(url: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "app.infra.doctor", "--seconds", str(WINDOW), "--json"]
    doctor = await asyncio.create_subprocess_exec(
        *command, "--url", url, env=environment, cwd=Path.cwd(), stdout=asyncio.subprocess.DEVNULL
    )
    if await doctor.wait() == 2:
        sys.exit("The doctor did not look.")


async def share_working(database_url: str, seconds: float) -> float:
    """How many of the doctor's connections are at work, seen each 20 ms."""
    connection = await asyncpg.connect(database_url)
    loop = asyncio.get_running_loop()
    end, seen = loop.time() + seconds, []
    while loop.time() < end:
        seen.append(await connection.fetchval(WORKING))
        await asyncio.sleep(0.02)
    await connection.close()
    return statistics.mean(seen)


async def measured(url: str, environment: dict[str, str], rounds: int) -> bool:
    connection = await asyncpg.connect(environment["DATABASE_URL"])
    rows = await connection.fetch("SELECT id FROM products LIMIT 100")
    await connection.close()
    paths = [f"/products/{row['id']}" for row in rows] + ["/products"]
    await steady_load.load(url, paths, 5)
    ratios, shares = list[float](), list[float]()
    print("| round | p95 alone, ms | p95 beside the doctor, ms | of one connection |")
    print("|---|---|---|---|")
    for number in range(1, rounds + 1):
        alone, _ = await asyncio.gather(
            steady_load.load(url, paths, EACH),
            share_working(environment["DATABASE_URL"], WINDOW),
        )
        beside, _, share = await asyncio.gather(
            steady_load.load(url, paths, EACH),
            looked(url, environment),
            share_working(environment["DATABASE_URL"], WINDOW),
        )
        ratios.append(p95(beside) / p95(alone))
        shares.append(share)
        print(f"| {number} | {p95(alone):.2f} | {p95(beside):.2f} | {share:.3f} |", flush=True)
    ratio, share = statistics.median(ratios), statistics.median(shares)
    print(f"\np95 beside the doctor: {ratio:.3f} of p95 alone (at most {MOST_P95})")
    print(f"the doctor's work: {share:.3f} of one connection (at most {MOST_CONNECTION})")
    return ratio <= MOST_P95 and share <= MOST_CONNECTION


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with migrated_and_filled() as environment, serve_app(environment) as server:
        met = asyncio.run(measured(server.url, environment, options.rounds))
    sys.exit(not met)


if __name__ == "__main__":
    main()
