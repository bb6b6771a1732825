# Rung's file: advancing to another stage may change it.
"""Missing and wrong environment variables stop the start."""

import errno
import fcntl
import os
import re
from pathlib import Path
from typing import IO

import pytest
from pydantic_settings import BaseSettings

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.environment import EnvironmentIncomplete
from app.main import create_app
from dev import __main__ as dev
from dev.pytest_plugin import Services
from tests.infra.conftest import run_python


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", None),
        ("DATABASE_URL", "mysql://root:hunter2@db/shop"),
        ("DATABASE_URL", '"postgresql://root:hunter2@db/shop"'),
        ("DATABASE_READ_POOL", "hunter2"),
        ("DATABASE_READ_POOL", "99999999999"),
        ("SECRET_KEY", "hunter2"),
        ("FILES_LINK_LIFETIME", "hunter2"),
        ("SESSION_IDLE", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
    ],
)
@pytest.mark.usefixtures("services")
def test_a_missing_or_wrong_variable_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    with pytest.raises(EnvironmentIncomplete) as stopped:
        create_app()

    assert f"  {name}: " in str(stopped.value)
    assert "hunter2" not in str(stopped.value)


@pytest.mark.parametrize("name", ["FILES_LINK_LIFETIME", "SESSION_ABSOLUTE", "SESSION_IDLE"])
@pytest.mark.parametrize(
    ("value", "advice"),
    [("1800", "Write PT30M"), ("PT0S", "1 second"), ("-P1D", "1 second"), ("P9000Y", " days")],
)
@pytest.mark.usefixtures("services")
def test_a_duration_that_no_login_or_link_can_have_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(EnvironmentIncomplete, match=f"  {name}: .*{advice}"):
        create_app()


@pytest.mark.usefixtures("services")
def test_every_number_has_a_limit() -> None:
    """A process waits forever with "inf" seconds, and 10**30 of anything fails in a request."""
    create_app()  # imports the settings of each capability
    unlimited = [
        f"{settings.__qualname__}.{name}"
        for settings in _settings(BaseSettings)
        for name, field in settings.model_fields.items()
        if re.search(r"\b(int|float)\b", str(field.annotation))
        for value in ("inf", "nan", str(10**30))
        if _takes(settings, name, value)
    ]

    assert not unlimited


def _settings(kind: type[BaseSettings]) -> list[type[BaseSettings]]:
    below = kind.__subclasses__()
    own = [settings for settings in below if settings.__module__.startswith("app.infra")]
    return own + [further for settings in below for further in _settings(settings)]


def _takes(settings: type[BaseSettings], name: str, value: str) -> bool:
    try:
        environment.read(settings, **{name: value})
    except EnvironmentIncomplete as incomplete:
        return f"{name.upper()}: " not in str(incomplete)
    return True


@pytest.mark.usefixtures("services")
def test_an_empty_variable_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `${SESSION_IDLE:-}` of a Compose file gives it."""
    create_app()  # imports the settings of each capability
    for settings in _settings(BaseSettings):
        for name in settings.model_fields:
            variable = f"{settings.model_config.get('env_prefix', '')}{name}".upper()
            monkeypatch.setenv(variable, os.environ.get(variable, ""))

    create_app()


@pytest.mark.slow
def test_an_incomplete_environment_stops_the_start_without_a_traceback(services: Services) -> None:
    environment = {**os.environ, "SECRET_KEY": ""}
    serve = ("-m", "uvicorn", "app.main:create_app", "--factory")

    start = run_python(*serve, env=environment)

    assert start.returncode == 1
    assert start.stderr.startswith("Missing or wrong in the environment:\n  SECRET_KEY: ")


@pytest.mark.slow
def test_a_wrong_variable_of_opentelemetry_stops_the_start_in_one_line() -> None:
    start = run_python("-m", "app.infra.serve", env={**os.environ, "OTEL_PROPAGATORS": "b3"})

    assert start.returncode == 1
    assert start.stderr.startswith("A variable of OpenTelemetry (OTEL_*) is wrong: Propagator b3 ")
    assert start.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given", "most"),
    [
        *(("PORT", given, 65_535) for given in ("0", "65536", "eight")),
        ("KEEP_ALIVE_SECONDS", "PT2M", 86_400),
    ],
)
def test_a_number_out_of_range_stops_the_start(name: str, given: str, most: int) -> None:
    start = run_python("-m", "app.infra.serve", env={**os.environ, name: given}, timeout=300)

    assert start.returncode == 1
    assert start.stderr.startswith(f"{name} is {given!r}, and must be a number from 1 to {most}")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of `make dev`. The variables that a test takes from it are removed afterwards."""
    for name in ("DATABASE_URL", "LOG_LEVEL", "SECRET_KEY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PGSSLMODE", "require")
    file = tmp_path / ".dev" / "environment.json"
    monkeypatch.setattr(dev, "SHARED", file)
    monkeypatch.setattr(environment, "SHARED", file)
    return file


def test_a_shell_without_a_database_url_reads_the_variables_of_a_running_make_dev(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    url = "postgresql://app@127.0.0.1:5432/app"
    own = {**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "DEBUG"}
    del own["PGSSLMODE"]

    with dev.shared(own):
        assert shared.stat().st_mode & 0o077 == 0
        assert str(environment.read(DatabaseSettings).url) == url
        assert os.environ["LOG_LEVEL"] == "ERROR"
        assert "PGSSLMODE" not in os.environ

    monkeypatch.setenv("DATABASE_URL", "")
    with pytest.raises(EnvironmentIncomplete, match="leave `make dev` running in another shell"):
        environment.read(DatabaseSettings)


def test_make_dev_shares_its_variables_on_nfs(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def flock_on_nfs(file: IO[str], operation: int) -> None:
        opened = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if opened == (os.O_WRONLY if operation & fcntl.LOCK_SH else os.O_RDONLY):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_on_nfs)
    url = "postgresql://a/app"
    with dev.shared({**os.environ, "DATABASE_URL": url}):
        assert str(environment.read(DatabaseSettings).url) == url


def test_a_shell_with_a_database_url_shares_no_variables(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dev.shared({**os.environ, "DATABASE_URL": "postgresql://a/app", "SECRET_KEY": "a"}):
        monkeypatch.setenv("DATABASE_URL", "postgresql://given/app")
        before = shared.read_bytes()

        assert str(environment.read(DatabaseSettings).url) == "postgresql://given/app"
        assert os.environ["SECRET_KEY"] == ""
        with dev.shared({**os.environ, "SECRET_KEY": "another"}):
            assert shared.read_bytes() == before
