"""Follows the runbooks of an operator's year, page by page, while people use the service.

Runs in a generated repo of stage 4 with replicas, beside the live climb's modules:
python -m operators_year.drive
"""

import asyncio
import json
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev import postgres
from dev.cache import valkey
from dev.s3 import rclone
from redis import AuthenticationError, Redis
from redis.connection import parse_url

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

from browser import Browser
from ledger import Counts, Ledger
from place import Place
from runbook import blocks
from visitors import Load, Visitor

SECONDS = 300
PRODUCTS = """
INSERT INTO products (name, description, price_cents, stock)
SELECT 'Product ' || n, 'Well made.', 10, 1000000 FROM generate_series(1, 100) n
"""
FAILOVER = "replicas/failover.md"
UNLOCKING = "../../app/accounts/unlocking.md"
ADDRESS = "127.3.0.1"
GUESSES = 10  # the limit for one account from one address
WRITTEN = "SELECT id FROM orders UNION ALL SELECT id FROM uploads"


class RotatingS3(rclone.S3):
    """Accepts each pair that it is given, as Amazon accepts two of a user."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, remove=True)
        self.pairs: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        pairs = self.pairs or {rclone.KEY_ID: self.password}
        keys = ",".join(f'"{name},{secret}"' for name, secret in pairs.items())
        return {**super().environment(), "RCLONE_AUTH_KEY": keys}


class Person(Visitor):
    async def _review(self) -> None:
        """The repo has no such module."""


class Site(Place):
    """A service of stage 4 with a pooler and a replica, set up by its own runbooks."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder)
        self.repo = postgres.REPOSITORY
        self.pages = self.repo / "docs/runbooks"
        self.seconds: dict[str, float] = {}
        self.followed: list[str] = []
        self.executed: set[str] = set()
        self._functions = ""
        self._stack = stack

    def prepare(self) -> None:
        super().prepare()
        page = self.pages / "deploy.md"
        self._functions = "\n".join(one.commands for one in blocks(page))
        [balancer] = blocks(page, "haproxy")
        self.start_balancer(balancer.commands)
        (self.site / "release").symlink_to(self.repo)
        self._start_the_servers_of_later_stages()
        # Their deploys are those of the live climb.
        for name, step in (("to-stage-2.md", "3. The pooler"), ("replicas/add-a-replica.md", "1.")):
            self.follow(name, step, "do", only=lambda commands: "deploy " not in commands)
        self._before_the_first_deploy()
        self.follow_text('in_app alembic upgrade head\ndeploy "$ONE" "$TWO"')
        self.query(PRODUCTS)

    def _before_the_first_deploy(self) -> None:
        """Another drive has more to prepare."""

    def _start_the_servers_of_later_stages(self) -> None:
        self.cache = self._stack.enter_context(valkey.running("cache"))
        sessions_url = self._start_the_session_redis()
        self.s3 = RotatingS3(postgres.own_folder("s3"))
        self._stack.enter_context(self.s3.running())
        self.s3.die()
        self.s3.pairs = {rclone.KEY_ID: self.s3.password, "rotated": secrets.token_hex(16)}
        self.s3.start()
        pooled = self.variables["POOLED"]
        settings = {
            **{"DATABASE_POOLED": "true", "DATABASE_URL": f"{pooled}/app"},
            "DATABASE_READ_URL": f"{pooled}/app_read",
            "DATABASE_REPLICA_URLS": f"{pooled}/app_replica",
            "DATABASE_DIRECT_URL": self.variables["DIRECT"],
            **{"CACHE_URL": self.cache.url, "SESSION_REDIS_URL": sessions_url},
            "SESSION_STORE": "redis",
            **self.s3.variables(),
            "FILES_STORE": "read-both",  # links to files are signed until S3 takes uploads
            "FILES_ROWS": "SELECT key, sha256 FROM uploads",
            # `deploy` tells HAProxy.
            "DRAIN_SECONDS": "0",
        }
        with (self.site / "app.env").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in settings.items())

    def _start_the_session_redis(self) -> str:
        return self._stack.enter_context(valkey.running("sessions")).url

    def settings(self) -> list[str]:
        return sorted((self.site / "app.env").read_text(encoding="utf-8").splitlines())

    def follow(
        self,
        page: str,
        section: str,
        part: str = "",
        only: Callable[[str], bool] = lambda _: True,
        *,
        deploys: bool = True,
    ) -> str:
        """The output of a section's commands and checks, or of its way back, in one shell."""
        parts = (part,) if part else ("do", "check")
        all_blocks = blocks(self.pages / page)
        chosen = [
            one
            for one in all_blocks
            if one.section.startswith(section) and one.part in parts and only(one.commands)
        ]
        assert chosen, f"{page} has no commands in {section!r}"
        found = [one.commands for one in chosen]
        functions = [one.commands for one in all_blocks if not one.section]
        if not deploys:
            found = [re.sub("(?m)^deploy .*", "", commands) for commands in found]
        begun = time.perf_counter()
        at = datetime.now(UTC)
        said = self.follow_text("\n".join(functions + found))
        self.seconds[f"{page} {section}"] = round(time.perf_counter() - begun, 1)
        self.executed |= {f"{page} {one.section.split()[0]} {one.part}" for one in chosen}
        self.followed.append(f"{at:%T.%f} to {datetime.now(UTC):%T.%f} {page} {section} {part}")
        return said

    def is_undone(self, page: str, section: str) -> bool:
        """Whether the way back restores the settings. No process is deployed in between."""
        before = self.settings()
        self.follow(page, section, "do", deploys=False)
        changed = self.settings() != before
        self.follow(page, section, "back", deploys=False)
        return changed and self.settings() == before

    def follow_text(self, commands: str) -> str:
        log = self.folder / "commands.log"
        # A wait may fail without a word.
        trap = "trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR"
        script = f'{trap}\n{self._functions}\ncd -P "$SITE/release"\n{commands}\n'
        with log.open("ab") as output:
            begins = output.tell()
            command = ["bash", "-Eeu", "-o", "pipefail", "-c", script]
            status = self.start(command, output).wait(SECONDS)
        said = log.read_bytes()[begins:].decode(errors="replace")
        if status != 0:
            raise AssertionError(f"{commands}\n\n{said[-3000:]}")
        return said


class People:
    """Use the service from one page to the next, and are counted for each."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.ledger = Ledger(site.folder / "ledger.jsonl")
        self.load = Load(site.url, self.ledger, 8, 20)
        self.load._visitors = [Person(self.load, number) for number in range(8)]
        self.steps: list[Counts] = []

    async def while_they_use_it(self, name: str, following: Callable[[], Any]) -> Any:
        self.load.counts = counts = Counts(name)
        begun = time.perf_counter()
        answer = await asyncio.to_thread(following)
        counts.seconds = time.perf_counter() - begun
        noted = self.ledger.rows["orders"] | self.ledger.rows["uploads"]
        there = await asyncio.to_thread(self._site.query, WRITTEN)
        counts.lost += len(noted - set(there))
        self.steps.append(counts)
        return answer

    async def until_all_are_there(self) -> None:
        async with asyncio.timeout(SECONDS):
            await self.load.until_all_are_logged_in()

    async def until_used(self, requests: int) -> None:
        """Waits for this many more requests."""
        wanted = len(self.load.counts.milliseconds) + requests
        async with asyncio.timeout(SECONDS):
            while len(self.load.counts.milliseconds) < wanted:
                await asyncio.sleep(0.05)

    def report(self) -> dict[str, Any]:
        return {
            one.name: {
                **asdict(one),
                "milliseconds": None,
                "requests": len(one.milliseconds),
            }
            for one in self.steps
        }

    def evidence(self) -> list[str]:
        """The faults, the app's log lines about them, and the time of each section."""
        seen = self.ledger.seen
        requests = re.findall(r" ([0-9a-f-]{32,36})$", "\n".join(seen), re.MULTILINE)
        about = re.compile("|".join(('"level":"(?:warning|error)"', *requests)))
        logged = [
            f"{file.name} {line}"
            for file in self._site.site.glob("[0-9]*.log")
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
            if about.search(line)
        ]
        return [*seen, *self._site.followed, *logged] if seen else []


def refused(site: Site, url: str) -> bool:
    # Not by subprocess: the reaper would take its exit code.
    with (site.folder / "psql.log").open("ab") as log:
        return site.start(["psql", url, "-XAtc", "SELECT 1"], log).wait(SECONDS) != 0


def follow_rotation(site: Site, step: str) -> None:
    page, number = step.split()
    site.follow("rotation.md" if page == "rotation" else f"{page}/rotation.md", f"{number}.")


def rotate(site: Site) -> dict[str, Any]:
    site.variables |= {
        "OLD_ROLE": "app",
        "NEW_ROLE": "app_2",
        "REDIS": "CACHE_URL SESSION_REDIS_URL",
        "NEW_ACCESS_KEY": "rotated",
        "NEW_SECRET_ACCESS_KEY": site.s3.pairs["rotated"],
        **{f"NEW_{what}PASSWORD": secrets.token_hex(16) for what in ("", "REDIS_", "REPLICATOR_")},
    }
    before = site.settings()
    undone = {"both are accepted": site.is_undone("rotation.md", "1.")}
    for step in ("rotation 1", "pooling 1", "cache 1"):
        follow_rotation(site, step)
    undone["a Redis accepts both"] = redis_is_undone(site)
    follow_rotation(site, "s3 1")
    both = site.settings()
    for step in ("cache 2", "s3 2"):
        follow_rotation(site, step)
    site.is_undone("rotation.md", "2.")
    undone["the new ones are used"] = site.settings() == both
    for step in ("cache 2", "s3 2"):
        follow_rotation(site, step)
    # The links of step 1 lead to the app, those of step 2 to S3.
    site.follow_text("settings FILES_STORE=upload-to-s3")
    for step in ("rotation 2", "pooling 3", "cache 3", "rotation 3", "replicas 1"):
        follow_rotation(site, step)
    undone["the old role is locked"] = old_role_is_let_in_again(site)
    secret = re.compile(r"(SECRET_KEY|DATABASE_.*URLS?|CACHE_URL|SESSION_REDIS_URL|AWS_.*)=")
    left = sorted(set(before) & set(site.settings()))
    return {
        "left of the old": [line for line in left if secret.match(line)],
        "undone": undone,
        "the old role is refused": refused(site, site.variables["DIRECT"]),
    }


def redis_is_undone(site: Site) -> bool:
    """The new password is refused, and accepted again for the steps that follow."""
    answers = []
    for part in ("back", "do"):
        site.follow("cache/rotation.md", "1.", part)
        server = parse_url(site.cache.url) | {"password": site.variables["NEW_REDIS_PASSWORD"]}
        with Redis(**server) as redis:
            try:
                answers.append(redis.ping())
            except AuthenticationError:
                answers.append(False)
    return answers == [False, True]


def old_role_is_let_in_again(site: Site) -> bool:
    site.variables["OLD_PASSWORD"] = re.split("[:@]", site.variables["DIRECT"])[2]
    site.follow("rotation.md", "3.", "back")
    is_let_in = not refused(site, site.variables["DIRECT"])
    site.follow("rotation.md", "3.", "do", deploys=False)
    return is_let_in


def move(site: Site) -> None:
    """Planned, and the old primary becomes the replica."""
    site.variables["TO_REPLICA"] = way_to_the_replica(site)
    site.follow(FAILOVER, "1.")
    site.follow(FAILOVER, "3.")
    site.exchange_primary_and_replica()


def lose_the_primary(site: Site) -> dict[str, Any]:
    """Its last commits have not reached the replica."""
    site.query("CREATE TABLE notes (id int)")
    site.query("ALTER ROLE replicator NOLOGIN")
    site.follow_text('wait_until psql "$REPLICA" -XAtc "SELECT FROM notes"')
    site.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    for _ in range(3):
        site.query("INSERT INTO notes VALUES (1)")
    stop = site.variables["STOP_POSTGRES"]
    site.variables["STOP_POSTGRES"] = f"{stop}-at-once"
    data = site.variables["POSTGRES_DATA"]
    site._program(f"{stop}-at-once", f"pg_ctl -D {data} -w -m immediate stop")
    said = site.follow(FAILOVER, "2.")
    site.variables["STOP_POSTGRES"] = stop
    site.exchange_primary_and_replica()
    there = site.query("SELECT id FROM notes")
    site.query("ALTER ROLE replicator LOGIN")  # the replica may have learned of it
    site.exchange_primary_and_replica()
    site.follow(FAILOVER, "3.")
    site.exchange_primary_and_replica()
    return {"listed as lost": said.count(" COMMIT "), "lost": 3 - len(there)}


def way_to_the_replica(site: Site) -> str:
    port = re.findall(r"port=(\d+)", site.variables["REPLICA_PLACE"])[0]
    password = site.variables["NEW_REPLICATOR_PASSWORD"]
    return f"host=127.0.0.1 port={port} user=replicator password={password}"


async def unlock(site: Site) -> list[int]:
    """The answers to the owner of an account: at its limit, and after each way to unlock it."""
    email, right = "locked@example.com", "the secret of somebody locked"
    somebody = Browser(site.url, ADDRESS)

    async def post(path: str, password: str) -> int:
        person = json.dumps({"email": email, "password": password}).encode()
        json_type = {"Content-Type": "application/json"}
        somebody.close()  # HAProxy closes it after 30 idle seconds
        return (await somebody.ask("POST", path, person, json_type)).status

    answers = [await post("/accounts", right)]
    for section in ("2.", "3."):
        for _ in range(GUESSES):
            await post("/session", "a wrong password")
        answers.append(await post("/session", right))
        counted = site.follow(UNLOCKING, "1.")
        assert f"account:{email} address:{ADDRESS}" in counted
        site.variables |= {"EMAIL": email, "ADDRESS": ADDRESS}
        site.follow(UNLOCKING, section)
        answers.append(await post("/session", right))
    somebody.close()
    return answers


async def year(site: Site) -> dict[str, Any]:
    async with prepared(site):
        people = People(site)
        people.load.start()
        try:
            await people.until_all_are_there()
            unlocked = await people.while_they_use_it(
                "an account is unlocked", lambda: asyncio.run(unlock(site))
            )
            rotated = await people.while_they_use_it("rotation", lambda: rotate(site))
            # On a busy machine the pause may be longer than people wait.
            people.load.announced = True
            await people.while_they_use_it("a planned failover", lambda: move(site))
        finally:
            await people.load.stop()
        site.variables["TO_REPLICA"] = way_to_the_replica(site)
        lost = await asyncio.to_thread(lose_the_primary, site)
        they = People(site)
        they.load.start()
        await they.while_they_use_it("after a failover", lambda: None)
        await they.until_all_are_there()
        await they.load.stop()
    return {
        "an owner is answered": unlocked,
        "rotation": rotated,
        "primary lost": lost,
        "people": people.report() | they.report(),
        "evidence": people.evidence() + they.evidence(),
        "seconds": site.seconds,
    }


@asynccontextmanager
async def prepared(site: Site) -> AsyncGenerator[None]:
    """Processes of it that end are reaped in this time."""
    reaper = asyncio.create_task(_reaping(site))
    try:
        await asyncio.to_thread(site.prepare)
        yield
    finally:
        reaper.cancel()


async def _reaping(site: Site) -> None:
    while True:
        site.adopt()
        await asyncio.sleep(0.01)


def report_on[SiteT: Site](
    make_site: Callable[[Path, ExitStack], SiteT],
    follow: Callable[[SiteT], Coroutine[Any, Any, dict[str, Any]]],
) -> None:
    """Prints what `follow` reports, on a new site that is removed afterwards."""
    # Postgres' own user must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="runbook-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        site = make_site(folder, stack)
        try:
            report = asyncio.run(follow(site))
        finally:
            site.stop()
    print(json.dumps(report | {"executed": sorted(site.executed)}))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    report_on(Site, year)
