"""Takes a service that people use from stage to stage and back, with the runbooks' own commands.

    uv run python benchmarks/live_climb --html climb.html

Prints a row a step and exits 1 if a request failed, or a write, a file or a login was lost.
"""

import argparse
import asyncio
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import journey
import report
from ledger import Counts, Ledger
from place import Place, PlaceError
from runbook import Block, RunbookError, blocks
from visitors import Load

STEP_SECONDS = 600
PRODUCTS = """
INSERT INTO products (name, description, price_cents, stock)
SELECT 'Product ' || n, repeat('Well made. ', 10), n, 1000000 FROM generate_series(1, 200) n
"""
TABLES = {"orders": "id", "reviews": "id", "uploads": "id", "accounts": "email"}


class StepError(Exception):
    """Says where the climb stands, and what the commands said."""


class Climb:
    def __init__(self, folder: Path, top: int, visitors: int, rate: float, requests: int) -> None:
        self.place = Place(folder)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.steps: list[Counts] = []
        self._legs = [leg for leg in journey.LEGS if leg.stage <= top]
        self._visitors, self._rate, self._requests = visitors, rate, requests
        self._first = ""
        self._advances: list[str] = []
        self._functions = ""

    def prepare(self, template: Path | None) -> None:
        folder = self.place.folder
        if template is None:
            template = journey.template_of(folder / "template")
        repo = self.place.repo
        journey.new_repo(repo, template)
        self._first = journey.run(repo, "git", "rev-parse", "HEAD").strip()
        self._advances = [journey.advance(repo, leg) for leg in self._legs]
        self.place.prepare()

    async def run(self) -> None:
        repo = self.place.repo
        page = repo / "docs/runbooks/deploy.md"
        self._functions = "\n".join(one.commands for one in blocks(page))
        proxy = re.search(r"```haproxy\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        if proxy is None:
            raise RunbookError(f"{page}: there is no configuration of HAProxy in it.")
        self.place.start_balancer(proxy[1])
        await self._executed(f'release {self._first}\ndeploy "$ONE" "$TWO"', "the first deploy")
        self.place.query(PRODUCTS)
        load = Load(self.place.url, self.ledger, self._visitors, self._rate)
        load.start()
        print(report.HEAD, flush=True)
        try:
            await asyncio.sleep(3)  # everybody has logged in
            await self._measured(load, "stage 1, nothing happens", None)
            ways_back = []
            for leg, advance in zip(self._legs, self._advances, strict=True):
                journey.take(repo, advance)
                ways_back.append((leg.stage - 1, advance, journey.steps(repo, leg, back=True)))
                for step in journey.steps(repo, leg, back=False):
                    await self._measured(load, step.name, step)
                await self._measured(load, f"stage {leg.stage}, nothing happens", None)
            for stage, advance, way_back in reversed(ways_back):
                self.place.variables["ADVANCE"] = advance
                for step in way_back:
                    await self._measured(load, step.name, step)
                await self._measured(load, f"stage {stage} again, nothing happens", None)
        finally:
            await load.stop()
        self.steps[-1].lost += await load.files_that_are_lost()

    async def _measured(self, load: Load, name: str, step: Block | None) -> None:
        """Runs a step while people use the service, then looks for what they wrote."""
        load.counts = counts = Counts(name)
        begun = time.perf_counter()
        load.announced = step is not None and step.restarts_postgres
        if step is None:
            await asyncio.sleep(self._requests / self._rate)
        else:
            await self._executed(step.commands, name)
        if load.announced:
            await self._until_all_is_well(load)
        counts.seconds = time.perf_counter() - begun
        counts.lost += await asyncio.to_thread(self._lost_rows)
        self.steps.append(counts)
        print(report.row(counts), flush=True)

    async def _until_all_is_well(self, load: Load) -> None:
        """The two processes were taken out of rotation while Postgres was away."""
        for name in ("ONE", "TWO"):
            line = f"^app,{self.place.variables[name]},.*,UP,"
            seen = f'curl -fsS "$BALANCER/;csv" | grep -q "{line}"'
            await self._executed(f"timeout 60 sh -c 'until {seen}; do sleep 0.1; done'", "waiting")
        load.announced = False

    def _lost_rows(self) -> int:
        """Those noted before Postgres was asked."""
        lost = 0
        for table, key in TABLES.items():
            noted = set(self.ledger.rows.get(table, self.ledger.accounts))
            there = set(self.place.query(f"SELECT {key} FROM {table}"))  # noqa: S608  # our names
            if gone := noted - there:
                self.ledger.seen.append(f"lost: {len(gone)} of {table}, {sorted(gone)[:3]}")
                lost += len(gone)
        return lost

    async def _executed(self, commands: str, name: str) -> None:
        log = self.place.folder / "commands.log"
        script = f'{self._functions}\ncd -P "$SITE"/release 2>/dev/null || cd "$SITE"\n{commands}\n'
        with log.open("ab") as output:
            output.write(f"\n== {name}\n{commands}\n".encode())
            output.flush()
            begins = output.tell()
            command = ["bash", "-e", "-o", "pipefail", "-c", script]
            process = self.place.start(command, output)
            try:
                status = await asyncio.to_thread(process.wait, STEP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        if status != 0:
            said = log.read_bytes()[begins:].decode(errors="replace")[-2000:]
            raise StepError(f"The climb stands at {name!r}:\n{commands}\n\n{said}")


async def reaping(place: Place) -> None:
    while True:
        place.adopt()
        await asyncio.sleep(0.05)


async def climbed(climb: Climb) -> None:
    reaper = asyncio.create_task(reaping(climb.place))
    try:
        await climb.run()
    finally:
        reaper.cancel()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top = journey.LEGS[-1].stage
    arguments.add_argument("--to", type=int, default=top, choices=range(2, top + 1), help="a stage")
    arguments.add_argument("--visitors", type=int, default=16)
    arguments.add_argument("--rate", type=float, default=80, help="requests a second")
    arguments.add_argument("--requests", type=int, default=800, help="in each quiet step")
    arguments.add_argument("--html", type=Path, help="write a page with the time line")
    arguments.add_argument("--template", type=Path, help="a tagged template, not the working tree")
    options = arguments.parse_args()
    # Postgres' own user must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="live-climb-"))
    folder.chmod(0o755)
    climb = Climb(folder, options.to, options.visitors, options.rate, options.requests)
    stands = ""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        climb.prepare(options.template)
        asyncio.run(climbed(climb))
    except (StepError, RunbookError, PlaceError, journey.JourneyError) as error:
        stands = str(error)
    except KeyboardInterrupt:
        stands = f"Stopped after {len(climb.steps)} steps."
    finally:
        climb.place.stop()
    print(report.row(report.total(climb.steps)))
    for one in climb.ledger.seen[:20]:
        print(one)
    if options.html:
        report.write_page(options.html, climb.steps, climb.ledger.seen)
    if stands:
        print(f"{stands}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    if not all(one.is_clean for one in climb.steps):
        print(f"A client saw a fault. The logs are in {folder}.", file=sys.stderr)
        return 1
    with suppress(OSError):
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
