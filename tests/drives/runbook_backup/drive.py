"""Follows backup.md and rows.md on a Postgres that is being written to, and loses its data twice.

Runs in a generated repo of stage 4: python -m runbook_backup.drive
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import asyncpg
from dev import ports, postgres
from dev.s3 import rclone

sys.path.append(str(postgres.REPOSITORY / "live_climb"))

from runbook import blocks

RUNBOOKS = postgres.REPOSITORY / "docs/runbooks"
FOLDER = postgres.state_folder() / "runbook"
SECONDS = 300
EXECUTED: set[str] = set()


def commands(section: str, page: str = "backup.md") -> str:
    """All of a section, in order."""
    found = [one for one in blocks(RUNBOOKS / page) if one.section.startswith(section)]
    EXECUTED.update(f"{one.page} {section}. {one.part}" for one in found)
    return "\n".join(one.commands for one in found)


class Site:
    """A machine with Postgres and the variables of the runbook."""

    def __init__(self, s3: rclone.S3) -> None:
        self.port = ports.unused()
        self.data = FOLDER / "data"
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        service = FOLDER / "service"
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        service.write_text(
            f"#!/bin/sh\nexec pg_ctl -D {self.data} -w -t {SECONDS} -m fast -l {FOLDER}/log "
            f"-o '{options}' $1 > /dev/null\n"
        )
        service.chmod(0o755)
        variables = s3.variables("backups")
        self.environment = postgres.environment() | {
            "PATH": f"{postgres.binaries()}:{os.environ['PATH']}",
            "AWS_ACCESS_KEY_ID": variables["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": variables["AWS_SECRET_ACCESS_KEY"],
            "BACKUP": "s3://backups/postgres",
            "BACKUP_OPTIONS": f"--endpoint-url {s3.url}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
            "PGDATA": str(self.data),
            **{f"{what}_POSTGRES": f"{service} {what.lower()}" for what in ("START", "STOP")},
            "RESTART_POSTGRES": f"{service} restart",
            "HOME": str(FOLDER),
        }

    def follow(self, section: str, **variables: str) -> None:
        self.run(commands(section), **variables)

    def run(self, text: str, **variables: str) -> None:
        user = postgres.SERVER_USER  # as root, the commands of the machine's user postgres
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=FOLDER,
            env=self.environment | variables,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode != 0:
            log = (FOLDER / "log").read_text(errors="replace") if (FOLDER / "log").exists() else ""
            sys.exit(f"{text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}\n{log[-3000:]}")

    def rehearse(self, **variables: str) -> str:
        text = commands("2")
        environment = {**os.environ, **self.environment, "HOME": os.environ["HOME"], **variables}
        environment["LD_LIBRARY_PATH"] = os.environ.get("LD_LIBRARY_PATH", "")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=postgres.REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode != 0:
            sys.exit(f"{text}\n{done.stdout}{done.stderr}")
        return done.stdout

    def bring_back(self, table: str, **variables: str) -> None:
        first = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands("1", "rows.md")],
            cwd=postgres.REPOSITORY,
            env={**os.environ, **self.environment, "HOME": os.environ["HOME"], **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert first.stdout
        printed = iter(first.stdout.readline, "")
        restored = next((line for line in printed if line.startswith("export RESTORED=")), "")
        second = restored.replace("dbname=DATABASE", "dbname=postgres") + commands("2", "rows.md")
        self.run(second, TABLE=table, ROWS="true", POSTGRES=self.url, SITE=str(FOLDER))
        first.communicate("\n", timeout=SECONDS)
        if first.returncode != 0:
            sys.exit(f"restore-rehearsal KEEP=yes ended with {first.returncode}")

    def ids(self) -> set[int]:
        return set(self.column("SELECT id FROM ledger"))

    def column(self, statement: str) -> list[Any]:
        async def fetched() -> list[Any]:
            connection = await asyncpg.connect(self.url)
            try:
                return [row[0] for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(fetched())

    def value(self, statement: str) -> Any:
        return self.column(statement)[0]

    def archive_now(self) -> None:
        """Does the work of archive_timeout, which runs once a minute."""
        segment = self.value("SELECT pg_walfile_name(pg_switch_wal())")
        for _ in range(SECONDS * 10):
            if str(self.value("SELECT last_archived_wal FROM pg_stat_archiver")) >= str(segment):
                return
            time.sleep(0.1)
        sys.exit(f"{segment} was not archived")


# The last: Postgres closed the connection as a statement began.
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Writer:
    """Writes rows one after the other, and remembers when each was acknowledged."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._is_over = False
        self._last = max(site.ids(), default=0)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))
        self.began: dict[int, float] = {}
        self.acknowledged: dict[int, float] = {}

    async def _write(self) -> None:
        while not self._is_over:
            try:
                connection = await asyncpg.connect(self._site.url, timeout=5)
                try:
                    await self._write_on(connection)
                finally:
                    await connection.close(timeout=5)
            except LOST:
                await asyncio.sleep(0.05)

    async def _write_on(self, connection: asyncpg.Connection) -> None:
        while not self._is_over:
            self._last += 1
            self.began[self._last] = time.time()
            await connection.execute("INSERT INTO ledger VALUES ($1)", self._last)
            self.acknowledged[self._last] = time.time()
            await asyncio.sleep(0.005)

    def wait_for(self, rows: int) -> None:
        wanted = len(self.acknowledged) + rows
        for _ in range(SECONDS * 20):
            if len(self.acknowledged) >= wanted:
                return
            time.sleep(0.05)
        sys.exit("Nothing is written")

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._is_over = True
            self._thread.join()


def prepare(site: Site) -> None:
    site.run(
        f"initdb -D {site.data} -N -U postgres --auth=trust --encoding=UTF8 > /dev/null\n"
        '$START_POSTGRES\npsql -qc "CREATE TABLE ledger (id bigint PRIMARY KEY)"'
    )
    given = os.environ | {"DATABASE_URL": site.url, "DATABASE_DIRECT_URL": site.url}
    migrate = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(migrate, env=given, capture_output=True, check=True)


def rows_in(rehearsal: str, table: str) -> int:
    found = re.search(rf"^ *([\d,]+)  postgres\.public\.{table}$", rehearsal, re.MULTILINE)
    assert found, rehearsal
    return int(found[1].replace(",", ""))


def replica_follows(site: Site) -> bool:
    """Whether a new replica of the recovered server has a new row, and takes no writes."""
    data, port = FOLDER / "replica", ports.unused()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    ctl = f"pg_ctl -D {data} -w -l {FOLDER}/replica.log"
    site.run(f"pg_basebackup -D {data} -c fast -R\n{ctl} -o '{options}' start > /dev/null")
    site.value("INSERT INTO ledger VALUES (0) RETURNING 0")
    seen = "SELECT pg_is_in_recovery() AND EXISTS (SELECT FROM ledger WHERE id = 0)"
    try:
        for _ in range(150):
            site.run(f"psql -p {port} -XAtc '{seen}' > {FOLDER}/seen 2> /dev/null || true")
            if (FOLDER / "seen").read_text() == "t\n":
                return True
            time.sleep(0.1)
        return False
    finally:
        site.run(f"{ctl} -m immediate stop > /dev/null")


def recovered_to_a_moment(site: Site) -> dict[str, object]:
    with Writer(site).writing() as writer:
        site.follow("1")
        writer.wait_for(100)
        written = len(writer.acknowledged)
        site.archive_now()
        rehearsal = site.rehearse()
        rehearsed = rows_in(rehearsal, "ledger")
        early = site.value("SELECT clock_timestamp()")
        writer.wait_for(50)
        until = site.value("SELECT clock_timestamp()")
        assert isinstance(until, datetime)
        site.value("DELETE FROM ledger RETURNING 0")
        writer.wait_for(100)
        site.archive_now()
        moment = site.rehearse(UNTIL=str(until))
        at = until.timestamp()
        wanted = {one for one, when in writer.acknowledged.items() if when < at} | site.ids()
        site.bring_back("ledger", UNTIL=str(until))
        not_back = wanted - site.ids()
    site.follow("3", UNTIL=str(early))  # the first try
    started = time.monotonic()
    site.follow("3", UNTIL=str(until), TIMELINE="current")
    seconds = time.monotonic() - started
    there = site.ids()
    site.follow("4")
    follows = replica_follows(site)
    return {
        "a new replica follows": follows,
        "rehearsal": rehearsal,
        "rehearsed of those written before": [rehearsed, written],
        "rows that are not back": len(not_back),
        "rehearsed moment": rows_in(moment, "ledger"),
        "recovered": len(there),
        "recovered in": round(seconds, 1),
        "missing": len({one for one, when in writer.acknowledged.items() if when < at} - there),
        "too new": len({one for one, when in writer.began.items() if when > at} & there),
        "left over": [one.name for one in postgres.state_folder().glob("restore-rehearsal*")],
    }


def recovered_from_nothing(site: Site) -> dict[str, object]:
    with Writer(site).writing() as writer:
        writer.wait_for(100)
        archived = set(writer.acknowledged)
        site.archive_now()
        writer.wait_for(100)
        pid = (site.data / "postmaster.pid").read_text().split()[0]
        site.run(f"kill -QUIT {pid}; while kill -0 {pid} 2> /dev/null; do sleep 0.1; done")
        died = time.time()
    shutil.rmtree(site.data)
    site.follow("3", UNTIL="")
    there = site.ids()
    lost = {one: when for one, when in writer.acknowledged.items() if one not in there}
    return {
        "archived and missing": len(archived - there),
        "lost": len(lost),
        "loss window": round(died - min(lost.values(), default=died), 1),
    }


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    if postgres.SERVER_USER is not None:
        os.chown(FOLDER, postgres.SERVER_USER, -1)
    with rclone.running() as s3:
        site = Site(s3)
        try:
            prepare(site)
            report = recovered_to_a_moment(site) | recovered_from_nothing(site)
        finally:
            site.run("$STOP_POSTGRES || true")
            shutil.rmtree(FOLDER)
    print(json.dumps(report | {"executed": sorted(EXECUTED)}))


if __name__ == "__main__":
    main()
