# Rung's file: advancing to another stage may change it.
"""`make budget` compares the connections of all processes with the servers' limits."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from app.infra.connections import DatabaseSettings
from dev.pooling import budget_postgres, pgbouncer
from dev.pooling.budget import count
from dev.pooling.budget_postgres import postgres_limits
from dev.pooling.capacity import Capacity, Need, read
from tests.infra.conftest import run_python

ROOT = Path(__file__).parents[3]


class Counted(NamedTuple):
    table: str
    remedies: str

    @property
    def fits(self) -> bool:
        return not self.remedies


type Budget = Callable[..., Counted]


@pytest.fixture
def budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Budget:
    """The output of `make budget` with this deploy/capacity.toml and the real other files."""
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    for configuration in (ROOT / "deploy").glob("*.conf"):
        shutil.copy(configuration, deploy)
    (deploy / "postgres.conf").write_text("max_connections = 100  # of them 3 are for superusers\n")
    for name in [name for name in os.environ if name.startswith("DATABASE_")]:
        monkeypatch.delenv(name)
    shutil.copy(pgbouncer.CONFIGURATION, deploy)
    monkeypatch.setattr(pgbouncer, "CONFIGURATION", deploy / "pgbouncer.ini")
    monkeypatch.chdir(tmp_path)

    def budget(capacity: str, **variables: str) -> Counted:
        (deploy / "capacity.toml").write_text(capacity)
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            try:
                count(read())
                remedies = ""
            except SystemExit as stopped:
                remedies = str(stopped)
        return Counted(capsys.readouterr().out, remedies)

    return budget


def capacity(copies: int, workers: int = 1) -> str:
    return f"copies = {copies}\nworkers = {workers}\nduring_a_deploy = 2\ndirect = 3\n"


@pytest.mark.slow
def test_the_settings_of_a_new_repo_fit_also_with_a_replica() -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
    environment = {**kept, "DATABASE_REPLICA_URLS": "postgresql://replica/app"}
    done = run_python("-m", "dev.pooling.budget", env=environment)

    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_pooler_every_process_counts_at_postgres(budget: Budget) -> None:
    fits = budget(capacity(1))
    assert fits.fits
    assert "2 x (16 + 8 + 1) + 3      53     97" in fits.table

    too_many = budget(capacity(4))
    assert not too_many.fits
    assert "8 x (16 + 8 + 1) + 3     203     97" in too_many.table
    assert "DATABASE_POOLED=true" in too_many.remedies
    assert "DATABASE_READ_POOL=2" in too_many.remedies
    assert "max_connections = 206 in deploy/postgres.conf" in too_many.remedies

    # Each number in the answer is enough, and one less is not.
    assert budget(capacity(4), DATABASE_READ_POOL="2").fits
    assert not budget(capacity(4), DATABASE_READ_POOL="3").fits


def test_with_a_pooler_the_processes_count_there(budget: Budget) -> None:
    fits = budget(capacity(4), DATABASE_POOLED="true", DATABASE_REPLICA_URLS="")
    assert fits.fits, fits.remedies
    limit = pgbouncer.configuration()["pgbouncer"]["max_client_conn"]
    assert f"8 x (16 + 8 + 1)     200   {limit}" in fits.table
    assert "2 x (20 + 5) + 3      53     97" in fits.table

    many = budget(capacity(200), DATABASE_POOLED="true", DATABASE_REPLICA_URLS="")
    assert "max_client_conn = 10000 in deploy/pgbouncer.ini" in many.remedies


def test_each_pgbouncer_has_its_own_pools(budget: Budget) -> None:
    def counted(pgbouncers: int) -> Counted:
        many = f"{capacity(4)}pgbouncers = {pgbouncers}\n"
        return budget(many, DATABASE_POOLED="true", DATABASE_REPLICA_URLS="")

    two = counted(2)
    assert not two.fits
    assert "2 x 2 x (20 + 5) + 3     103     97" in two.table
    assert "default_pool_size = 18 in deploy/pgbouncer.ini" in two.remedies
    # Each number in the answer is above 0.
    assert "set max_connections = 1006 in deploy/postgres.conf." in counted(20).remedies


def test_capacity_toml_says_whether_there_is_a_pooler_unless_the_environment_does(
    budget: Budget,
) -> None:
    pooled = f"{capacity(4)}pooled = true\n"

    assert "PgBouncer's clients" in budget(pooled).table
    assert not budget(pooled, DATABASE_POOLED="false").fits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (capacity(0), "copies: Input should be greater than 0"),
        (f"{capacity(1)}copys = 2\n", "copys: Extra inputs are not permitted"),
        ("copies 1", "deploy/capacity.toml is not TOML"),
    ],
)
def test_an_impossible_capacity_is_refused_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "capacity.toml").write_text(text)

    with pytest.raises(SystemExit, match=said):
        read()


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [("DATABASE_READ_POOL", "abc"), ("DATABASE_READ_POOL", "-3"), ("DATABASE_POOLED", "maybe")],
)
def test_a_wrong_variable_is_refused_with_a_reason(
    budget: Budget, variable: str, wrong: str
) -> None:
    refused = budget(capacity(1), **{variable: wrong})

    assert f"  {variable}: Input should be " in refused.remedies


@pytest.mark.parametrize(
    ("line", "wrong", "said"),
    [
        ("default_pool_size = 20", "default_pool_size = x", "default_pool_size: Input should be "),
        ("default_pool_size = 20", "", "default_pool_size: Field required"),
        ("[databases]", "", "deploy/pgbouncer.ini cannot be read: "),
        ("[databases]", "[database]", "has no section [databases]"),
    ],
)
def test_an_impossible_pooler_is_refused_with_a_reason(
    budget: Budget, line: str, wrong: str, said: str
) -> None:
    written = pgbouncer.CONFIGURATION.read_text()
    assert f"\n{line}\n" in written
    pgbouncer.CONFIGURATION.write_text(written.replace(f"\n{line}\n", f"\n{wrong}\n"))

    assert said in budget(capacity(1), DATABASE_POOLED="true").remedies


def test_one_copy_is_written_in_the_singular(budget: Budget) -> None:
    one = "copies = 1\nworkers = 1\nduring_a_deploy = 1\ndirect = 3\n"

    assert "1 copy x 1 during a deploy x 1 worker = 1 process\n" in budget(one).table
    many = "4 copies x 2 during a deploy x 2 workers = 16 processes\n"
    assert many in budget(capacity(4, 2)).table


def test_the_poolers_own_connections_must_fit_into_postgres() -> None:
    postgres = postgres_limits("max_connections = 100\n")
    settings = DatabaseSettings.model_validate(
        {
            "pooled": True,
            "url": "postgresql://b/a",
            "read_url": "postgresql://b/r",
            "direct_url": "postgresql://p",
        }
    )

    def at_postgres(size: int) -> Need:
        bouncer = pgbouncer.configuration()
        bouncer["pgbouncer"]["default_pool_size"] = str(size)
        one = Capacity(copies=1, workers=1, during_a_deploy=2, direct=3)
        return budget_postgres.Budget(settings, one, 0, postgres).pooled(bouncer)[1]

    assert at_postgres(42).needed == postgres.allowed == 97
    refused = at_postgres(60)
    assert refused.needed == 133
    assert "default_pool_size = 42 in deploy/pgbouncer.ini" in refused.remedy
    assert "max_connections = 136 in deploy/postgres.conf" in refused.remedy


def test_connections_that_postgres_keeps_for_others_do_not_count() -> None:
    hosted = "max_connections = 200\nsuperuser_reserved_connections = 5\nreserved_connections = 4"
    assert postgres_limits(hosted).allowed == 191
    assert postgres_limits("#max_connections = 7\n").allowed == 97


@pytest.mark.parametrize(
    ("is_pooled", "expected"),
    [("false", "2 x (16 + 1) + 3"), ("true", "2 x (16 + 8 + 2 + 2 x (16 + 1))")],
)
def test_each_replica_is_counted(budget: Budget, is_pooled: str, expected: str) -> None:
    urls = "postgresql://a/app,postgresql://b/app"
    done = budget(capacity(1), DATABASE_POOLED=is_pooled, DATABASE_REPLICA_URLS=urls)

    assert done.fits
    assert expected in done.table


def test_replicas_that_only_the_pooler_names_are_counted_unless_the_environment_names_others(
    budget: Budget,
) -> None:
    names = [f"{name} = host={name} dbname=app" for name in ("app", "app_1", "app_2")]
    pools = "max_client_conn = 5000\ndefault_pool_size = 20\nreserve_pool_size = 5"
    pgbouncer.CONFIGURATION.write_text("\n".join(["[databases]", *names, "[pgbouncer]", pools]))

    unset = budget(capacity(50), DATABASE_POOLED="true")
    none = budget(capacity(50), DATABASE_POOLED="true", DATABASE_REPLICA_URLS="")

    assert "100 x (16 + 8 + 2 + 2 x (16 + 1))" in unset.table
    assert "100 x (16 + 8 + 1)" in none.table
