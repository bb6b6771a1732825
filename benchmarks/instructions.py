"""Processor instructions of a request, as multiples of those of a bare FastAPI's hello.

In a generated repo of any stage, with valgrind installed:

    uv run python ../rung/benchmarks/instructions.py [--json]

Unlike a time, a count is nearly the same on every machine, busy or not. From stage 3 the item and
the page come from the cache.
"""

import argparse
import asyncio
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import uvloop
from fastapi import FastAPI
from in_process import Route, routes
from serving import migrated_and_filled

sys.path.insert(0, str(Path.cwd()))

from dev import services

# The difference of two counts drops the work of starting and of being counted.
FEW, MANY = 5, 25
# A cached answer expires, and other work of a clock comes now and then. A median drops what few
# of the counts have.
TIMES = 5
# Until then Python specializes its code, pools open connections, and caches fill.
UNCOUNTED = 200

# The app's telemetry would take in this one.
hello = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})


@hello.get("/hello")
async def say_hello() -> dict[str, str]:
    return {"hello": "world"}


async def count_requests() -> None:
    """Runs under valgrind."""
    from app.infra import process_log
    from app.main import create_app

    # Every 0.1 s it looks at the pools: on a busy machine, several times for each order.
    process_log.LOOK_SECONDS = 3600
    app = create_app()
    async with app.router.lifespan_context(app):
        await asyncio.sleep(1)  # replicas and the cache are looked at first
        counted = {"hello": Route(hello, "/hello"), **await routes(app)}
        for route in counted.values():
            for _ in range(UNCOUNTED):
                await route.ask()
        gc.disable()  # it comes by chance
        callgrind("--instr=on")
        for name, route in counted.items():
            for number in (FEW, MANY) * TIMES:
                callgrind("--zero")
                for _ in range(number):
                    await route.ask()
                callgrind(f"--dump={name} {number}")
        callgrind("--instr=off")


def callgrind(command: str) -> None:
    subprocess.run(
        ["callgrind_control", command, str(os.getpid())], stdout=subprocess.DEVNULL, check=True
    )


def counts() -> dict[str, int]:
    """Instructions of one request, by route."""
    with (
        tempfile.TemporaryDirectory() as folder,
        migrated_and_filled() as given,
        services.environment(given) as environment,
    ):
        subprocess.run(
            [
                *("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no"),
                f"--callgrind-out-file={folder}/counted",
                *(sys.executable, __file__, "--under-valgrind"),
            ],
            env={
                **environment,
                "OTEL_TRACES_SAMPLER": "always_off",
                # Under valgrind a busy machine takes seconds to open a connection.
                "DATABASE_CONNECT_SECONDS": "60",
                "DATABASE_POOL_WAIT_SECONDS": "60",
                "DATABASE_STATEMENT_SECONDS": "60",
                "CACHE_OPERATION_SECONDS": "10",
                # Else sets have another order each time, and each start compiles all files.
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "",
            },
            stdout=subprocess.DEVNULL,
            check=True,
        )
        totals = defaultdict[tuple[str, int], list[int]](list)
        for dump in Path(folder).iterdir():
            text = dump.read_text(encoding="utf-8")
            if named := re.search(r"Trigger: dump (\w+) (\d+)", text):
                [total] = re.findall(r"^totals: (\d+)", text, re.MULTILINE)
                totals[named[1], int(named[2])].append(int(total))
    return {
        name: int(median(totals[name, MANY]) - median(totals[name, FEW])) // (MANY - FEW)
        for name in sorted({name for name, _ in totals})
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--under-valgrind", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.under_valgrind:
        uvloop.run(count_requests())
        return
    found = counts()
    of_hello = {name: round(count / found["hello"], 2) for name, count in found.items()}
    if options.json:
        print(json.dumps(of_hello))
        return
    print("| route | instructions a request | of hello |\n|---|---|---|")
    for name, count in found.items():
        print(f"| {name} | {count:,} | {of_hello[name]} |")


if __name__ == "__main__":
    main()
