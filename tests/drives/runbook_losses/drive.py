"""Follows the runbooks of what can be lost for good, and upgrades both Redis servers before.

Runs in a generated repo of stage 4 with replicas, beside the live climb's modules and
operators_year: python -m runbook_losses.drive
"""

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dev import postgres
from dev.cache import valkey
from dev.pooling.server import own_folder
from operators_year.drive import SECONDS, People, Site, reaping, report_on

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

import place
from runbook import blocks

UPGRADE = "redis_sessions/upgrade-valkey.md"
UPGRADE_CACHE = "cache/upgrade-valkey.md"
LOSS = "redis_sessions/loss.md"
HOST = "127.0.0.1"
# Its address changes while it runs.
THE_NAME = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
global
    stats socket ipv4@127.0.0.1:{orders} level admin
listen sessions
    bind 127.0.0.1:{port}
    server now 127.0.0.1:{first}
"""


class OlderRedis(valkey.Valkey):
    """Redis 7: the binary of Debian's redis-tools is a server when it is called so."""

    def command(self) -> list[str | Path]:
        found = shutil.which("redis-check-rdb")
        assert found
        program = self.folder / "redis-server"
        if not program.exists():
            program.symlink_to(found)
        return [program, *super().command()[1:]]


class LossesSite(Site):
    def _start_the_session_redis(self) -> str:
        folder, configuration = own_folder("sessions"), valkey._configuration("sessions")
        self.older = OlderRedis(folder, configuration, remove=True)
        self._stack.enter_context(self.older.running())
        port, orders = place.unused_ports(2)
        first = str(self.older.port)
        file = self.folder / "sessions-haproxy.cfg"
        file.write_text(THE_NAME.format(port=port, orders=orders, first=first), encoding="utf-8")
        with (self.folder / "sessions-haproxy.log").open("ab") as log:
            self._servers.append(self.start(["haproxy", "-db", "-f", str(file)], log))
        order = (
            f'exec 3<>/dev/tcp/{HOST}/{orders}; echo "set server sessions/now addr $1 port $2" >&3'
        )
        self._program("move-sessions", f"exec bash -euc '{order}; cat <&3' order \"$@\"")
        self.variables |= {
            "SESSIONS_HOST": HOST,
            "SESSIONS_PORT": first,
            "SESSIONS_PASSWORD": self.older.password,
            "MOVE_SESSIONS": "move-sessions",
            "CACHE_PASSWORD": self.cache.password,
        }
        return f"redis://:{self.older.password}@{HOST}:{port}/0"

    def name_a_new_server(self, name: str, kind: str = "") -> None:
        folder = self.folder / name
        folder.mkdir()
        [port] = place.unused_ports(1)
        self.variables |= {
            f"NEW_{kind or 'SESSIONS'}": str(folder),
            f"NEW_{kind}_HOST".replace("__", "_"): HOST,
            f"NEW_{kind}_PORT".replace("__", "_"): port,
        }

    def the_new_one_serves(self) -> None:
        for end in ("HOST", "PORT"):
            names = (f"SESSIONS_{end}", f"NEW_{end}")
            was = [self.variables[name] for name in names]
            self.variables |= dict(zip(names, reversed(was), strict=True))

    def kill(self, pid_file: Path) -> None:
        os.kill(int(pid_file.read_text(encoding="utf-8")), signal.SIGKILL)

    def stop(self) -> None:
        for file in self.folder.glob("*/pid"):
            with suppress(ProcessLookupError, ValueError):
                self.kill(file)
        super().stop()


SWITCHES = {"the switch": "", "the way back": "back", "the second switch": ""}


async def upgraded(site: LossesSite, people: People) -> dict[str, Any]:
    """From Redis 7 to Valkey, back and there again. The old server follows from then on."""
    use = people.while_they_use_it
    site.name_a_new_server("valkey")
    versions = [await asyncio.to_thread(version, site)]
    await use("the new server follows", lambda: site.follow(UPGRADE, "1."))
    for name, part in SWITCHES.items():
        # On a busy machine the pause may be longer than people wait.
        people.load.announced = True
        await use(name, lambda part=part: site.follow(UPGRADE, "2.", part))
        versions.append(await asyncio.to_thread(version, site))
    people.load.announced = False
    site.name_a_new_server("valkey-cache", "CACHE")
    await use("an empty cache", lambda: site.follow(UPGRADE_CACHE, "1."))
    await use("the app uses it", lambda: site.follow(UPGRADE_CACHE, "2."))
    await use("the old cache again", lambda: site.follow(UPGRADE_CACHE, "2.", "back"))
    return {"versions": versions, "switches": list(SWITCHES)}


def version(site: LossesSite) -> str:
    asked = (
        "import os, redis; url = os.environ['SESSION_REDIS_URL']\n"
        "info = redis.from_url(url).info('server')\n"
        "name = info.get('server_name', 'redis')\n"
        "print(name, info[f'{name}_version'].split('.')[0])"
    )
    return site.follow_text(f'in_app python -c "{asked}"').strip()


SETTLED = """
at "$SESSIONS_HOST" "$SESSIONS_PORT" CLIENT PAUSE 60000 WRITE
both="$SESSIONS_HOST $SESSIONS_PORT $NEW_HOST $NEW_PORT"
timeout 60 bash -c "until same_position $both; do :; done"
"""


def lose_the_server(site: LossesSite) -> None:
    """Its replica, Redis 7, has all that was answered, so a test may count."""
    functions = [one.commands for one in blocks(site.pages / UPGRADE) if not one.section]
    lost = Path(site.variables["NEW_SESSIONS"]) / "pid"
    site.the_new_one_serves()
    site.follow_text("\n".join([*functions, SETTLED]))
    site.kill(lost)
    site.follow(LOSS, "2.")


def lose_all_but_the_disk(site: LossesSite) -> None:
    site.variables["LOST_DISK"] = str(site.older.folder)
    site.older.die()
    site.name_a_new_server("from-the-disk")
    site.follow(LOSS, "1.")


def lose_everything(site: LossesSite) -> None:
    folder = Path(site.variables["NEW_SESSIONS"])
    site.kill(folder / "pid")
    shutil.rmtree(folder)
    site.name_a_new_server("from-nothing")
    site.follow(LOSS, "3.")


async def losses(site: LossesSite) -> dict[str, Any]:
    reaper = asyncio.create_task(reaping(site))
    kept = {}
    try:
        await asyncio.to_thread(site.prepare)
        people = People(site)
        people.load.start()
        try:
            async with asyncio.timeout(SECONDS):
                await people.load.keep_sessions()
            report = await upgraded(site, people)
            people.load.announced = True
            for name, lose in (
                ("a replica is left", lose_the_server),
                ("the disk is left", lose_all_but_the_disk),
                ("nothing is left", lose_everything),
            ):
                await people.while_they_use_it(name, lambda lose=lose: lose(site))
                kept[name] = await people.load.sessions_that_are_lost()
                await people.until_all_are_there()
        finally:
            await people.load.stop()
    finally:
        reaper.cancel()
    return report | {
        "logged out of those kept": kept,
        "people": people.report(),
        "seconds": site.seconds,
    }


if __name__ == "__main__":
    report_on(LossesSite, losses)
