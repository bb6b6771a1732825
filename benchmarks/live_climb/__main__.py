"""Takes a service that people use from stage to stage and back, with the runbooks' own commands.

    uv run python benchmarks/live_climb --html climb.html

Prints a row a step and exits 1 if a request failed, or a write, a file or a login was lost.
"""

import argparse
import asyncio
import math
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
from kills import FAULTS, Fault
from ledger import Counts, Ledger
from place import Place, PlaceError
from plan import ResumeError, Stand, Step, begin_again, refuse_out_of_order, steps_of
from runbook import RunbookError, blocks, followed, section_of
from visitors import GoneWrongError, Load

STEP_SECONDS = 600
FAILOVER = "docs/runbooks/replicas/failover.md"
SECONDS_UNTIL_WRITTEN = 2
PRODUCTS = """
INSERT INTO products (name, description, price_cents, stock)
SELECT 'Product ' || n, repeat('Well made. ', 10), n, 1000000 FROM generate_series(1, 200) n
"""
ROWS = {
    "orders": "SELECT id FROM orders",
    "reviews": "SELECT id FROM reviews",
    "uploads": "SELECT id FROM uploads WHERE completed_at IS NOT NULL",
    "accounts": "SELECT email FROM accounts",
}


class StepError(Exception):
    """Prints the place of the climb and the output of the commands."""


class Climb:
    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        folder = stand.file.parent
        self.place = Place(folder)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self._functions = ""
        self._printed = len(stand.done)

    def prepare(self, template: Path | None) -> None:
        folder, stand = self.place.folder, self.stand
        if stand.faults and stand.top == 4 and shutil.which("redis-cli") is None:
            raise PlaceError("Install redis-cli: apt-get install redis-tools")
        if template is None:
            template = journey.template_of(folder / "template")
        repo = self.place.repo
        journey.new_repo(repo, template)
        stand.first = journey.head(repo)
        legs = [leg for leg in journey.LEGS if leg.stage <= stand.top]
        stand.advances = [journey.advance(repo, leg) for leg in legs]
        self.place.prepare()
        if stand.is_yielding:
            self.place.variables["YIELD"] = "nice"

    async def run(self) -> None:
        repo, stand = self.place.repo, self.stand
        steps = steps_of(repo, stand)
        refuse_out_of_order(steps, stand)
        journey.take(repo, stand.advances[-1])
        page = repo / "docs/runbooks/deploy.md"
        self._functions = "\n".join(one.commands for one in blocks(page))
        if stand.head:
            await self._go_on(steps)
        else:
            await self._begin(page)
        load = Load(self.place.url, self.ledger, stand.visitors, stand.rate, stand.reads)
        self.place.prefer_the_clients()
        load.start()
        print(report.HEAD, flush=True)
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await load.keep_sessions()
            while stand.next < len(steps):
                await self._take(load, steps[stand.next])
        finally:
            await load.stop()
        load.counts = stand.done[-1]
        await load.read_all_files()
        stand.done[-1].logged_out += await load.sessions_that_are_lost()

    async def _begin(self, page: Path) -> None:
        [proxy] = blocks(page, "haproxy")
        self.place.start_balancer(proxy.commands)
        first = f'release {self.stand.first}\ndeploy "$ONE" "$TWO"'
        await self._executed(first, "the first deploy")
        self.place.query(PRODUCTS)

    async def _go_on(self, steps: list[Step]) -> None:
        stand = self.stand
        journey.take(self.place.repo, stand.head)
        self.place.start_again(stand.variables)
        await self._executed('deploy "$ONE" "$TWO"', "the deploy after a stop")
        if stand.next == len(steps):
            print("All steps are done.", flush=True)
            return
        cut = ", which was cut" if stand.is_begun else ""
        print(f"The climb stands at {steps[stand.next].name}{cut}.")
        for undone in begin_again(steps, stand):
            print(f"First its way back: {undone.name}.")
            with suppress(StepError):  # as far as it was begun
                await self._executed(f"set +e\n{undone.commands}", undone.name)
        print(f"It goes on with {steps[stand.next].name}.", flush=True)

    async def _take(self, load: Load, step: Step) -> None:
        """Runs a step while people use the service, then looks for their writes."""
        stand = self.stand
        if step.merged:
            journey.take(self.place.repo, step.merged)
        if step.reverted:
            self.place.variables["ADVANCE"] = step.reverted
        stand.head, stand.is_begun = journey.head(self.place.repo), True
        stand.variables = self.place.variables
        stand.write()
        load.counts = counts = Counts(step.name)
        begun = time.perf_counter()
        load.announced = step.action is not None and step.action.is_announced
        if stand.faults:
            load.may_fail = step.action.may_fail if isinstance(step.action, Fault) else ""
        if step.action is None:
            wanted = stand.requests_of_a_quiet_step()
            while len(counts.milliseconds) < wanted:
                await asyncio.sleep(min(1.0, wanted / stand.rate / 10))
        elif isinstance(step.action, Fault) and step.action.failover:
            await self._fail_over(load, step.action)
        else:
            await self._executed(step.action.commands, step.name)
        if isinstance(step.action, Fault):
            self.place.exchange(step.action.exchanged)
        if load.announced:
            await self._until_all_is_well(load)
        load.url = self.place.url
        counts.seconds = time.perf_counter() - begun
        counts.lost += await asyncio.to_thread(self._lost_rows)
        stand.done.append(counts)
        stand.next, stand.is_begun = stand.next + 1, False
        stand.write()
        self.print_rows(len(stand.done) - 1)

    async def _fail_over(self, load: Load, fault: Fault) -> None:
        """To the replica. The old primary comes back as a replica of the new one."""
        page, ended = self.place.repo / FAILOVER, len(self.ledger.ended)
        load.held = [] if fault.may_lose else None
        self.ledger.written.clear()
        commands = f"{fault.commands}\n{section_of(page, fault.failover)}"
        said = await self._executed(commands, fault.name)
        exchanged = (self.place.pooler / "pgbouncer.ini").stat().st_mtime
        await self._until_all_is_well(load)
        await self._executed(section_of(page, "3."), fault.name)  # no request may fail during it
        written = [one for one in self.ledger.written if one > exchanged]
        load.counts.until_written = waited = min(written, default=math.inf) - exchanged
        if waited > SECONDS_UNTIL_WRITTEN:
            load.fault("failed", f"the first write after the failover took {waited:.1f} s")
        self.place.exchange_primary_and_replica()
        if fault.may_lose:
            await load.forget_lost_logouts(ended)
            for table, key in await asyncio.to_thread(self._rows_that_are_gone):
                self.ledger.forget(table, key)
                load.fault("lost", f"{key} of {table}")
            load.settle(len(re.findall(r"(?m)^rmgr: Transaction .* COMMIT ", said)))

    def print_rows(self, until: int) -> None:
        """A row comes one step late: requests under way at the end of its step belong to it."""
        for one in self.stand.done[self._printed : until]:
            print(report.row(one, self.stand.done[0]), flush=True)
        self._printed = until

    async def _until_all_is_well(self, load: Load) -> None:
        """The two processes may have been taken out of rotation while a server was away."""
        for name in ("ONE", "TWO"):
            line = f"^app,{self.place.variables[name]},.*,UP,"
            seen = f'curl -fsS "$BALANCER/;csv" | grep -q "{line}"'
            await self._executed(f"timeout 60 sh -c 'until {seen}; do sleep 0.1; done'", "waiting")
        load.announced = False

    def _lost_rows(self) -> int:
        if gone := self._rows_that_are_gone():
            self.ledger.seen.append(f"lost: {len(gone)}, {gone[:3]}")
        return len(gone)

    def _rows_that_are_gone(self) -> list[tuple[str, str]]:
        """Of those noted before Postgres was asked: the table and the key."""
        gone: list[tuple[str, str]] = []
        for table, sql in ROWS.items():
            noted = set(self.ledger.rows.get(table, self.ledger.accounts))
            there = set(self.place.query(sql))
            gone += [(table, one) for one in sorted(noted - there)]
        return gone

    async def _executed(self, commands: str, name: str) -> str:
        """Returns the output of the commands."""
        log = self.place.folder / "commands.log"
        commands = followed(commands, self.place.repo / "docs/runbooks")
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
            except asyncio.CancelledError:
                process.kill()  # else its end would be waited for
                raise
        said = log.read_bytes()[begins:].decode(errors="replace")
        if status != 0:
            raise StepError(f"The climb stands at {name!r}:\n{commands}\n\n{said[-2000:]}")
        return said


async def reaping(place: Place) -> None:
    while True:
        place.adopt()
        await asyncio.sleep(0.01)


async def climbed(climb: Climb) -> None:
    reaper = asyncio.create_task(reaping(climb.place))
    try:
        await climb.run()
    finally:
        reaper.cancel()


def new_stand(options: argparse.Namespace) -> Stand:
    folder = Path(tempfile.mkdtemp(prefix="live-climb-"))
    folder.chmod(0o755)  # Postgres' own user must be able to enter it
    load = (options.visitors, options.rate, options.requests)
    more = {"reads": options.reads, "total": options.total, "is_yielding": vars(options)["yield"]}
    return Stand(folder / "stand.json", options.to, *load, options.faults, **more)


def pattern_of_faults(text: str) -> str:
    try:
        found = [one for one in FAULTS if re.search(text, one.what)]
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a pattern: {error}") from error
    if not found:
        raise argparse.ArgumentTypeError(f"no fault in live_climb/kills.py matches {text!r}")
    return text


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top = journey.LEGS[-1].stage
    arguments.add_argument("--to", type=int, default=top, choices=range(2, top + 1), help="a stage")
    arguments.add_argument("--visitors", type=int, default=16)
    arguments.add_argument("--rate", type=float, default=80, help="requests a second")
    arguments.add_argument("--requests", type=int, default=800, help="in each quiet step")
    arguments.add_argument("--total", type=int, default=0, help="requests of the whole trip")
    arguments.add_argument("--reads", type=int, default=1, help="how many times as many reads")
    arguments.add_argument("--yield", action="store_true", help="starts yield to requests")
    arguments.add_argument(
        "--faults",
        nargs="?",
        type=pattern_of_faults,
        const=".",
        default="",
        metavar="PATTERN",
        help="kill servers while the service stays at a stage: all, or as the pattern says",
    )
    arguments.add_argument("--html", type=Path, help="write a page with the time line")
    arguments.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="go on with a climb that was stopped there"
    )
    arguments.add_argument("--template", type=Path, help="a tagged template, not the working tree")
    options = arguments.parse_args()
    stands = ""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        climb = Climb(Stand.of(options.resume.resolve()) if options.resume else new_stand(options))
    except ResumeError as error:
        print(error, file=sys.stderr)
        return 1
    folder, done = climb.place.folder, climb.stand.done
    print(f"The logs are in {folder}. After a kill: --resume {folder}\n", flush=True)
    try:
        if not options.resume:
            climb.prepare(options.template)
        asyncio.run(climbed(climb))
    except (TimeoutError, GoneWrongError) as error:
        stands = f"The visitors could not log in: {error}"
    except (StepError, ResumeError, RunbookError, PlaceError, journey.JourneyError) as error:
        stands = str(error)
    except KeyboardInterrupt:
        stands = f"Stopped after {len(done)} steps."
    finally:
        climb.place.stop()
    climb.print_rows(len(done))
    if done:
        print(report.row(report.total(done), done[0]))
    for one in climb.ledger.seen[:20]:
        print(one)
    if options.html:
        report.write_page(options.html, done, climb.ledger.seen)
    if stands:
        go_on = f" To go on: --resume {folder}" if climb.stand.file.exists() else ""
        print(f"{stands}\nThe logs are in {folder}.{go_on}", file=sys.stderr)
        return 1
    if not all(one.is_clean for one in done):
        print(f"A client saw a fault. The logs are in {folder}.", file=sys.stderr)
        return 1
    with suppress(OSError):
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
