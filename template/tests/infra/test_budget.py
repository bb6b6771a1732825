# Rung's file: advancing to another stage may change it.
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.infra.connections import DatabaseSettings
from dev import pgbouncer
from dev.budget_postgres import pooled, postgres_limits
from dev.capacity import Capacity, Need, read

ROOT = Path(__file__).parent.parent.parent


def budget(folder: Path, capacity: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `make budget` says, with this deploy/capacity.toml and the other files as they are."""
    deploy = folder / "deploy"
    deploy.mkdir(exist_ok=True)
    for configuration in (ROOT / "deploy").glob("*.conf"):
        shutil.copy(configuration, deploy)
    (deploy / "capacity.toml").write_text(capacity)
    (deploy / "postgres.conf").write_text("max_connections = 100  # of them 3 are for superusers\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
    return subprocess.run(
        [sys.executable, "-m", "dev.budget"],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
    )


def capacity(copies: int, workers: int = 1) -> str:
    return f"copies = {copies}\nworkers = {workers}\nduring_a_deploy = 2\ndirect = 3\n"


@pytest.mark.parametrize("replicas", ["", "postgresql://replica/app"])
def test_as_delivered_it_fits(replicas: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
    command = [sys.executable, "-m", "dev.budget"]
    environment = {**kept, "DATABASE_REPLICA_URLS": replicas}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_pooler_every_process_counts_at_postgres(tmp_path: Path) -> None:
    fits = budget(tmp_path, capacity(1))
    assert fits.returncode == 0
    assert "2 x (16 + 8 + 1) + 3      53     97" in fits.stdout

    too_many = budget(tmp_path, capacity(4))
    assert too_many.returncode == 1
    assert "8 x (16 + 8 + 1) + 3     203     97" in too_many.stdout
    assert "DATABASE_POOLED=true" in too_many.stderr
    assert "DATABASE_READ_POOL=2" in too_many.stderr
    assert "max_connections = 206 in deploy/postgres.conf" in too_many.stderr

    # Each number it names is enough, and one less is not.
    assert budget(tmp_path, capacity(4), DATABASE_READ_POOL="2").returncode == 0
    assert budget(tmp_path, capacity(4), DATABASE_READ_POOL="3").returncode == 1


def test_with_a_pooler_the_processes_count_there(tmp_path: Path) -> None:
    fits = budget(tmp_path, capacity(4), DATABASE_POOLED="true")
    assert fits.returncode == 0, fits.stderr
    limit = pgbouncer.configuration()["pgbouncer"]["max_client_conn"]
    assert f"8 x (16 + 8 + 1)     200   {limit}" in fits.stdout
    assert "2 x (20 + 5) + 3      53     97" in fits.stdout

    many = budget(tmp_path, capacity(200), DATABASE_POOLED="true")
    assert many.returncode == 1
    assert "max_client_conn = 10000 in deploy/pgbouncer.ini" in many.stderr


def test_whether_there_is_a_pooler_is_said_by_capacity_unless_the_environment_does(
    tmp_path: Path,
) -> None:
    pooled = f"{capacity(4)}pooled = true\n"

    assert "PgBouncer's clients" in budget(tmp_path, pooled).stdout
    assert budget(tmp_path, pooled, DATABASE_POOLED="false").returncode == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (capacity(0), "copies: Input should be greater than 0"),
        (f"{capacity(1)}copys = 2\n", "copys: Extra inputs are not permitted"),
        ("copies 1", "deploy/capacity.toml is not TOML"),
    ],
)
def test_a_capacity_that_cannot_be_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "capacity.toml").write_text(text)

    with pytest.raises(SystemExit, match=said):
        read()


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
        return pooled(settings, one, 0, bouncer, postgres)[1]

    assert at_postgres(42).needed == postgres.allowed == 97
    refused = at_postgres(60)
    assert refused.needed == 133
    assert "default_pool_size = 42 in deploy/pgbouncer.ini" in refused.remedy
    assert "max_connections = 136 in deploy/postgres.conf" in refused.remedy


def test_connections_that_postgres_keeps_for_others_do_not_count() -> None:
    hosted = "max_connections = 200\nsuperuser_reserved_connections = 5\nreserved_connections = 4"
    assert postgres_limits(hosted).allowed == 191
    assert postgres_limits("#max_connections = 7\n").allowed == 97


@pytest.mark.parametrize("is_pooled", ["false", "true"])
def test_each_replica_is_counted(tmp_path: Path, is_pooled: str) -> None:
    urls = "postgresql://a/app,postgresql://b/app"
    done = budget(tmp_path, capacity(1), DATABASE_POOLED=is_pooled, DATABASE_REPLICA_URLS=urls)

    assert done.returncode == 0
    expected = "2 x (16 + 8 + 2 + 2 x (16 + 1))" if is_pooled == "true" else "2 x (16 + 1) + 3"
    assert expected in done.stdout
