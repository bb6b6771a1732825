# Rung's file: advancing to another stage may change it.
"""A streaming replica of a Postgres that this repository runs."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from dev import postgres


@contextmanager
def for_own(primary: str) -> Iterator[str]:
    """URL of a replica of that database, or "" if this repository does not run its server."""
    folder = postgres.own_server(primary)
    if folder is None:
        yield ""
        return
    with of(primary, _of_own(folder), postgres.SETTINGS) as url:
        yield url


def for_development() -> str | None:
    """URL, without a database, of the replica that `make dev` runs, or None."""
    server = postgres.Postgres(_of_own(postgres.state_folder() / "postgres"))
    return server.url if server.is_running() else None


@contextmanager
def of(primary: str, folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Copies it again at each start, because the primary may no longer have the WAL it needs."""

    def copy_primary(data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        password = urlsplit(primary).password or ""
        shown, _ = postgres.without_password(primary)
        postgres.fill(data, password, lambda folder: _pg_basebackup(folder, shown), remove=True)

    replica = postgres.Postgres(folder, settings, remove=True, create=copy_primary)
    with replica.running() as server:
        yield f"{server.url}{urlsplit(primary).path}"


def _of_own(primary: Path) -> Path:
    return primary.with_name(f"{primary.name}-replica")


def _pg_basebackup(data: Path, primary: str) -> list[str | Path]:
    return [
        *(postgres.binaries() / "pg_basebackup", "-D", data, "--dbname", primary),
        *("--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--no-sync"),
    ]
