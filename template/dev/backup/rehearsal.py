# Rung's file: advancing to another stage may change it.
"""Restores a backup into a temporary Postgres and checks it: `make restore-rehearsal`."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from dev import postgres, supervisor
from dev.server import ServerError, end_of

NO_BARMAN = (
    "barman-cloud-restore is missing. On Debian or Ubuntu: apt-get install barman-cli-cloud. "
    "Elsewhere: pipx install 'barman[cloud]'."
)
# The backup of one night is missing, and the next one is late.
OLDEST = timedelta(days=2)
# Only this user's processes can enter the socket's folder, so nobody else can log in.
PG_HBA = "local all all trust\n"
SETTINGS = {
    "listen_addresses": "",
    "archive_mode": "off",
    # Nobody reads before all WAL is replayed, so this server does not need the primary's limits.
    "hot_standby": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_preload_libraries": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Nobody can enter one that is closed, or whose DROP DATABASE was interrupted (-2).
DATABASES = """
SELECT datname FROM pg_database
WHERE NOT datistemplate AND datallowconn AND datconnlimit <> -2 ORDER BY 1
"""
# The rows of a partition are those of its table. Temporary tables have lost their files.
TABLES = """
SELECT format('%I.%I', nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence <> 't'
AND nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""


class RehearsalError(Exception):
    """The message says why the rehearsal failed and what to do."""


@dataclass(frozen=True, slots=True)
class Backup:
    id: str
    ended: datetime


@dataclass(frozen=True, slots=True)
class Archive:
    """The place that barman-cloud-backup and barman-cloud-wal-archive write to."""

    url: str
    server: str
    options: Sequence[str]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Archive":
        if not environment.get("BACKUP"):
            raise RehearsalError(
                "Say where the backups are: make restore-rehearsal BACKUP=s3://bucket/folder\n"
                "docs/runbooks/backup.md says how to make them."
            )
        if shutil.which("barman-cloud-restore") is None:
            raise RehearsalError(NO_BARMAN)
        server = environment.get("BACKUP_SERVER") or "main"
        options = shlex.split(environment.get("BACKUP_OPTIONS", ""))
        return cls(environment["BACKUP"], server, options)

    def command(self, name: str, *arguments: str | Path) -> list[str | Path]:
        return [f"barman-cloud-{name}", *self.options, self.url, self.server, *arguments]

    def newest(self, until: datetime | None) -> Backup:
        command = [*self.command("backup-list"), "--format", "json"]
        listed = subprocess.run(command, capture_output=True, text=True)
        if listed.returncode != 0:
            raise RehearsalError(f"Cannot list the backups in {self.url}:\n{listed.stderr.strip()}")
        ended = [
            Backup(one["backup_id"], _end_of(one))
            for one in json.loads(listed.stdout)["backups_list"]
            if one["status"] == "DONE"
        ]
        found = [one for one in ended if until is None or one.ended <= until]
        if not found:
            before = f" that ended before {until}" if until else ""
            raise RehearsalError(f"{self.url} has no backup of {self.server}{before}.")
        newest = max(found, key=lambda one: one.ended)
        if until is None and datetime.now(UTC) - newest.ended > OLDEST:
            raise RehearsalError(
                f"The newest backup ended at {newest.ended:%F %T%z}: the nightly job fails. "
                "Run it by hand to see why: docs/runbooks/backup.md"
            )
        return newest

    def has(self, wal: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            command = self.command("wal-restore", wal, Path(folder) / wal)
            found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode > 1:
            raise RehearsalError(f"Cannot read {wal} in {self.url}:\n{found.stderr.strip()}")
        return found.returncode == 0


def _end_of(backup: Mapping[str, str]) -> datetime:
    # An older barman has no end_time_iso and no zone. If the zone was not UTC, Postgres refuses a
    # backup that ended too late.
    text = backup.get("end_time_iso")
    if text:
        return datetime.fromisoformat(text)
    return datetime.strptime(backup["end_time"], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)


def main() -> None:
    postgres.forget_other_servers(os.environ)
    try:
        until = time_of(os.environ.get("UNTIL", ""))
        keep = bool(os.environ.get("KEEP"))
        role = os.environ.get("BACKUP_ROLE") or "postgres"
        rehearse(Archive.of(os.environ), until, role, keep=keep)
    except (RehearsalError, ServerError) as error:
        sys.exit(f"The backup is not proved. {error}")


def time_of(text: str) -> datetime | None:
    if not text:
        return None
    with suppress(ValueError):
        if (found := datetime.fromisoformat(text)).tzinfo is not None:
            return found
    raise RehearsalError(
        f"UNTIL={text} is not a time with a zone. Write it like UNTIL='2026-01-31 12:00:00+00'."
    )


def rehearse(archive: Archive, until: datetime | None, role: str, *, keep: bool = False) -> None:
    """With `keep`, the restored server runs until Enter, and nothing is checked."""
    began = datetime.now(UTC)
    started = time.monotonic()
    backup = archive.newest(until)
    folder = postgres.state_folder() / "restore-rehearsal"
    print(f"Restoring backup {backup.id}, which ended at {backup.ended:%F %T%z} …", flush=True)
    with (
        _short_folder() as sockets,
        supervisor.shared(
            folder, lambda: _start(folder, sockets, archive, backup, until), remove=True
        ) as process,
    ):
        last_commit = asyncio.run(_wait_until_replayed(process, folder / "log", sockets, role))
        seconds = time.monotonic() - started
        if keep:
            place = f"host={sockets} port=5432 user={role} dbname=DATABASE"
            print(f"Restored in {seconds:.0f} s. It runs until you press Enter here. Elsewhere:")
            print(f"export RESTORED='{place}'", flush=True)
            sys.stdin.readline()
            return
        if until is None:
            _refuse_gap(archive, folder / "log")
        counted = asyncio.run(_count(sockets, role))
        _check_every_page(sockets, role)
    for table, rows in counted.items():
        print(f"{rows:>15,}  {table}")
    print(f"{sum(counted.values()):>15,}  rows in {len(counted)} tables")
    print(f"Restored in {seconds:.0f} s. pg_amcheck finds no damaged table or index.")
    if last_commit is None:
        print("The WAL has no commit since the backup began.")
    else:
        print(f"The last commit in it is from {last_commit:%F %T%z}.")
    if until is None:
        lost = (began - (last_commit or backup.ended)).total_seconds()
        print(
            f"Loss window: {lost:.0f} s. Each commit of the {lost:.0f} s before this rehearsal "
            "would be lost."
        )


@contextmanager
def _short_folder() -> Iterator[str]:
    """The path of a socket has at most 103 bytes on macOS, and 107 on Linux."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # its name is random
        if postgres.SERVER_USER is not None:
            os.chown(folder, postgres.SERVER_USER, -1)
        yield folder


def _start(
    folder: Path, sockets: str, archive: Archive, backup: Backup, until: datetime | None
) -> subprocess.Popen[bytes]:
    data = folder / "data"
    if data.exists():
        raise RehearsalError(f"Another rehearsal runs in {folder}. Wait for its end.")
    postgres.fill(data, "", lambda place: archive.command("restore", backup.id, place), remove=True)
    _refuse_another_major(data)
    # Its settings may name folders and libraries that are missing here, or the real archive.
    for name in ("postgresql.conf", "postgresql.auto.conf", "pg_ident.conf", "recovery.signal"):
        (data / name).write_text("")
    (data / "pg_hba.conf").write_text(PG_HBA)
    (data / "standby.signal").unlink(missing_ok=True)
    fetch = shlex.join(str(part) for part in archive.command("wal-restore", "%f", "%p"))
    # Exit code 1: the archive has no such file. Any other failure must not look like its end.
    fetch += " || exit $(($? > 1 ? 255 : 1))"
    options = SETTINGS | {
        "unix_socket_directories": sockets,
        "restore_command": fetch,
        "recovery_target_action": "promote",
    }
    if until is not None:
        options["recovery_target_time"] = until.isoformat(" ")
    return supervisor.supervise(
        [postgres.binaries() / "postgres", "-D", data, *(f"--{k}={v}" for k, v in options.items())],
        folder,
        env=postgres.environment(),
        stop_with=signal.SIGQUIT,
        user=postgres.SERVER_USER,
        remove=True,
    )


def _refuse_another_major(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != postgres.MAJOR:
        raise RehearsalError(
            f"The backup is of Postgres {found}, but this repository runs Postgres "
            f"{postgres.MAJOR}. Restore it on a machine with Postgres {found}."
        )


async def _wait_until_replayed(
    process: subprocess.Popen[bytes] | None, log: Path, sockets: str, role: str
) -> datetime | None:
    """The time of the last commit in the WAL, if there was one since the backup began."""
    last: datetime | None
    while True:
        try:
            [last] = await _fetch(
                sockets, role, "postgres", "SELECT pg_last_xact_replay_timestamp()"
            )
        except asyncpg.InvalidAuthorizationSpecificationError:
            raise RehearsalError(
                f"The restored server has no role {role}: name its superuser with BACKUP_ROLE=."
            ) from None
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
            if process and process.poll() is not None:
                end = end_of(log)
                raise RehearsalError(f"Postgres did not replay the WAL. {end}") from None
            await asyncio.sleep(1)  # it logs each try: the reason must be among its last lines
        else:
            return last


def _refuse_gap(archive: Archive, log: Path) -> None:
    """Postgres takes the first WAL file that is missing for the end of the archive."""
    restored = re.findall(r'restored log file "([0-9A-F]{24})"', log.read_text(errors="replace"))
    if not restored:
        return
    first = _wal_after(restored[-1], 1)
    # Doubles the distance, because a gap may be long: up to 65,536 files.
    later = (_wal_after(first, 2**doubled) for doubled in range(17))
    found = next((wal for wal in later if archive.has(wal)), None)
    # Files arrive in order, so without a gap the first has arrived meanwhile too.
    if found and not archive.has(first):
        raise RehearsalError(
            f"The archive has a gap: {first} is missing, and {found} is there. Nobody can restore "
            "what came after it. Make a base backup now: docs/runbooks/backup.md"
        )


def _wal_after(wal: str, files: int) -> str:
    """Each file has 16 MiB, and 256 of them share the second of three numbers."""
    high, low = divmod(int(wal[8:16], 16) * 256 + int(wal[16:], 16) + files, 256)
    return f"{wal[:8]}{high:08X}{low:08X}"


async def _count(sockets: str, role: str) -> dict[str, int]:
    counted = {}
    for database in await _fetch(sockets, role, "postgres", DATABASES):
        for table in await _fetch(sockets, role, database, TABLES):
            [rows] = await _fetch(sockets, role, database, f"SELECT count(*) FROM {table}")  # noqa: S608
            counted[f"{database}.{table}"] = rows
    return counted


async def _fetch(sockets: str, role: str, database: str, statement: str) -> list[Any]:
    async with postgres.connected(host=sockets, user=role, database=database) as connection:
        return [row[0] for row in await connection.fetch(statement)]


def _check_every_page(sockets: str, role: str) -> None:
    """Reads every table and index, because a file that was damaged long ago is in every backup."""
    done = subprocess.run(
        [
            *(postgres.binaries() / "pg_amcheck", "--all", "--install-missing"),
            *("--host", sockets, "--username", role),
        ],
        env=postgres.environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RehearsalError(f"The backup holds damaged data:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
