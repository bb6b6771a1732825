"""The cost of `make doctor` for the service: p95 beside it, and the time of its connections.

In a generated repo:

    uv run python ../rung/benchmarks/doctor_load.py [--rounds N]

Alternates windows of steady load without the doctor and with it, on a Postgres that it starts, and
compares each with the windows before and after it. Two windows without the doctor differ too: the
spread of their ratio is what this machine cannot tell. Exits 1 when the median of the rounds is
more than 1% of p95, or the doctor's work more than 5% of one connection.
"""

import argparse
import asyncio
import statistics
import sys
from pathlib import Path

import asyncpg
import steady_load
from serving import Server, migrated_and_filled, serve_app

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


async def looked(url: str, log: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "app.infra.doctor", "--seconds", str(WINDOW), "--json"]
    doctor = await asyncio.create_subprocess_exec(
        *(*command, "--url", url, "--log", log),
        env=environment,
        cwd=Path.cwd(),
        stdout=asyncio.subprocess.DEVNULL,
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


async def measured(app: Server, environment: dict[str, str], rounds: int) -> bool:
    connection = await asyncpg.connect(environment["DATABASE_URL"])
    rows = await connection.fetch("SELECT id FROM products LIMIT 100")
    await connection.close()
    paths = [f"/products/{row['id']}" for row in rows] + ["/products"]
    await steady_load.load(app.url, paths, 5)
    log = f"/proc/{app.process.pid}/fd/1"

    async def alone() -> float:
        answered, _ = await asyncio.gather(
            steady_load.load(app.url, paths, EACH),
            share_working(environment["DATABASE_URL"], WINDOW),
        )
        return p95(answered)

    async def beside() -> tuple[float, float]:
        answered, _, share = await asyncio.gather(
            steady_load.load(app.url, paths, EACH),
            looked(app.url, log, environment),
            share_working(environment["DATABASE_URL"], WINDOW),
        )
        return p95(answered), share

    ratios, noise, shares = list[float](), list[float](), list[float]()
    print("| round | p95 before, ms | beside the doctor | after | of one connection |")
    print("|---|---|---|---|---|")
    before = await alone()
    for number in range(1, rounds + 1):
        with_doctor, share = await beside()
        after = await alone()
        ratios.append(with_doctor / statistics.mean((before, after)))
        noise.append(after / before)
        shares.append(share)
        times = f"{before:.2f} | {with_doctor:.2f} | {after:.2f}"
        print(f"| {number} | {times} | {share:.4f} |", flush=True)
        before = after
    ratio, share = statistics.median(ratios), statistics.median(shares)
    print(f"\np95 beside the doctor, to p95 around it: {spread(ratios)}, at most {MOST_P95}")
    print(f"the same of two windows without the doctor: {spread(noise)}")
    print(f"the doctor's work: {share:.4f} of one connection, at most {MOST_CONNECTION}")
    return ratio <= MOST_P95 and share <= MOST_CONNECTION


def spread(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"median {middle:.3f}, half of the rounds from {low:.3f} to {high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with migrated_and_filled() as environment, serve_app(environment) as server:
        met = asyncio.run(measured(server, environment, options.rounds))
    sys.exit(not met)


if __name__ == "__main__":
    main()
