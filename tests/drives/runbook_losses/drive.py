"""Follows the runbooks of permanent losses, and upgrades both Redis servers before.

Runs in a generated repo of stage 4 with replicas, beside the live climb's modules and
operators_year: python -m runbook_losses.drive
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from dev import postgres
from dev.cache import valkey
from dev.s3 import rclone
from operators_year.drive import SECONDS, People, Site, prepared, report_on

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

import place
from ledger import Counts
from runbook import blocks

UPGRADE = "redis_sessions/upgrade-valkey.md"
UPGRADE_CACHE = "cache/upgrade-valkey.md"
LOSS = "redis_sessions/loss.md"
ZONE = "copies/loss-of-a-zone.md"
LOSS_OF_FILES = "s3/loss.md"
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
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self.undone: dict[str, bool] = {}

    def _start_the_session_redis(self) -> str:
        self.older = OlderRedis("sessions", postgres.own_folder("sessions"), remove=True)
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

    def _before_the_first_deploy(self) -> None:
        make_two_poolers(self)

    def _start_the_servers_of_later_stages(self) -> None:
        super()._start_the_servers_of_later_stages()
        with (self.site / "app.env").open("a", encoding="utf-8") as file:
            file.write("FILES_STORE='s3'\n")

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

    @property
    def copies(self) -> tuple[str, str]:
        return self.variables["ONE"], self.variables["TWO"]

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
    await use("the new server follows", lambda: begun_again(site, UPGRADE, "NEW_SESSIONS"))
    for name, part in SWITCHES.items():
        # On a busy machine the pause may be longer than people wait.
        people.load.announced = True
        await use(name, lambda part=part: site.follow(UPGRADE, "2.", part))
        versions.append(await asyncio.to_thread(version, site))
    people.load.announced = False
    site.name_a_new_server("valkey-cache", "CACHE")
    await use("an empty cache", lambda: begun_again(site, UPGRADE_CACHE, "NEW_CACHE"))
    site.undone[UPGRADE_CACHE] = await asyncio.to_thread(site.is_undone, UPGRADE_CACHE, "2.")
    await use("the app uses it", lambda: site.follow(UPGRADE_CACHE, "2."))
    return {"versions": versions, "switches": list(SWITCHES)}


def begun_again(site: LossesSite, page: str, folder: str) -> None:
    """A new server, its way back, and the same once more."""
    site.follow(page, "1.")
    site.follow(page, "1.", "back")
    site.follow_text(f'while [ -e "${folder}/pid" ]; do sleep 0.1; done')
    site.follow(page, "1.")


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


def replace_the_server(site: LossesSite) -> None:
    """An upgrade to its end."""
    site.variables["SESSIONS_PORT"] = site.variables["NEW_PORT"]
    site.name_a_new_server("replacement")
    for section in ("1.", "2.", "3."):
        site.follow(UPGRADE, section)


def name_the_buckets(site: LossesSite) -> None:
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": site.s3.url,
        "ACCESS_KEY_ID": rclone.KEY_ID,
        "SECRET_ACCESS_KEY": site.s3.password,
    }
    site.variables |= {f"RCLONE_CONFIG_SHOP_{name}": text for name, text in remote.items()} | {
        "RCLONE_CONFIG": str(site.folder / "no-rclone.conf"),
        "FILES": f"shop:{rclone.BUCKET}",
        "FILES_COPY": str(site.folder / "copy-of-files"),
        "NEW_FILES": "shop:files-2",
        "NEW_S3_SETTINGS": "FILES_BUCKET=files-2",
    }


def lose_the_bucket(site: LossesSite) -> str:
    # A bucket that gets an upload meanwhile is not empty, and stays.
    site.follow_text('tries=50; until rclone purge "$FILES"; do [ $((tries -= 1)) -gt 0 ]; done')
    site.follow(LOSS_OF_FILES, "2.")
    return site.follow(LOSS_OF_FILES, "3.")


def bring_back_the_old_bucket(site: LossesSite) -> None:
    """The way back, but for its deploy. The app still uses the new bucket."""
    site.follow(LOSS_OF_FILES, "2.", "back", deploys=False)
    site.undone[LOSS_OF_FILES] = "FILES_BUCKET='files'" in site.settings()
    site.follow_text('rclone check --one-way --size-only "$NEW_FILES" "$FILES"')


async def bucket_lost(site: LossesSite, people: People) -> dict[str, Any]:
    """Until the copy is back, reads count files as lost. So only the reading at the end counts."""
    uploads = people.ledger.rows["uploads"]

    async def until_there_are(count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(uploads) < count:
                await asyncio.sleep(0.05)

    async def until_one_is_not_in_the_copy() -> None:
        """An upload that is acknowledged after the copy may have sent its file before it."""
        copy = Path(site.variables["FILES_COPY"])
        rows = "SELECT id || ' ' || key FROM uploads WHERE deleted_at IS NULL"
        async with asyncio.timeout(SECONDS):
            while True:
                found = [row.split() for row in await asyncio.to_thread(site.query, rows)]
                if any(one in uploads and not (copy / key).exists() for one, key in found):
                    return
                await asyncio.sleep(0.2)

    name_the_buckets(site)
    await until_there_are(1)
    copied = set(uploads)
    await people.while_they_use_it("a copy of the bucket", lambda: site.follow(LOSS_OF_FILES, "1."))
    await until_one_is_not_in_the_copy()
    said = await people.while_they_use_it("the bucket is gone", lambda: lose_the_bucket(site))
    await people.load.stop()
    await asyncio.to_thread(bring_back_the_old_bucket, site)
    keys = ", ".join(f"'{key}'" for key in re.findall(r"^lost: (\S+)$", said, re.MULTILINE))
    listed = set(site.query(f"SELECT id FROM uploads WHERE key IN ({keys or 'NULL'})"))  # noqa: S608
    people.load.counts = Counts("all files are read")
    await people.load.read_all_files()
    return {
        "files of the copy that are lost": len(copied & listed),
        "files that are listed as lost": len(uploads & listed),
        "files that are lost": people.load.counts.lost,
    }


def make_two_poolers(site: LossesSite) -> None:
    """All but the deploy, because the first one comes after it."""
    second, name = place.unused_ports(2)
    folder = site.folder / "pooler-2"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, place.NOBODY, place.NOBODY)
    first = site.variables["POOLER_PORT"]
    [proxy] = blocks(site.pages / ZONE, "haproxy")
    configuration = f"{proxy.commands}\n"
    for written, here in {"6433": name, "10.0.1.5:6432": first, "10.0.2.5:6432": second}.items():
        assert written in configuration
        host = f"{HOST}:" if ":" in written else ""
        configuration = configuration.replace(written, host + here)
    file = site.folder / "pooler-haproxy.cfg"
    file.write_text(configuration, encoding="utf-8")
    site._program("start-pooler-proxy", f"haproxy -D -f {file}")
    site.variables |= {
        "POOLER_2": str(folder),
        "POOLER_2_PORT": second,
        "POOLED_2": site.variables["POOLED"].replace(f":{first}", f":{second}"),
        "POOLED_BY_NAME": site.variables["POOLED"].replace(f":{first}", f":{name}"),
        "START_POOLER_PROXY": "start-pooler-proxy",
    }
    site.follow(ZONE, "1.")
    site.undone[ZONE] = site.is_undone(ZONE, "2.")
    site.follow(ZONE, "2.", "do", deploys=False)


def start_a_second_proxy(site: LossesSite) -> None:
    servers = "".join(f"    server {one} {HOST}:{one}\n" for one in site.copies)
    text = (site.repo / "deploy/haproxy.cfg").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^    server-template .*\n", servers, text)
    (site.site / "haproxy.cfg").write_text(text, encoding="utf-8")
    site.follow(ZONE, "3.")


def lose_a_zone(site: LossesSite) -> None:
    """Each server of it that holds no data, the cache and the replica."""
    site.kill(site.pooler / "pid")
    site.kill(site.site / f"{site.copies[0]}.pid")
    site._servers[0].kill()  # HAProxy
    site.kill(Path(site.variables["NEW_CACHE"]) / "pid")
    site._run("pg_ctl", "-D", str(site.servers / "replica"), "-m", "immediate", "stop")
    site.follow(ZONE, "4.", only=lambda commands: "deploy " not in commands)


def start_the_lost_copy(site: LossesSite) -> None:
    site.follow(ZONE, "4.", only=lambda commands: "deploy " in commands)


async def zone_lost(site: LossesSite, people: People) -> None:
    load = people.load
    await asyncio.to_thread(site.follow, ZONE, "2.", "check")
    await people.while_they_use_it("a second proxy", lambda: start_a_second_proxy(site))
    await people.while_they_use_it("a zone is lost", lambda: lose_a_zone(site))
    load.url = site.url
    await people.until_all_are_there()
    load.announced = False
    await people.while_they_use_it("a copy more", lambda: start_the_lost_copy(site))


async def losses(site: LossesSite) -> dict[str, Any]:
    kept = {}
    async with prepared(site):
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
            await people.while_they_use_it("another server", lambda: replace_the_server(site))
            await zone_lost(site, people)
            people.load.announced = True
            report |= await bucket_lost(site, people)
        finally:
            await people.load.stop()
    return report | {
        "logged out of those kept": kept,
        "undone": site.undone,
        "people": people.report(),
        "evidence": people.evidence(),
        "seconds": site.seconds,
    }


if __name__ == "__main__":
    report_on(LossesSite, losses)
