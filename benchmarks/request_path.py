"""How much of the code in `app` one request enters: files, and calls.

In a generated repo of stage 4:

    uv run python ../rung/benchmarks/request_path.py [--path]

It serves the app in this process, on servers that it starts. With sys.monitoring it counts each
Python function of `app` that one GET of a product enters: once from the cache, once past it.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

from httpx import ASGITransport, AsyncClient
from serving import migrated_and_filled

sys.path.insert(0, str(Path.cwd()))

from dev import services

MOST = {"hit": (11, 40), "miss": (17, 80)}
TRIES = 5
APP = Path.cwd() / "app"

# The cache has time to answer, also on a busy machine.
SETTINGS = {
    "CACHE_OPERATION_SECONDS": "10",
    "OTEL_TRACES_SAMPLER": "always_off",
    "LOG_LEVEL": "ERROR",
}
TOOL = sys.monitoring.PROFILER_ID


@contextmanager
def entered() -> Iterator[list[CodeType]]:
    """The functions of `app` that start during the call, in order."""
    calls: list[CodeType] = []

    def note(code: CodeType, _: int) -> object:
        if not code.co_filename.startswith(f"{APP}/"):
            return sys.monitoring.DISABLE
        calls.append(code)
        return None

    sys.monitoring.use_tool_id(TOOL, "request path")
    sys.monitoring.register_callback(TOOL, sys.monitoring.events.PY_START, note)
    sys.monitoring.set_events(TOOL, sys.monitoring.events.PY_START)
    try:
        yield calls
    finally:
        sys.monitoring.set_events(TOOL, sys.monitoring.events.NO_EVENTS)
        sys.monitoring.free_tool_id(TOOL)
        sys.monitoring.restart_events()


async def measure() -> dict[str, list[CodeType]]:
    from app.main import create_app

    app = create_app()
    paths = {}
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="https://shop.test") as client,
    ):
        listed = (await client.get("/products", params={"limit": 20})).json()["products"]
        await asyncio.sleep(1)  # replicas and the cache are looked at first
        for name in ("miss", "hit"):
            found = [await calls_of(client, f"/products/{one['id']}") for one in listed[:TRIES]]
            paths[name] = min(found, key=len)
    return paths


async def calls_of(client: AsyncClient, path: str) -> list[CodeType]:
    with entered() as calls:
        answer = await client.get(path)
    if answer.status_code != 200:
        sys.exit(f"The app answered {answer.status_code}: {answer.text}")
    return calls


def place(code: CodeType) -> str:
    return f"{Path(code.co_filename).relative_to(Path.cwd())}:{code.co_qualname}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", action="store_true", help="print each call, too")
    shown = parser.parse_args().path
    with migrated_and_filled() as given, services.environment(given) as environment:
        os.environ.update(environment | SETTINGS)
        paths = asyncio.run(measure())
    too_long = False
    print("| GET /products/{id} | files | calls | at most |\n|---|---|---|---|")
    for name, calls in paths.items():
        files = len({code.co_filename for code in calls})
        most = MOST[name]
        too_long |= files > most[0] or len(calls) > most[1]
        print(f"| {name} | {files} | {len(calls)} | {most[0]}, {most[1]} |")
        if shown:
            print("\n".join(f"    {place(code)}" for code in calls))
    sys.exit(too_long)


if __name__ == "__main__":
    main()
