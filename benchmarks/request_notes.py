"""The cost of the notes for `rung doctor`, as a share of a request's processor time.

In a generated repo:

    uv run python ../rung/benchmarks/request_notes.py

It alternates between requests for a product, served in this process on a Postgres that it starts,
and the notes that such a request takes. The median of 9 turns must stay below 2%.
"""

import os
import statistics
import sys
import time
from pathlib import Path
from uuid import uuid4

import uvloop
from httpx import ASGITransport, AsyncClient
from pydantic_core import to_json
from serving import migrated_and_filled

sys.path.insert(0, str(Path.cwd()))

MOST = 0.02
TURNS, REQUESTS, NOTES = 9, 1000, 20_000
LINE = {"event": "request", "method": "GET", "route": "/products/{id}", "status": 200}


def notes() -> float:
    """Processor seconds of the notes of one request with one read."""
    from app.infra.database_use import DatabaseUse, this_request
    from app.infra.freshness import RepeatedReads

    reads, key = RepeatedReads(), (uuid4(),)
    began = time.process_time()
    for _ in range(NOTES):
        to_json(LINE)
    plain = time.process_time() - began
    began = time.process_time()
    for _ in range(NOTES):
        use = DatabaseUse()
        this_request.set(use)
        reads.note(notes, key, {}, 60.0)
        asked = time.perf_counter()
        connected = time.perf_counter()
        this_request.get().note(asked, connected)
        to_json(
            {
                **LINE,
                "db_calls": use.calls,
                "db_ms": round(use.seconds * 1000, 1),
                "db_wait_ms": round(use.wait_seconds * 1000, 1),
            }
        )
    return (time.process_time() - began - plain) / NOTES


async def measure() -> tuple[list[float], list[float]]:
    from app.main import create_app

    app = create_app()
    taken: tuple[list[float], list[float]] = ([], [])
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="https://shop.test") as client,
    ):
        [listed] = (await client.get("/products", params={"limit": 1})).json()["products"]
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": f"/products/{listed['id']}",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
        }

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b""}

        async def send(_: object) -> None: ...

        for _ in range(TURNS):
            began = time.process_time()
            for _ in range(REQUESTS):
                await app({**scope, "state": {}}, receive, send)
            taken[0].append((time.process_time() - began) / REQUESTS)
            taken[1].append(notes())
    return taken


def main() -> None:
    with (
        migrated_and_filled() as environment,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
    ):
        os.environ.update(environment | {"LOG_FORMAT": "json"})
        shown, sys.stdout = sys.stdout, nowhere
        request, own = (statistics.median(turns) for turns in uvloop.run(measure()))
        sys.stdout = shown
    share = own / request
    print("| a request | its notes | share | at most |\n|---|---|---|---|")
    print(f"| {request * 1e6:.0f} µs | {own * 1e6:.1f} µs | {share:.1%} | {MOST:.0%} |")
    sys.exit(share > MOST)


if __name__ == "__main__":
    main()
