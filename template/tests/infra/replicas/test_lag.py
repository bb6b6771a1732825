# Rung's file: advancing to another stage may change it.
"""`make lag` stops a replica and shows its lag."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from pydantic import PostgresDsn

from app.infra.connections import DatabaseSettings
from app.infra.replicas import replicas
from dev import ports, postgres
from dev.replicas import lag
from dev.replicas.replica import of
from dev.server import ServerError
from tests.infra.replicas.replication import Server, cluster


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields a folder for the servers, in place of the folder of `make dev`."""
    monkeypatch.delenv("DATABASE_REPLICA_URLS", raising=False)
    folder = postgres.temporary_folder() / f"rung-lag-{uuid4().hex}"
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def replica(state: Path) -> Iterator[Server]:
    """A replica that runs as in `make dev`."""
    with cluster(f"{state.name}/postgres") as servers:
        yield servers.replica()


def test_other_users_of_this_machine_do_not_see_the_password_of_a_copy(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = state / "pg_basebackup"
    program.write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(postgres, "binaries", lambda: state)

    copied = of("postgresql://app:hunter2@127.0.0.1:1/app", state / "replica", {})
    with pytest.raises(ServerError, match="//app@127") as failed, copied:
        pass

    assert "hunter2" not in str(failed.value)


def test_without_a_replica_make_lag_says_what_to_start(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "state_folder", lambda: state)

    with pytest.raises(SystemExit, match="Start `make dev` first"):
        lag.delay("2000")


def test_make_lag_starts_no_replica() -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "lag"],  # noqa: S607  # whichever make there is
        cwd=postgres.REPOSITORY,
        capture_output=True,
        text=True,
    )

    assert "python -m dev.replicas.lag" in shown.stdout
    assert "python -m dev " not in shown.stdout


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "postgresql://127.0.0.1:{unused}/app",
            "The replica cannot be delayed: .*Connect call failed",
        ),
        ("postgresql://127.0.0.1:nowhere/app", "The replica cannot be delayed: "),
        ("127.0.0.1", "The replica cannot be delayed: invalid DSN"),
    ],
)
def test_a_missing_replica_gives_a_clear_message(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", url.format(unused=ports.unused()))

    with pytest.raises(SystemExit, match=said):
        lag.delay("2000")


@pytest.mark.slow
def test_make_lag_delays_the_running_replica(
    state: Path,
    replica: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(postgres, "state_folder", lambda: state)

    lag.delay("2000")

    assert capsys.readouterr().out == "The replica now applies each change 2000 ms late.\n"
    held = "(SELECT setting = '2000' FROM pg_settings WHERE name = 'recovery_min_apply_delay')"
    assert asyncio.run(replica.said_yes(held))


async def test_a_position_whose_connection_ends_is_asked_on_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class EndingConnection:
        async def fetchrow(self, _: str) -> object:
            raise asyncpg.InternalClientError("cannot switch to state 11")

        def terminate(self) -> None: ...

    opened: list[EndingConnection] = []

    async def connect(*_: object, **__: object) -> EndingConnection:
        opened.append(EndingConnection())
        return opened[-1]

    monkeypatch.setattr(replicas, "connect", connect)
    url = PostgresDsn("postgresql://app@localhost/app")
    status = replicas.StatusConnection(DatabaseSettings(url=url), url)

    assert [await status.ask("SELECT 1") for _ in range(2)] == [None, None]
    assert len(opened) == 2
